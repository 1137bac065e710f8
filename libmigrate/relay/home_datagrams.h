#pragma once

#include <poll.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/relay/home_caller.h"
#include "libmigrate/relay/link.h"

namespace migrate {

/// The sockets of UDP, at home, of a process that is away: one for each that has sent something
/// there, with its name, for as long as it is used. Nothing is lost that the network would not lose
/// as well. Part of HomeRelay; the owner's thread only; nothing blocks but `by`.
class HomeDatagrams {
 public:
  /// Sends one. Errors: kCorrupt.
  Result<void> send(const wire::RelayDatagram& datagram, const MakeSocket& by, Link& link);
  void collect(std::vector<pollfd>& descriptors, const Link& link) const;
  /// Queues what has come.
  void pump(Link& link);
  /// Closes those that nobody has used for some minutes.
  void forget_idle();

  /// As those of HomeCaller.
  void add_descriptors(std::set<std::uint32_t>& all) const;
  std::vector<std::uint32_t> take_left() { return std::exchange(left_, {}); }

 private:
  struct Socket {
    AcceptedSocket made;
    std::chrono::steady_clock::time_point used;
  };
  Result<Socket*> find(const SocketName& local, const MakeSocket& by);
  void close_oldest();
  static void receive(const std::string& local, Socket& socket, Link& link);
  static void receive_errors(const std::string& local, const Socket& socket, Link& link);

  std::map<std::string, Socket> sockets_;  // by the name that the process has
  std::vector<std::uint32_t> left_;
};

}  // namespace migrate
