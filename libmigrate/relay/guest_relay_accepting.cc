// What the guest's side does for listeners of the process, for those who have connected to them
// while it was away, and for connections that it makes itself.
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/log.h"
#include "libmigrate/relay/guest_relay.h"

namespace migrate {
namespace {

Error corrupt_accepted(std::uint32_t id) {
  return make_error(ErrorCode::kCorrupt, "accept a connection from home",
                    "relay stream " + std::to_string(id));
}

bool lists(const std::vector<TcpWatch::Listener>& all, const SocketName& local) {
  return std::ranges::find(all, local, &TcpWatch::Listener::local) != all.end();
}

Result<StreamEndpoint> endpoint_of(std::uint32_t id, UniqueFd fd) {
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) {
    return fail(system_error("fstat", "relay stream " + std::to_string(id)));
  }
  StreamEndpoint endpoint;
  endpoint.id = id;
  endpoint.inode = status.st_ino;
  endpoint.process_end = std::move(fd);
  return endpoint;
}

}  // namespace

// Of those that the process has closed nothing was made: home is told by their not being resumed.
Result<void> GuestRelay::create_listeners(std::vector<ListenerParts> parts,
                                          std::vector<StreamEndpoint>& endpoints) {
  std::map<std::uint32_t, GuestListener> open;
  for (ListenerParts& each : parts) {
    auto known = listeners_.extract(each.stream);
    if (known.empty()) {
      return fail(make_error(ErrorCode::kCorrupt, "make a listener",
                             "relay stream " + std::to_string(each.stream)));
    }
    SocketName local = MIGRATE_TRY(SocketName::of(each.sockets.listener.get()));
    MIGRATE_TRY(known.mapped().open(std::move(each.sockets.anchor), std::move(local)));
    open.insert(std::move(known));
    endpoints.push_back(MIGRATE_TRY(endpoint_of(each.stream, std::move(each.sockets.listener))));
  }
  listeners_ = std::move(open);
  return {};
}

Result<void> GuestRelay::create_connection(std::uint32_t id, GuestStream& stream,
                                           NetworkParts& network,
                                           std::vector<StreamEndpoint>& endpoints) {
  const auto parts = std::ranges::find(network.connections, id, &ConnectionParts::stream);
  if (parts != network.connections.end()) {
    endpoints.push_back(MIGRATE_TRY(stream.open_connection(std::move(parts->pair))));
    network.connections.erase(parts);
  } else if (stream.is_accepted() && !stream.is_taken()) {
    begin_call(stream);
  } else {
    stream.leave();
  }
  return {};
}

// The process has it open still, and home and we have forgotten it: it ends as it had ended.
Result<StreamEndpoint> GuestRelay::end_of_nothing(ConnectionParts parts) {
  if (parts.has_error) {
    ConnectionEnd::reset(parts.pair.mate.get());
  } else {
    ::shutdown(parts.pair.mate.get(), SHUT_WR);
  }
  return endpoint_of(parts.stream, std::move(parts.pair.end));
}

void GuestRelay::adopt_listeners(const wire::GuestRelayState& state, std::vector<Adopted>& ends) {
  std::map<std::uint32_t, GuestListener> known = std::exchange(listeners_, {});
  for (const wire::GuestRelayState::Listener& noted : state.listeners()) {
    const auto end = std::ranges::find(ends, noted.id(), &Adopted::id);
    auto local = SocketName::from_bytes(noted.name());
    auto listener = known.extract(noted.id());
    if (end == ends.end() || !local || listener.empty()) {
      continue;  // As one that the process has closed.
    }
    if (auto opened = listener.mapped().open(std::move(end->fd), std::move(*local)); !opened) {
      log::error("{}", opened.error().message());
      continue;
    }
    listener.mapped().set_inode(noted.inode());
    listeners_.insert(std::move(listener));
  }
  for (auto& [id, stream] : streams_) {
    if (stream.is_uncalled()) {  // The worker before had noted it, and no more.
      begin_call(stream);
    }
  }
}

void GuestRelay::note_listeners(wire::GuestRelayState& state) const {
  save_listeners(*state.mutable_relay());
  for (const auto& [id, listener] : listeners_) {
    if (listener.is_open()) {
      wire::GuestRelayState::Listener& noted = *state.add_listeners();
      noted.set_id(id);
      noted.set_name(listener.local().to_bytes());
      noted.set_inode(listener.inode());
    }
  }
}

Result<void> GuestRelay::load_listeners(const wire::RelayState& state) {
  const auto corrupt = [] {
    return fail(
        make_error(ErrorCode::kCorrupt, "read the state of a relay", "listeners of the image"));
  };
  for (const std::uint32_t listener : state.listeners()) {
    if (streams_.contains(listener) || listeners_.size() == kMaxRelayStreams) {
      return corrupt();
    }
    listeners_.try_emplace(listener);
  }
  next_listener_ = std::max(kFirstMadeListener, state.next_listener());
  for (const wire::RelayListening& made : state.made_listeners()) {
    const auto listener = listeners_.find(made.listener());
    const auto name = SocketName::from_bytes(made.name());
    if (listener == listeners_.end() || made.listener() < kFirstMadeListener ||
        made.listener() >= next_listener_ || next_listener_ > kFirstOfNoStream || !name ||
        name->port() == 0 || name->is_link_local()) {
      return corrupt();
    }
    listener->second = GuestListener(made);
  }
  return {};
}

void GuestRelay::save_listeners(wire::RelayState& state) const {
  for (const auto& [id, listener] : listeners_) {
    state.add_listeners(id);
    if (listener.made()) {
      *state.add_made_listeners() = *listener.made();
    }
  }
  state.set_next_listener(next_listener_);
}

std::optional<std::uint64_t> GuestRelay::accepted_stream(std::uint64_t inode) {
  follow_calls();
  for (auto& [id, stream] : streams_) {
    if (stream.is_accepted() && stream.inode() == inode) {
      return id;
    }
  }
  if (gateway_ && gateway_->look_at_listeners_again()) {
    pump_listeners();
  }
  const auto listener = std::ranges::find_if(
      listeners_, [&](const auto& each) { return inode != 0 && each.second.inode() == inode; });
  return listener == listeners_.end() ? std::nullopt : std::optional(listener->first);
}

Result<void> GuestRelay::dispatch_to_stream(const wire::RelayMessage& message) {
  using Body = wire::RelayMessage;
  const bool is_data = message.body_case() == Body::kData;
  const bool is_ack = message.body_case() == Body::kAck;
  const std::uint32_t id = is_data  ? message.data().stream()
                           : is_ack ? message.ack().stream()
                                    : message.close().stream();
  if (!streams_.contains(id) && id < next_accepted_) {
    return {};  // Of one that we have forgotten, and home not yet.
  }
  GuestStream& stream = *MIGRATE_TRY(find(id));
  return is_data  ? stream.accept_data(message.data())
         : is_ack ? stream.accept_ack(message.ack())
                  : stream.accept_close(message.close());
}

Result<void> GuestRelay::accept_accepted(const wire::RelayAccepted& accepted) {
  const std::uint32_t id = accepted.stream();
  const auto local = SocketName::from_bytes(accepted.local());
  const auto peer = SocketName::from_bytes(accepted.peer());
  if (id < next_accepted_ || streams_.size() >= kMaxRelayStreams || !local || !peer ||
      local->family() != peer->family()) {
    return fail(corrupt_accepted(id));
  }
  next_accepted_ = id + 1;
  wire::RelayStreamState state;
  state.set_id(id);
  state.set_directions(wire::RELAY_BOTH);
  *state.mutable_connection()->mutable_accepted() = accepted;
  GuestStream& stream = streams_.try_emplace(id, state).first->second;
  if (accepted.call() == 0) {
    begin_call(stream);
  } else {
    stream.open_called(gateway_ ? gateway_->connect(accepted.call()) : std::nullopt,
                       gateway_ ? gateway_->watch() : nullptr);
  }
  return {};
}

Result<void> GuestRelay::dispatch_to_gateway(const wire::RelayMessage& message) {
  if (!gateway_) {
    return {};
  }
  if (message.has_call_failed()) {
    gateway_->fail_call(message.call_failed().number(),
                        static_cast<int>(message.call_failed().error()));
    return {};
  }
  return message.has_datagram() ? gateway_->accept_datagram(message.datagram())
                                : gateway_->accept_unreachable(message.unreachable());
}

// Without it nothing new goes out of the cell, and what is connected stands still.
void GuestRelay::adopt_gateway(UniqueFd device) {
  if (auto adopted = Gateway::adopt(std::move(device))) {
    gateway_.emplace(std::move(*adopted));
  } else {
    log::error("{}", adopted.error().message());
  }
  for (auto& [id, stream] : streams_) {
    stream.take_back_unanswered();
  }
}

// If the process has closed the listener meanwhile, it resets what waits there, as its kernel
// would.
void GuestRelay::begin_call(GuestStream& stream) {
  const auto listener = listeners_.find(stream.listener());
  if (listener == listeners_.end() || exit_.has_begun()) {
    stream.give_up_call();
  } else {
    stream.begin_call(listener->second.anchor());
  }
}

void GuestRelay::pump_calls() {
  for (auto& [id, stream] : streams_) {
    if (!stream.is_calling() || !runs_here()) {
      continue;
    }
    const auto listener = listeners_.find(stream.listener());
    if (listener == listeners_.end()) {
      stream.give_up_call();
    } else {
      stream.go_on_calling();
    }
  }
}

// Who closes a listener and makes another of its name has that again at home, too. On a link that
// is about to be resumed home has been told of those that were open then, and cannot hear more yet.
void GuestRelay::pump_listeners() {
  if (!runs_here() || (link_ && !established_)) {
    return;
  }
  const auto seen = gateway_ ? gateway_->take_listeners() : std::nullopt;
  for (auto listener = listeners_.begin(); listener != listeners_.end();) {
    const bool is_in_cell = gateway_ && listener->second.inode() != 0;
    if (is_in_cell ? seen && !lists(*seen, listener->second.local())
                   : listener->second.has_closed(seen.has_value())) {
      send_unlistened(listener->first);
      listener = listeners_.erase(listener);
    } else {
      ++listener;
    }
  }
  if (seen && !exit_.has_begun()) {
    find_listeners(*seen);
  }
}

// Of several of one name (SO_REUSEPORT) home has one. What home cannot have, since the process has
// brought along one that is in the way, stays here: with both it could not be moved on.
void GuestRelay::find_listeners(const std::vector<TcpWatch::Listener>& seen) {
  for (const TcpWatch::Listener& each : seen) {
    const bool is_in_the_way = std::ranges::any_of(listeners_, [&](const auto& listener) {
      const SocketName& other = listener.second.local();
      return listener.second.is_open() && listener.second.inode() == 0 &&
             other.port() == each.local.port() &&
             (other.is_any() || each.local.is_any() || other == each.local);
    });
    const auto known = std::ranges::find_if(listeners_, [&](const auto& listener) {
      return listener.second.inode() != 0 && listener.second.local() == each.local;
    });
    if (known != listeners_.end()) {
      known->second.set_inode(each.inode);
    } else if (listeners_.size() < kMaxRelayStreams && next_listener_ < kFirstOfNoStream &&
               !each.local.is_link_local() && !is_in_the_way && !add_listener(each)) {
      return;  // For want of descriptors or memory: another look may find more.
    }
  }
}

// From now on it is as one that the process had at home, but for being in the network of the cell.
bool GuestRelay::add_listener(const TcpWatch::Listener& seen) {
  wire::RelayListening made;
  made.set_listener(next_listener_);
  made.set_name(seen.local.to_bytes());
  made.set_only_ipv6(seen.only_ipv6);
  made.set_backlog(seen.backlog);
  GuestListener listener(std::move(made));
  auto anchor = gateway_->make_anchor(seen.local.family());
  const auto opened = anchor ? listener.open(std::move(*anchor), seen.local)
                             : Result<void>(fail(std::move(anchor).error()));
  if (!opened) {
    log::debug("{}", opened.error().message());
    return false;
  }
  listener.set_inode(seen.inode);
  listeners_.try_emplace(next_listener_++, std::move(listener));
  return true;
}

// What is reset can be found no more: it is looked at before anything is done to it.
void GuestRelay::follow_calls() {
  for (auto& [id, stream] : streams_) {
    if (stream.is_calling() && runs_here()) {
      if (const auto listener = listeners_.find(stream.listener()); listener != listeners_.end()) {
        stream.end_calling(listener->second.watch());
      }
    }
    stream.look_whether_taken();
  }
}

// Home hears of it by what is resumed, if this does not reach it.
void GuestRelay::send_unlistened(std::uint32_t listener) {
  if (is_linked()) {
    wire::RelayMessage message;
    message.mutable_unlistened()->set_listener(listener);
    link_->send(message);
  }
}

// Of the end of the process home is told with all that it had.
void GuestRelay::retire_streams() {
  if (!is_linked() || exit_.has_begun()) {
    return;
  }
  for (auto stream = streams_.begin(); stream != streams_.end();) {
    if (!stream->second.is_over()) {
      ++stream;
      continue;
    }
    wire::RelayMessage message;
    message.mutable_retired()->set_stream(stream->first);
    link_->send(message);
    stream = streams_.erase(stream);
  }
}

}  // namespace migrate
