#pragma once

#include <poll.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "tools/migrated/peer_log.h"
#include "transport/peer_origin.h"
#include "transport/preamble.h"

namespace migrate {

/// Connections of other hosts that were accepted and are not served yet, and the places of those
/// that are. One that has sent no preamble costs a descriptor; the others are taken in turn, the
/// groups (see PeerOrigin) evenly. No group gets more than a quarter of the places, and strangers
/// get no more than three quarters: the rest is for sessions that have a worker here, for root of
/// this host, and for root of hosts that have proved once who they are. When too many wait, the one
/// that has waited longest in the largest group is turned away. Owned by one thread; no call
/// blocks.
class PeerQueue {
 public:
  struct Limits {
    std::size_t waiting = 512;
    std::size_t served = 256;
  };
  /// Whose place a connection has.
  struct Place {
    std::string group;
    std::string host;  ///< Of root's; empty: nothing is remembered of it.
    bool is_known = false;
    std::chrono::steady_clock::time_point taken;
  };
  /// A connection that is to be served.
  struct Newcomer {
    UniqueFd connection;
    std::string name;  ///< For people.
    std::array<std::byte, kPreambleBytes> preamble{};
    bool must_hurry = false;  ///< Others of its group wait, or soon will.
    Place place;
  };

  /// `has_worker` tells whether a session has one here.
  PeerQueue(Limits limits, std::shared_ptr<const PeerLog> log,
            std::function<bool(const SessionId&)> has_worker);

  /// Takes a connection over and reads what it has sent already.
  void admit(UniqueFd connection, std::string name, PeerOrigin origin);
  /// Adds what is to be polled, for read().
  void append_polls(std::vector<pollfd>& polls) const;
  /// What append_polls() had added, polled. Nothing was admitted or taken meanwhile.
  void read(std::span<const pollfd> polls);
  /// Turns away who has waited too long, some seconds, and frees the places of strangers. To be
  /// called about twice a second.
  void expire();
  /// The next one to be served; it has its place until leave().
  std::optional<Newcomer> next();
  /// `has_proved`: who it is. The place of a stranger who has not is free two seconds after it was
  /// taken, as each costs a child.
  void leave(const Place& place, bool has_proved);

  std::size_t waiting() const { return waiting_.size(); }

 private:
  struct Waiting {
    UniqueFd connection;
    std::string name;
    PeerOrigin origin;
    Place place;
    std::array<std::byte, kPreambleBytes> preamble{};
    std::size_t filled = 0;
    std::chrono::steady_clock::time_point came;

    bool is_ready() const { return filled == kPreambleBytes; }
  };
  struct Share {
    std::size_t waiting = 0;
    std::size_t served = 0;
  };
  using Position = std::list<Waiting>::iterator;

  bool receive(Waiting& peer);
  bool classify(Waiting& peer);
  Position forget(Position position);
  Position turn_away(Position position, const char* why);
  void make_room();
  bool may_be_served(const Waiting& peer) const;
  std::size_t most_of_group() const;
  void release(const Place& place);
  void settle(const std::string& group);

  Limits limits_;
  std::shared_ptr<const PeerLog> log_;
  std::function<bool(const SessionId&)> has_worker_;
  std::list<Waiting> waiting_;  ///< In the order in which they came.
  std::map<std::string, Share> shares_;
  std::size_t served_ = 0;
  std::size_t strangers_served_ = 0;
  std::list<Place> left_;  ///< Of strangers who are gone, and not free yet.
  std::set<std::string> proved_hosts_;
};

}  // namespace migrate
