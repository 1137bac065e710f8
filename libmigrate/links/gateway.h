#pragma once

#include <sys/types.h>

#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/links/packet.h"
#include "libmigrate/links/tcp_watch.h"
#include "libmigrate/proto/home.pb.h"

namespace migrate {

/// The only way out of a network namespace that has the addresses of a process's home: a device
/// (TUN) from which we read every packet that its sockets send, be it to home itself or to
/// themselves, and a way by which packets come to them. So nobody in there is answered before home
/// has been asked. One thread.
class Gateway {
 public:
  static constexpr std::size_t kMostPacketBytes = 65'535;

  /// Sets up the network namespace of `process`, which is new. Needs CAP_NET_ADMIN,
  /// CAP_NET_RAW, CAP_SYS_ADMIN and /dev/net/tun. Blocks for some milliseconds. Errors: kSystem.
  static Result<Gateway> create(pid_t process, const wire::HomeNetwork& network);
  /// Whether create() can do that here, by doing it to a namespace of which nothing is left. Blocks
  /// for some milliseconds. Errors: kSystem.
  static Result<void> try_out();
  /// Goes on where another worker ended, by its device. Errors: kSystem.
  static Result<Gateway> adopt(UniqueFd device);

  /// Polls readable when there is a packet; -1 once it is lost. As long as somebody has it open the
  /// way is there.
  int device() const { return device_.get(); }
  /// The next packet; empty if there is none now. `into` has room for kMostPacketBytes.
  std::string_view read(std::span<char> into);
  /// Brings a packet to the socket in the namespace that has the name `to`. It may be lost, as any.
  void write(std::string_view packet, const SocketName& to);

  /// Whether in the namespace there is somebody for whom the packet is.
  bool is_for_inside(const Packet& packet);
  /// Takes the place in the namespace of whom `call` calls: a socket connected to the caller's as
  /// soon as that has got `answer`, which is filled. Before begin_mate(), which is to come first,
  /// whoever closes it is silent. Errors: kSystem.
  Result<UniqueFd> make_mate(const Packet& call, Handshake& answer);
  static Result<void> begin_mate(int mate);
  /// Its caller, who has not got the answer, hears nothing of it, and calls again.
  static void take_back_mate(int mate);
  /// A socket of `family` in there, by which make_caller() connects to those that listen: what it
  /// makes has the mark of what we send. Errors: kSystem.
  Result<UniqueFd> make_anchor(int family) const;
  /// Looks at connections in there.
  const std::shared_ptr<TcpWatch>& watch() const { return watch_; }

 private:
  Gateway() = default;
  Result<void> set_up(const wire::HomeNetwork& network);
  Result<void> open_sockets();
  bool is_own(const SocketName& name) const;

  UniqueFd device_;
  UniqueFd space_;
  UniqueFd four_;  // sends packets of version 4
  UniqueFd six_;   // not valid: there are none of version 6
  std::shared_ptr<TcpWatch> watch_;
  std::set<std::string> own_;  // addresses, as they are sent
};

}  // namespace migrate
