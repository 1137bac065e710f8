#include "tools/migrated/peer_queue.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace migrate {
namespace {

constexpr std::chrono::milliseconds kPreamblePatience{5000};
/// Less than those who connect wait for an answer.
constexpr std::chrono::milliseconds kPlacePatience{4000};
constexpr std::chrono::milliseconds kStrangersTurn{2000};
constexpr std::size_t kMostHosts = 4096;

std::size_t part(std::size_t whole, std::size_t numerator, std::size_t denominator) {
  return std::max<std::size_t>(whole * numerator / denominator, 1);
}

}  // namespace

PeerQueue::PeerQueue(Limits limits, std::shared_ptr<const PeerLog> log,
                     std::function<bool(const SessionId&)> has_worker)
    : limits_(limits), log_(std::move(log)), has_worker_(std::move(has_worker)) {}

void PeerQueue::admit(UniqueFd connection, std::string name, PeerOrigin origin) {
  make_room();
  Waiting& peer = waiting_.emplace_back();
  peer.connection = std::move(connection);
  peer.name = std::move(name);
  peer.place.group = origin.group;
  peer.origin = std::move(origin);
  peer.came = std::chrono::steady_clock::now();
  ++shares_[peer.place.group].waiting;
  if (!receive(peer)) {
    forget(std::prev(waiting_.end()));
  }
}

/// Reads what there is of the preamble; false if it is none of ours.
bool PeerQueue::receive(Waiting& peer) {
  const ssize_t count = ::recv(peer.connection.get(), peer.preamble.data() + peer.filled,
                               peer.preamble.size() - peer.filled, MSG_DONTWAIT);
  if (count < 0) {
    return errno == EAGAIN || errno == EINTR;
  }
  if (count == 0) {
    log::warn(log_->no_preamble, "{} hung up before it had said anything", peer.name);
    return false;
  }
  peer.filled += static_cast<std::size_t>(count);
  return !peer.is_ready() || classify(peer);
}

/// Whose place it will have. One of another version is told so by whoever serves it.
bool PeerQueue::classify(Waiting& peer) {
  const auto preamble = decode_preamble(peer.preamble);
  if (!preamble && preamble.error().code != ErrorCode::kUnsupported) {
    log::warn(log_->no_preamble, "closed a connection from {}: {}", peer.name,
              preamble.error().message());
    return false;
  }
  const std::string before = peer.place.group;
  const bool has_worker = preamble && preamble->purpose != Purpose::kOffer &&
                          preamble->purpose != Purpose::kQuery && has_worker_(preamble->session);
  if (has_worker) {
    peer.place.group = "session " + to_hex(preamble->session) + " of " + before;
  }
  const PeerOrigin& origin = peer.origin;
  peer.place.host = origin.is_root && !origin.is_local ? origin.host : std::string();
  peer.place.is_known =
      has_worker || (origin.is_root && (origin.is_local || proved_hosts_.contains(origin.host)));
  ++shares_[peer.place.group].waiting;
  --shares_[before].waiting;
  settle(before);
  return true;
}

void PeerQueue::append_polls(std::vector<pollfd>& polls) const {
  for (const Waiting& peer : waiting_) {
    const short events = peer.is_ready() ? POLLRDHUP : POLLIN;
    polls.push_back({peer.connection.get(), events, 0});
  }
}

void PeerQueue::read(std::span<const pollfd> polls) {
  auto position = waiting_.begin();
  for (const pollfd& polled : polls) {
    const bool stays = polled.revents == 0 || (!position->is_ready() && receive(*position));
    position = stays ? std::next(position) : forget(position);
  }
}

void PeerQueue::expire() {
  const auto now = std::chrono::steady_clock::now();
  std::erase_if(left_, [&](const Place& place) {
    const bool is_over = now - place.taken > kStrangersTurn;
    if (is_over) {
      release(place);
    }
    return is_over;
  });
  for (auto position = waiting_.begin(); position != waiting_.end();) {
    const auto waited = now - position->came;
    if (position->is_ready() && waited > kPlacePatience) {
      position = turn_away(position, "got no place in time");
    } else if (!position->is_ready() && waited > kPreamblePatience) {
      log::warn(log_->no_preamble, "closed a connection from {}, which said nothing for {} ms",
                position->name, kPreamblePatience.count());
      position = forget(position);
    } else {
      ++position;
    }
  }
}

std::optional<PeerQueue::Newcomer> PeerQueue::next() {
  auto best = waiting_.end();
  const auto rank = [this](const Waiting& peer) {
    return std::pair(!peer.place.is_known, shares_.at(peer.place.group).served);
  };
  for (auto position = waiting_.begin(); position != waiting_.end(); ++position) {
    if (may_be_served(*position) && (best == waiting_.end() || rank(*position) < rank(*best))) {
      best = position;
    }
  }
  if (best == waiting_.end()) {
    return std::nullopt;
  }
  best->place.taken = std::chrono::steady_clock::now();
  Share& share = shares_.at(best->place.group);
  ++share.served;
  ++served_;
  strangers_served_ += best->place.is_known ? 0 : 1;
  Newcomer newcomer{std::move(best->connection), std::move(best->name), best->preamble,
                    share.served > part(most_of_group(), 1, 4), best->place};
  forget(best);
  return newcomer;
}

void PeerQueue::leave(const Place& place, bool has_proved) {
  if (!has_proved && !place.is_known) {
    left_.push_back(place);
    return;
  }
  release(place);
  if (has_proved && !place.host.empty() && proved_hosts_.size() < kMostHosts) {
    proved_hosts_.insert(place.host);
  }
}

void PeerQueue::release(const Place& place) {
  --served_;
  strangers_served_ -= place.is_known ? 0 : 1;
  --shares_.at(place.group).served;
  settle(place.group);
}

PeerQueue::Position PeerQueue::forget(Position position) {
  const std::string group = position->place.group;
  --shares_.at(group).waiting;
  settle(group);
  return waiting_.erase(position);
}

PeerQueue::Position PeerQueue::turn_away(Position position, const char* why) {
  log::warn(log_->no_place,
            "turned {} ({}) away, which {}: {} connections are being served, {} wait",
            position->name, position->place.group, why, served_, waiting_.size());
  refuse_for_now(position->connection.get());
  return forget(position);
}

void PeerQueue::make_room() {
  if (waiting_.size() < limits_.waiting) {
    return;
  }
  const auto largest = std::max_element(
      shares_.begin(), shares_.end(),
      [](const auto& a, const auto& b) { return a.second.waiting < b.second.waiting; });
  turn_away(std::find_if(waiting_.begin(), waiting_.end(),
                         [&](const Waiting& peer) { return peer.place.group == largest->first; }),
            "had to make room");
}

bool PeerQueue::may_be_served(const Waiting& peer) const {
  return peer.is_ready() && served_ < limits_.served &&
         (peer.place.is_known || strangers_served_ < part(limits_.served, 3, 4)) &&
         shares_.at(peer.place.group).served < most_of_group();
}

std::size_t PeerQueue::most_of_group() const {
  return part(limits_.served, 1, 4);
}

/// Nothing is kept of a group that has nobody here.
void PeerQueue::settle(const std::string& group) {
  const auto share = shares_.find(group);
  if (share->second.waiting == 0 && share->second.served == 0) {
    shares_.erase(share);
  }
}

}  // namespace migrate
