#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/links/tcp_listener.h"
#include "libmigrate/links/tcp_watch.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/relay/link.h"

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

  GuestListener() = default;
  /// One that the process has made where it is a guest, or was.
  explicit GuestListener(wire::RelayListening made) : made_(std::move(made)) {}
  const std::optional<wire::RelayListening>& made() const { return made_; }
  /// Of the process's socket, if that is in the network of its cell; else 0.
  std::uint64_t inode() const { return inode_; }
  void set_inode(std::uint64_t inode) { inode_ = inode; }
  /// Queues what home is to hear of it, once.
  void pump_link(Link& link);
  /// Home may not have heard of it.
  void begin_again() { is_told_ = false; }

  /// `local`: its name. Errors: kSystem.
  Result<void> open(UniqueFd anchor, SocketName local);
  const SocketName& local() const { return local_; }

  bool is_open() const { return anchor_.valid(); }
  int anchor() const { return anchor_.get(); }
  const std::shared_ptr<TcpWatch>& watch() const { return watch_; }

  /// Looks at it, if that is due or `at_once`. True: the process has just closed it.
  bool has_closed(bool at_once);

 private:
  UniqueFd anchor_;
  SocketName local_;
  std::shared_ptr<TcpWatch> watch_;
  std::optional<wire::RelayListening> made_;
  std::uint64_t inode_ = 0;
  bool is_told_ = false;
  std::chrono::steady_clock::time_point next_look_;
};

}  // namespace migrate
