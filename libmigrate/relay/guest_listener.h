#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/links/tcp_listener.h"
#include "libmigrate/links/tcp_watch.h"

namespace migrate {

/// A listener of the process, as it is to be made.
struct ListenerParts {
  std::uint32_t stream = 0;
  LinkListener sockets;
};

/// A listener of the process at the guest's side: what calls it in the name of those who have
/// called the real one at home. We never have the process's socket: it alone closes it. Part of
/// GuestRelay; the owner's thread only; nothing blocks.
class GuestListener {
 public:
  /// How often to look whether the process has closed it, of which no event tells.
  static constexpr int kLookIntervalMs = 100;

  /// `local`: its name. Errors: kSystem.
  Result<void> open(UniqueFd anchor, SocketName local);
  const SocketName& local() const { return local_; }

  bool is_open() const { return anchor_.valid(); }
  int anchor() const { return anchor_.get(); }
  const std::shared_ptr<TcpWatch>& watch() const { return watch_; }

  /// Looks at it, if that is due. True: the process has just closed it.
  bool has_closed();

 private:
  UniqueFd anchor_;
  SocketName local_;
  std::shared_ptr<TcpWatch> watch_;
  std::chrono::steady_clock::time_point next_look_;
};

}  // namespace migrate
