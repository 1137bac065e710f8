#include "libmigrate/relay/guest_connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "libmigrate/links/tcp_listener.h"

namespace migrate {

GuestConnection::GuestConnection(const wire::RelayConnectionState& state)
    : is_taken_(state.taken() || !state.has_accepted() || state.accepted().call() != 0),
      was_reset_(state.reset()),
      has_left_(state.left()) {
  if (state.has_accepted()) {
    accepted_ = state.accepted();
  }
  if (state.has_urgent()) {
    urgent_ = state.urgent();
  }
}

wire::RelayConnectionState GuestConnection::state() const {
  wire::RelayConnectionState state;
  state.set_reset(is_reset());
  state.set_left(has_left_);
  if (const auto at = urgent()) {
    state.set_urgent(*at);
  }
  if (accepted_) {
    *state.mutable_accepted() = *accepted_;
    state.set_taken(is_taken_);
  }
  return state;
}

void GuestConnection::note(wire::GuestRelayState::Stream& noted) const {
  noted.set_inode(inode_);
  if (end_) {
    wire::ConnectionPlace& place = *noted.mutable_connection();
    end_->note(place);
    place.set_process_from(process_from_);
    place.set_counts_call(counts_call_);
    place.set_local(local_.to_bytes());
    place.set_peer(peer_.to_bytes());
  }
}

Result<UniqueFd> GuestConnection::make_call(int anchor) const {
  return make_caller(anchor, MIGRATE_TRY(SocketName::from_bytes(accepted_->peer())),
                     MIGRATE_TRY(SocketName::from_bytes(accepted_->local())));
}

Result<void> GuestConnection::call(int mate) const {
  const SocketName name = MIGRATE_TRY(SocketName::from_bytes(accepted_->local()));
  if (::connect(mate, name.address(), name.size()) != 0 && errno != EINPROGRESS) {
    return fail(system_error("connect to", "the process's listener"));
  }
  return {};
}

// One that is over was taken, or thrown away with its listener. The kernel does not find one, for
// an instant, while it makes it of the request to connect.
void GuestConnection::look_whether_taken() {
  auto seen = look();
  if (seen && !*seen) {
    seen = look();
  }
  if (seen) {
    is_taken_ = is_taken_ || !*seen || (*seen)->inode != 0;
    inode_ = *seen ? (*seen)->inode : inode_;
  }
}

Result<void> GuestConnection::open(int mate, std::shared_ptr<TcpWatch> watch, std::uint64_t read_at,
                                   std::uint64_t written_at) {
  local_ = MIGRATE_TRY(SocketName::of_peer(mate));
  peer_ = MIGRATE_TRY(SocketName::of(mate));
  const TcpCounts counts = MIGRATE_TRY(count_bytes(mate));
  end_.emplace(ConnectionEnd::Start{counts.taken, counts.given, read_at, written_at});
  watch_ = std::move(watch);
  process_from_ = written_at;
  ConnectionEnd::prepare(mate);
  const int yes = 1;
  ::setsockopt(mate, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
  return {};
}

std::uint64_t GuestConnection::adopt(const wire::GuestRelayState::Stream& noted, int mate,
                                     const StreamBuffer& read, std::uint64_t written) {
  const wire::ConnectionPlace& place = noted.connection();
  inode_ = noted.inode();
  if (!noted.has_connection()) {
    return written;  // It was not open yet.
  }
  end_.emplace(ConnectionEnd::Start{});
  process_from_ = place.process_from();
  counts_call_ = place.counts_call();
  const auto written_to = end_->adopt(place, mate, read, written);
  if (auto local = SocketName::of_peer(mate), peer = SocketName::of(mate); local && peer) {
    local_ = std::move(*local);
    peer_ = std::move(*peer);
    if (auto watch = TcpWatch::open_beside(mate)) {
      watch_ = std::make_shared<TcpWatch>(std::move(*watch));
    } else {
      log::warn("{}", watch.error().message());
    }
  }
  return written_to.value_or(written);
}

ConnectionEnd::Read GuestConnection::read(int mate, StreamBuffer& into, std::uint64_t most) {
  return end_->read(mate, into, most);
}

void GuestConnection::take(int mate) {
  end_->take(mate);
}

ConnectionEnd::Written GuestConnection::write(int mate, StreamBuffer& from) {
  return end_->write(mate, from);
}

void GuestConnection::write_urgently(std::uint64_t offset) {
  if (end_) {
    end_->write_urgently(offset);
  }
}

std::optional<std::uint64_t> GuestConnection::urgent() const {
  return end_ && end_->urgent() ? end_->urgent() : urgent_;
}

bool GuestConnection::is_reset() const {
  return was_reset_ || (end_ && end_->is_reset());
}

Result<std::optional<TcpWatch::Seen>> GuestConnection::look() const {
  if (!watch_) {
    return fail(make_error(ErrorCode::kNotFound, "look at", "a connection"));
  }
  return watch_->look(local_, peer_);
}

bool GuestConnection::is_unanswered() const {
  if (!counts_call_) {
    return false;
  }
  const auto seen = look();
  return seen && *seen && (*seen)->state == TCP_SYN_SENT;
}

std::uint64_t GuestConnection::consumed(std::uint64_t known, std::uint64_t written) const {
  const auto seen = look();
  if (!seen) {
    return known;
  }
  return *seen ? std::clamp(process_from_ + (*seen)->taken, known, written) : written;
}

void GuestConnection::note_consumed(std::uint64_t offset) {
  constexpr int kLongestMs = 64;
  look_interval_ms_ = offset == consumed_ ? std::min(2 * look_interval_ms_, kLongestMs) : 1;
  consumed_ = offset;
}

bool GuestConnection::has_more(std::uint64_t read_to) const {
  if (!end_ || end_->is_reset()) {
    return false;
  }
  const auto seen = look();
  // If nobody has it open, its end or a reset is under way.
  return end_->is_take_due() || !seen || !*seen ||
         end_->is_short_of((*seen)->given - (counts_call_ ? 1 : 0), read_to);
}

bool GuestConnection::has_left() {
  if (!has_left_ && end_) {
    ++late_looks_;
    const auto seen = look();
    has_left_ = seen && !*seen;
  }
  return has_left_;
}

bool GuestConnection::wants_look(bool output_ended) const {
  constexpr int kMostLateLooks = 100;
  return output_ended && !has_left_ && late_looks_ < kMostLateLooks;
}

}  // namespace migrate
