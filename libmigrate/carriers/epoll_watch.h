#pragma once

#include <sys/epoll.h>

#include <cstdint>

#include "libmigrate/proto/image.pb.h"

namespace migrate::carriers {

/// Whether it is a one-shot watch (EPOLLONESHOT) that has fired and was not set again.
inline bool has_fired(const wire::EpollWatch& watch) {
  constexpr std::uint32_t kSettings = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE;
  return (watch.events() & EPOLLONESHOT) != 0 && (watch.events() & ~kSettings) == 0;
}

}  // namespace migrate::carriers
