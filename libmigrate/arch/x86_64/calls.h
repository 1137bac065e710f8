#pragma once

#include <sys/syscall.h>

#include <cstdint>

namespace migrate::arch {

/// Whether a call is poll(2), whose third argument is a time in milliseconds. Newer architectures
/// have only ppoll(2), and answer false.
constexpr bool is_poll(std::int64_t number) {
  return number == SYS_poll;
}

/// Whether a call is epoll_wait(2), whose fourth argument is a time in milliseconds. Newer
/// architectures have only epoll_pwait(2), and answer false.
constexpr bool is_epoll_wait(std::int64_t number) {
  return number == SYS_epoll_wait;
}

}  // namespace migrate::arch
