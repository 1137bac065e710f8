#pragma once

#include <poll.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/links/gateway.h"
#include "libmigrate/relay/link.h"

namespace migrate {

/// What sockets in the cell send that no stream is for: calls, which home carries out, and
/// datagrams, which it sends on. What is already connected it only hands to the other end. A worker
/// that takes over knows of no call: who waits for an answer asks again by himself. Part of
/// GuestRelay; the owner's thread only; nothing blocks.
class GuestGateway {
 public:
  explicit GuestGateway(Gateway gateway) : gateway_(std::move(gateway)) {}

  int device() const { return gateway_.device(); }
  const std::shared_ptr<TcpWatch>& watch() const { return gateway_.watch(); }

  /// Adds what to poll; returns the longest time to sleep in milliseconds; -1: no limit.
  int collect(std::vector<pollfd>& descriptors) const;
  /// Hands on what has come. `is_frozen`: the process is, and nothing new is begun for it.
  void pump(bool is_frozen);
  /// Queues what home is to hear.
  void pump_link(Link& link);
  /// Home knows of no call any more.
  void begin_again();

  /// Home has made the connection of a call: a socket in the place of whom the process calls.
  /// Nothing: nobody waits for it any more, or it cannot be made.
  std::optional<UniqueFd> connect(std::uint64_t call);
  /// Lets those know whose connections have been made. Call when that has been noted.
  void tell_connected();
  /// It could not.
  void fail_call(std::uint64_t call, int error);

  /// Looks which sockets listen in the cell.
  void look_at_listeners();
  /// The same, unless that was a moment ago: of many descriptors it may be asked in turn.
  bool look_at_listeners_again();
  /// What the last look has seen, once.
  std::optional<std::vector<TcpWatch::Listener>> take_listeners() {
    return std::exchange(listeners_, std::nullopt);
  }
  /// As that of Gateway.
  Result<UniqueFd> make_anchor(int family) const { return gateway_.make_anchor(family); }

  /// A datagram has come to home for the socket `local`. Errors: kCorrupt.
  Result<void> accept_datagram(const wire::RelayDatagram& datagram);
  Result<void> accept_unreachable(const wire::RelayUnreachable& unreachable);

 private:
  struct Call {
    Packet packet;
    std::string bytes;  // of it
    bool is_sent = false;
  };
  struct Answer {
    UniqueFd mate;
    std::string packet;
    SocketName to;
  };

  void take(std::string_view bytes, bool is_frozen);
  void take_call(const Packet& packet, std::string_view bytes);
  void know_sender(const SocketName& from);
  void look_at_names();
  void look_at_calls();

  Gateway gateway_;
  std::map<std::uint64_t, Call> calls_;  // by number
  std::uint64_t last_call_ = 0;
  std::vector<std::uint64_t> ended_;           // by the process, and home is to hear of it
  std::vector<Answer> answers_;                // not given yet
  std::vector<wire::RelayMessage> datagrams_;  // for home
  std::chrono::steady_clock::time_point next_look_;
  // Of the sockets of UDP in the cell. Nothing: not looked yet, or the kernel does not tell.
  std::optional<std::set<SocketName>> names_;
  bool are_names_told_ = false;
  std::optional<std::vector<TcpWatch::Listener>> listeners_;
  std::chrono::steady_clock::time_point next_look_at_names_;
  std::chrono::steady_clock::time_point looked_at_listeners_;
};

}  // namespace migrate
