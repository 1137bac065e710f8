#pragma once

#include <poll.h>

#include <cstdint>
#include <set>
#include <vector>

#include "base/result.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/relay/home_caller.h"
#include "libmigrate/relay/home_datagrams.h"
#include "libmigrate/relay/link.h"

namespace migrate {

/// All that a process which is away sends to others by new sockets at home: its calls, and its
/// datagrams. Part of HomeRelay; the owner's thread only; nothing blocks but `by`, for as long as a
/// script takes.
class HomeOutgoing {
 public:
  HomeCaller& calls() { return calls_; }

  /// Sends one. Errors: kCorrupt.
  Result<void> send(const wire::RelayDatagram& datagram, const MakeSocket& by, Link& link) {
    return datagrams_.send(datagram, by, link);
  }
  HomeDatagrams& datagrams() { return datagrams_; }
  void collect(std::vector<pollfd>& descriptors, const Link& link) const;
  /// Queues the datagrams that have come; returns what has come of calls.
  std::vector<HomeCaller::Outcome> pump(const MakeSocket& by, Link& link);

  /// Of the deputy's descriptors: those in use, and those that are to be closed: of calls that came
  /// to nothing, and sockets that nobody has used.
  void add_descriptors(std::set<std::uint32_t>& all) const;
  std::vector<std::uint32_t> take_left();

 private:
  HomeCaller calls_;
  HomeDatagrams datagrams_;
};

}  // namespace migrate
