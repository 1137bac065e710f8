#include "libmigrate/relay/home_acceptor.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "base/log.h"
#include "libmigrate/links/stream_ids.h"
#include "libmigrate/links/tcp_listener.h"
#include "libmigrate/links/tcp_socket.h"
#include "libmigrate/relay/connection_end.h"
#include "libmigrate/relay/stream_buffer.h"

namespace migrate {
namespace {

constexpr std::size_t kMostWaiting = 128;
constexpr int kRestMs = 100;
constexpr int kAttemptsPerTurn = 16;  // Of listeners, each of which takes scripts of the deputy's.
constexpr int kMostWarnings = 16;

}  // namespace

void HomeAcceptor::begin_at(std::uint32_t first) {
  first_ = first;
  next_ = std::max(next_, first);
}

void HomeAcceptor::add(std::uint32_t listener, UniqueFd real) {
  open(listeners_[listener], std::move(real));
}

void HomeAcceptor::open(Listener& listener, UniqueFd real) {
  const std::size_t backlog = backlog_of(real.get()).value_or(1);
  listener.real = std::move(real);
  listener.most_waiting = std::clamp<std::size_t>(backlog, 1, kMostWaiting);
}

Result<void> HomeAcceptor::want(const wire::RelayListening& wanted) {
  const std::uint32_t id = wanted.listener();
  const auto name = SocketName::from_bytes(wanted.name());
  const auto known = listeners_.find(id);
  const bool is_new = known == listeners_.end();
  if (id < kFirstMadeListener || id >= kFirstOfNoStream || !name || name->port() == 0 ||
      name->is_link_local() || (is_new && listeners_.size() >= kMaxRelayStreams) ||
      (!is_new && (!known->second.made || known->second.made->name() != wanted.name()))) {
    return fail(make_error(ErrorCode::kCorrupt, "listen for the process",
                           "listener " + std::to_string(id)));
  }
  if (is_new) {
    // What is known of such a message, and no more: it is noted.
    wire::RelayListening& made = listeners_[id].made.emplace();
    made.set_listener(id);
    made.set_name(wanted.name());
    made.set_only_ipv6(wanted.only_ipv6());
    made.set_backlog(wanted.backlog());
  }
  return {};
}

void HomeAcceptor::try_again() {
  for (auto& [id, listener] : listeners_) {
    listener.error = 0;
  }
}

bool HomeAcceptor::is_to_be_made(const Listener& listener) {
  return listener.made && !listener.real.valid() && listener.error == 0;
}

bool HomeAcceptor::is_open() const {
  return std::ranges::any_of(listeners_, [](const auto& each) { return each.second.real.valid(); });
}

void HomeAcceptor::make_wanted(const Listen& by) {
  int attempts = 0;
  for (auto& [id, listener] : listeners_) {
    if (!is_to_be_made(listener)) {
      continue;
    }
    if (is_resting() || ++attempts > kAttemptsPerTurn) {
      return;
    }
    auto made = by(*listener.made);
    if (made) {
      listener.descriptor = made->descriptor;
      listener.cookie = cookie_of(made->real.get()).value_or(0);
      open(listener, std::move(made->real));
    } else if (made.error().code == ErrorCode::kRetry) {
      rests_until_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(kRestMs);
    } else {
      listener.error = made.error().sys_errno == 0 ? EIO : made.error().sys_errno;
      if (warnings_++ < kMostWarnings) {
        log::warn("only who is where the process is reaches its listener: {}",
                  made.error().message());
      }
    }
  }
}

void HomeAcceptor::adopt(const wire::HomeRelayState& state) {
  for (const wire::HomeRelayState::Stream& noted : state.streams()) {
    if (noted.has_accepted()) {
      accepted_[noted.id()] = {noted.accepted(), noted.deputy_descriptor(), noted.cookie(),
                               noted.taken(), false};
    }
  }
  for (const wire::HomeRelayState::Listener& noted : state.listeners()) {
    if (noted.has_made()) {
      Listener& listener = listeners_[noted.id()];
      listener.made = noted.made();
      listener.descriptor = listener.real.valid() ? noted.deputy_descriptor() : 0;
      listener.cookie = noted.cookie();
      listener.error = static_cast<int>(noted.error());
    }
    if (const auto found = listeners_.find(noted.id()); found != listeners_.end()) {
      found->second.accepted = noted.accepted();
    }
  }
  for (const std::uint32_t listener : state.closed_listeners()) {
    close(listener);
  }
  if (state.first_accepted() != 0) {
    first_ = state.first_accepted();
  }
  next_ = std::max(first_, state.next_accepted());
}

void HomeAcceptor::note(wire::HomeRelayState& state) const {
  state.set_first_accepted(first_);
  state.set_next_accepted(next_);
  state.mutable_closed_listeners()->Assign(closed_.begin(), closed_.end());
  for (const auto& [id, listener] : listeners_) {
    wire::HomeRelayState::Listener& noted = *state.add_listeners();
    noted.set_id(id);
    noted.set_accepted(listener.accepted);
    if (listener.made) {
      noted.set_name(listener.made->name());
      *noted.mutable_made() = *listener.made;
      noted.set_deputy_descriptor(listener.descriptor);
      noted.set_cookie(listener.cookie);
      noted.set_error(static_cast<std::uint32_t>(listener.error));
    } else {
      noted.set_name(SocketName::of(listener.real.get()).value_or(SocketName()).to_bytes());
    }
  }
}

void HomeAcceptor::note(std::uint32_t stream, wire::HomeRelayState::Stream& noted) const {
  if (const auto found = accepted_.find(stream); found != accepted_.end()) {
    *noted.mutable_accepted() = found->second.names;
    noted.set_deputy_descriptor(found->second.descriptor);
    noted.set_cookie(found->second.cookie);
    noted.set_taken(found->second.is_taken);
  }
}

bool HomeAcceptor::may_accept(std::uint32_t id, const Listener& listener,
                              std::size_t streams) const {
  const auto waiting =
      static_cast<std::size_t>(std::ranges::count_if(accepted_, [id](const auto& each) {
        return each.second.names.listener() == id && !each.second.is_taken;
      }));
  return waiting < listener.most_waiting && streams < std::size_t{kMaxRelayStreams} &&
         next_ < kFirstMadeListener;
}

int HomeAcceptor::collect(std::vector<pollfd>& descriptors, std::size_t streams) const {
  if (listeners_.empty()) {
    return -1;
  }
  if (is_resting()) {
    return kRestMs;
  }
  int timeout_ms = -1;
  for (const auto& [id, listener] : listeners_) {
    if (is_to_be_made(listener)) {
      timeout_ms = 0;
    } else if (may_accept(id, listener, streams)) {
      descriptors.push_back({listener.real.get(), POLLIN, 0});
    }
  }
  return timeout_ms;
}

// Who comes from an address that means something on one interface only cannot be named elsewhere.
std::optional<HomeAcceptor::New> HomeAcceptor::accept(const Accept& by, std::size_t streams) {
  for (auto& [id, listener] : listeners_) {
    pollfd polled{listener.real.get(), POLLIN, 0};
    if (is_resting() || !may_accept(id, listener, streams) || ::poll(&polled, 1, 0) <= 0 ||
        (polled.revents & POLLIN) == 0) {
      continue;
    }
    auto accepted = by(id, listener.descriptor);
    if (!accepted) {
      log::warn("{}", accepted.error().message());
      rests_until_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(kRestMs);
      return std::nullopt;
    }
    const std::uint32_t stream = next_++;
    ++listener.accepted;
    Accepted& noted = accepted_[stream];
    noted.names.set_stream(stream);
    noted.names.set_listener(id);
    noted.descriptor = accepted->descriptor;
    noted.cookie = cookie_of(accepted->real.get()).value_or(0);
    const auto local = SocketName::of(accepted->real.get());
    const auto peer = SocketName::of_peer(accepted->real.get());
    if (local && peer && !local->is_link_local() && !peer->is_link_local()) {
      noted.names.set_local(local->to_bytes());
      noted.names.set_peer(peer->to_bytes());
      return New{stream, std::move(accepted->real)};
    }
    ConnectionEnd::reset(accepted->real.get());  // Or it has been reset while it waited.
    return New{stream, UniqueFd()};
  }
  return std::nullopt;
}

std::uint32_t HomeAcceptor::add_called(std::uint64_t call, const AcceptedSocket& made,
                                       std::size_t streams) {
  const auto local = SocketName::of(made.real.get());
  const auto peer = SocketName::of_peer(made.real.get());
  if (streams >= std::size_t{kMaxRelayStreams} || next_ >= kFirstMadeListener || !local || !peer) {
    return 0;
  }
  const std::uint32_t stream = next_++;
  Accepted& noted = accepted_[stream];
  noted.names.set_stream(stream);
  noted.names.set_call(call);
  noted.names.set_local(local->to_bytes());
  noted.names.set_peer(peer->to_bytes());
  noted.descriptor = made.descriptor;
  noted.cookie = cookie_of(made.real.get()).value_or(0);
  noted.is_taken = true;
  return stream;
}

bool HomeAcceptor::is_called(std::uint32_t stream) const {
  const auto found = accepted_.find(stream);
  return found != accepted_.end() && found->second.names.call() != 0;
}

const wire::RelayAccepted* HomeAcceptor::news(std::uint32_t stream) {
  const auto found = accepted_.find(stream);
  if (found == accepted_.end() || std::exchange(found->second.is_told, true)) {
    return nullptr;
  }
  return &found->second.names;
}

void HomeAcceptor::set_told(std::uint32_t stream, bool is_told) {
  if (const auto found = accepted_.find(stream); found != accepted_.end()) {
    found->second.is_told = is_told;
  }
}

void HomeAcceptor::set_taken(std::uint32_t stream) {
  if (const auto found = accepted_.find(stream); found != accepted_.end()) {
    found->second.is_taken = true;
  }
}

bool HomeAcceptor::is_taken(std::uint32_t stream) const {
  const auto found = accepted_.find(stream);
  return found == accepted_.end() || found->second.is_taken;
}

std::optional<std::uint32_t> HomeAcceptor::take_descriptor(std::uint32_t stream) {
  const auto found = accepted_.find(stream);
  if (found == accepted_.end() || found->second.descriptor == 0) {
    return std::nullopt;
  }
  return std::exchange(found->second.descriptor, 0);
}

std::set<std::uint32_t> HomeAcceptor::descriptors() const {
  std::set<std::uint32_t> all;
  for (const auto& [stream, accepted] : accepted_) {
    if (accepted.descriptor != 0) {
      all.insert(accepted.descriptor);
    }
  }
  for (const auto& [id, listener] : listeners_) {
    if (listener.descriptor != 0) {
      all.insert(listener.descriptor);
    }
  }
  return all;
}

std::optional<std::uint32_t> HomeAcceptor::close(std::uint32_t id) {
  const auto listener = listeners_.extract(id);
  if (listener.empty()) {
    return std::nullopt;
  }
  if (listener.mapped().made) {
    const std::uint32_t descriptor = listener.mapped().descriptor;
    return descriptor == 0 ? std::nullopt : std::optional(descriptor);
  }
  closed_.insert(id);
  return 0;
}

std::vector<std::uint32_t> HomeAcceptor::listeners() const {
  std::vector<std::uint32_t> all;
  for (const auto& [id, listener] : listeners_) {
    all.push_back(id);
  }
  return all;
}

}  // namespace migrate
