#pragma once

#include <poll.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/result.h"
#include "libmigrate/links/tcp_socket.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/relay/home_acceptor.h"

namespace migrate {

/// Has the deputy make a socket of `type` (SOCK_STREAM, SOCK_DGRAM) with the name `local`, or one
/// like it if that is taken, and connect it to `peer`, if there is one; that it is under way is no
/// error. Errors: kRetry (not now), kSystem (as connect(2) says).
using MakeSocket = std::function<Result<AcceptedSocket>(int type, const SocketName& local,
                                                        const SocketName* peer)>;

/// The calls of a process that is away, at home, where the deputy makes them. Part of HomeRelay;
/// the owner's thread only; nothing blocks but `by`, for as long as a script takes.
class HomeCaller {
 public:
  /// Errors: kCorrupt.
  Result<void> take(const wire::RelayCall& call);
  /// The process has given it up.
  void end(std::uint64_t number);
  /// All that are not answered are off.
  void end_all();

  void collect(std::vector<pollfd>& descriptors) const;
  struct Outcome {
    std::uint64_t number = 0;
    AcceptedSocket socket;  ///< Connected, unless there is an error.
    int error = 0;          ///< errno(3); EAGAIN: not now
  };
  /// What has come of them.
  std::vector<Outcome> pump(const MakeSocket& by);

  /// Of the deputy's: those in use, and those that are to be closed.
  void add_descriptors(std::set<std::uint32_t>& all) const;
  std::vector<std::uint32_t> take_left() { return std::exchange(left_, {}); }

 private:
  struct Call {
    SocketName local;
    SocketName peer;
    std::optional<AcceptedSocket> socket;  // once it is under way
  };
  static std::optional<int> error_of(const Call& call);

  std::map<std::uint64_t, Call> calls_;  // by number
  std::vector<std::uint32_t> left_;
};

}  // namespace migrate
