#pragma once

#include <poll.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/result.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/relay/home_caller.h"
#include "libmigrate/relay/link.h"

namespace migrate {

/// A socket of UDP that the process has had at home, and its deputy has still.
struct KeptDatagrams {
  SocketName name;
  UniqueFd real;
  std::vector<std::uint32_t> descriptors = {};  ///< What the deputy has it as.
};

/// The sockets of UDP, at home, of a process that is away: those that it has had there, and one for
/// each other of its that has a name or has sent something, with that name. Nothing is lost that
/// the network would not lose as well. Part of HomeRelay; the owner's thread only; nothing blocks
/// but `by`.
class HomeDatagrams {
 public:
  /// Before anything else.
  void keep(std::vector<KeptDatagrams> kept);
  /// Whether a datagram is to be let through. Those that come from whom the process has sent one to
  /// are answers, of which this is not asked.
  using LetsThrough =
      std::function<bool(bool is_out, const SocketName& local, const SocketName& peer)>;
  void guard(LetsThrough lets) { lets_ = std::move(lets); }

  /// Sends one. Errors: kCorrupt.
  Result<void> send(const wire::RelayDatagram& datagram, const MakeSocket& by, Link& link);
  /// Closes what the process has no more, and makes what it has. Errors: kCorrupt.
  Result<void> follow(const wire::RelayBound& bound, const MakeSocket& by);
  void collect(std::vector<pollfd>& descriptors, const Link& link) const;
  /// Queues what has come.
  void pump(Link& link);
  /// Closes those that the process is not known to have, and that nobody has used for some minutes.
  void forget_idle();

  /// As those of HomeCaller.
  void add_descriptors(std::set<std::uint32_t>& all) const;
  std::vector<std::uint32_t> take_left() { return std::exchange(left_, {}); }

 private:
  struct Socket {
    SocketName name;  // that the process knows; never a mapped one
    UniqueFd real;
    std::vector<std::uint32_t> descriptors;
    std::chrono::steady_clock::time_point used;
    bool was_had_at_home = false;
    bool is_had = false;     // by the process, as it has been told
    bool was_asked = false;  // for the error that had come before the process left
    SocketName sender;       // of the last datagram
    std::optional<SocketName> peer = std::nullopt;  // from whom alone it hears
    std::set<SocketName> sent_to = {};              // some of those who may answer
  };
  Socket* find(const SocketName& local);
  Result<Socket*> make(const SocketName& local, const MakeSocket& by);
  void close_oldest();
  void leave(const Socket& socket);
  static void hear_all(Socket& socket);
  void receive(Socket& socket, Link& link) const;
  static void tell_earlier_error(Socket& socket, Link& link);
  static void receive_errors(const Socket& socket, Link& link);

  LetsThrough lets_ = [](bool, const SocketName&, const SocketName&) { return true; };
  std::list<Socket> sockets_;
  std::size_t made_ = 0;  // of them, here
  std::vector<std::uint32_t> left_;
};

}  // namespace migrate
