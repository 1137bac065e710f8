#include "libmigrate/relay/guest_relay.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <utility>

namespace migrate {
namespace {

/// How long the kernel may need to bring what a process has written to the other end of a pair.
constexpr std::chrono::seconds kLongestDrain{10};

Error corrupt_from_home(const char* what, const std::string& object = "link to home") {
  return make_error(ErrorCode::kCorrupt, what, object);
}

}  // namespace

wire::RelayState make_relay_state(std::span<const RelayStreamSpec> streams) {
  wire::RelayState state;
  state.set_epoch(1);
  state.set_next_signal(1);
  state.set_next_accepted(1);
  for (const RelayStreamSpec& spec : streams) {
    state.set_next_accepted(std::max(state.next_accepted(), spec.id + 1));
    if (spec.is_listener) {
      state.add_listeners(spec.id);
      continue;
    }
    wire::RelayStreamState& stream = *state.add_streams();
    stream.set_id(spec.id);
    stream.set_directions(spec.directions);
    if (spec.is_terminal) {
      stream.mutable_terminal();
    }
    if (spec.is_connection) {
      stream.mutable_connection();
    }
    stream.set_out_eof(spec.send_ended);
  }
  return state;
}

Result<std::unique_ptr<GuestRelay>> GuestRelay::create(const wire::RelayState& state,
                                                       Handlers handlers) {
  if (state.epoch() == 0 || state.next_signal() == 0 || state.streams_size() > kMaxRelayStreams) {
    return fail(corrupt_from_home("read the state of a relay", "image"));
  }
  std::unique_ptr<GuestRelay> relay(new GuestRelay(std::move(handlers)));
  for (const wire::RelayStreamState& stream : state.streams()) {
    const bool directions_ok = stream.has_terminal() || stream.has_connection()
                                   ? stream.directions() == wire::RELAY_BOTH
                                   : stream.directions() >= 1 && stream.directions() <= 3;
    if (!directions_ok || !relay->streams_.try_emplace(stream.id(), stream).second) {
      return fail(
          corrupt_from_home("read the state of a relay",
                            "relay stream " + std::to_string(stream.id()) + " of the image"));
    }
  }
  MIGRATE_TRY(relay->load_listeners(state));
  relay->next_accepted_ = state.next_accepted();
  relay->state_epoch_ = state.epoch();
  relay->next_signal_ = state.next_signal();
  relay->acked_signal_ = state.next_signal() - 1;
  relay->stopped_signal_ = state.stopped_signal();
  std::signal(SIGPIPE, SIG_IGN);  // A write to a pipe has no MSG_NOSIGNAL.
  return relay;
}

Result<std::unique_ptr<GuestRelay>> GuestRelay::adopt(const wire::GuestRelayState& state,
                                                      std::vector<Adopted> ends,
                                                      Handlers handlers) {
  std::unique_ptr<GuestRelay> relay = MIGRATE_TRY(create(state.relay(), std::move(handlers)));
  const auto device = std::ranges::find(ends, RelayEnd::Kind::kGateway, &Adopted::kind);
  UniqueFd gateway;
  if (device != ends.end()) {
    gateway = std::move(device->fd);
    ends.erase(device);
  }
  for (const wire::GuestRelayState::Stream& noted : state.streams()) {
    const auto found = relay->streams_.find(noted.id());
    if (found == relay->streams_.end()) {
      return fail(corrupt_from_home("take over the link to home"));
    }
    UniqueFd descriptors[3];
    for (Adopted& end : ends) {
      if (end.id == noted.id()) {
        descriptors[static_cast<std::size_t>(end.kind)] = std::move(end.fd);
      }
    }
    found->second.adopt(noted, std::move(descriptors[0]), std::move(descriptors[1]),
                        std::move(descriptors[2]));
  }
  relay->adopt_listeners(state, ends);
  if (gateway.valid()) {
    relay->adopt_gateway(std::move(gateway));
  }
  relay->attempt_ = state.attempt();
  if (state.has_location()) {
    relay->location_ = state.location();
  }
  relay->exit_.adopt(state);
  relay->place_ = Place::kHere;
  return relay;
}

wire::GuestRelayState GuestRelay::note() const {
  wire::GuestRelayState state;
  state.mutable_relay()->set_epoch(state_epoch_);
  state.mutable_relay()->set_next_signal(next_signal_);
  state.mutable_relay()->set_stopped_signal(stopped_signal_);
  state.mutable_relay()->set_next_accepted(next_accepted_);
  for (const auto& [id, stream] : streams_) {
    stream.note(*state.mutable_relay()->add_streams(), *state.add_streams());
  }
  note_listeners(state);
  state.set_attempt(attempt_);
  if (location_) {
    *state.mutable_location() = *location_;
  }
  exit_.note(state);
  return state;
}

std::vector<RelayEnd> GuestRelay::ends() const {
  std::vector<RelayEnd> all;
  for (const auto& [id, stream] : streams_) {
    stream.add_ends(all);
  }
  for (const auto& [id, listener] : listeners_) {
    if (listener.is_open()) {
      all.push_back({id, RelayEnd::Kind::kIn, listener.anchor()});
    }
  }
  if (gateway_ && gateway_->device() >= 0) {
    all.push_back({0, RelayEnd::Kind::kGateway, gateway_->device()});
  }
  return all;
}

Result<std::vector<StreamEndpoint>> GuestRelay::create_endpoints(
    uid_t owner, gid_t group, std::vector<TerminalParts> terminals, NetworkParts network) {
  std::vector<StreamEndpoint> endpoints;
  MIGRATE_TRY(create_listeners(std::move(network.listeners), endpoints));
  for (auto& [id, stream] : streams_) {
    if (stream.is_connection()) {
      MIGRATE_TRY(create_connection(id, stream, network, endpoints));
      continue;
    }
    if (!stream.is_terminal()) {
      const auto pair =
          std::ranges::find(network.unix_connections, id, &UnixConnectionParts::stream);
      endpoints.push_back(MIGRATE_TRY(pair == network.unix_connections.end()
                                          ? stream.open(owner, group)
                                          : stream.open_pair(std::move(pair->pair))));
      continue;
    }
    const auto parts = std::ranges::find(terminals, id, &TerminalParts::stream);
    if (parts == terminals.end()) {
      stream.leave();
      continue;
    }
    endpoints.push_back(MIGRATE_TRY(stream.open_terminal(std::move(*parts), owner, group)));
    terminals.erase(parts);
  }
  for (ConnectionParts& parts : network.connections) {
    if (parts.is_over) {
      endpoints.push_back(MIGRATE_TRY(end_of_nothing(std::move(parts))));
    }
  }
  return endpoints;
}

void GuestRelay::attach(std::unique_ptr<Channel> channel) {
  link_ = std::make_unique<Link>(std::move(channel));
  established_ = false;
  wire::RelayMessage message;
  wire::RelayResume& resume = *message.mutable_resume();
  resume.set_epoch(state_epoch_);
  resume.set_attempt(++attempt_);
  resume.set_next_signal(next_signal_);
  for (auto& [id, stream] : streams_) {
    stream.describe(*resume.add_streams());
  }
  resume.set_next_accepted(next_accepted_);
  for (const auto& [id, listener] : listeners_) {
    resume.add_listeners(id);
  }
  link_->send(message);
  if (runs_here()) {
    send_activate();
  }
}

void GuestRelay::activate() {
  if (runs_here()) {
    return;
  }
  place_ = Place::kHere;
  if (link_) {
    send_activate();
  }
}

void GuestRelay::send_activate() {
  wire::RelayMessage message;
  message.mutable_activate()->set_epoch(state_epoch_);
  link_->send(message);
}

void GuestRelay::drop_link() {
  link_.reset();
  established_ = false;
}

int GuestRelay::collect_poll_fds(std::vector<pollfd>& descriptors) {
  if (place_ == Place::kFrozen) {
    return -1;
  }
  int timeout_ms = -1;
  if (link_) {
    if (link_->arm()) {
      timeout_ms = 0;
    } else {
      descriptors.push_back({link_->poll_fd(), POLLIN, 0});
    }
  }
  for (const auto& [id, stream] : streams_) {
    stream.collect(descriptors);
    if (const int look_ms = stream.looks_in_ms(); look_ms >= 0) {
      timeout_ms = timeout_ms < 0 ? look_ms : std::min(timeout_ms, look_ms);
    }
  }
  if (gateway_ && runs_here()) {
    const int wanted_ms = gateway_->collect(descriptors);
    timeout_ms =
        wanted_ms >= 0 && (timeout_ms < 0 || wanted_ms < timeout_ms) ? wanted_ms : timeout_ms;
  }
  if (runs_here() && !listeners_.empty()) {
    timeout_ms = timeout_ms < 0 ? GuestListener::kLookIntervalMs
                                : std::min(timeout_ms, GuestListener::kLookIntervalMs);
  }
  return timeout_ms;
}

Result<void> GuestRelay::handle() {
  Result<void> outcome;
  receive_all(outcome);
  if (place_ == Place::kFrozen) {
    return outcome;
  }
  if (gateway_ && runs_here()) {
    gateway_->pump(false);
  }
  follow_calls();
  for (auto& [id, stream] : streams_) {
    if (auto pumped = pump_stream(stream); !pumped) {
      outcome = std::move(pumped);
      drop_link();
    }
  }
  pump_listeners();
  handlers_.on_change();
  for (auto& [id, stream] : streams_) {
    stream.take();
  }
  pump_calls();
  if (gateway_) {
    gateway_->tell_connected();
  }
  pump_link();
  retire_streams();
  return outcome;
}

Result<void> GuestRelay::pump_stream(GuestStream& stream) {
  Result<void> pumped = stream.pump_process();
  if (const auto foreground = stream.take_foreground()) {
    handlers_.on_foreground(*foreground);
  }
  return pumped;
}

void GuestRelay::receive_all(Result<void>& outcome) {
  for (int i = 0; i < Link::kMessagesPerTurn && link_ && place_ != Place::kFrozen; ++i) {
    Result<std::optional<wire::RelayMessage>> message = link_->receive();
    if (message && !*message) {
      return;
    }
    Result<void> done;
    if (message) {
      done = dispatch(**message);
    } else {
      done = fail(std::move(message).error());
    }
    if (!done) {
      drop_link();
      if (done.error().code != ErrorCode::kPeerLost) {
        outcome = std::move(done);
      }
    }
  }
}

Result<GuestStream*> GuestRelay::find(std::uint32_t id) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) {
    return fail(
        corrupt_from_home("find the stream of a message", "relay stream " + std::to_string(id)));
  }
  return &found->second;
}

Result<void> GuestRelay::dispatch(const wire::RelayMessage& message) {
  using Body = wire::RelayMessage;
  if (message.body_case() == Body::kResumed) {
    return accept_resumed(message.resumed());
  }
  if (message.body_case() == Body::kExitedAck) {
    exit_.accept_ack(message.exited_ack().descendants(), established_);
    return {};
  }
  if (!established_) {
    return fail(corrupt_from_home("accept a message before home has taken the link"));
  }
  switch (message.body_case()) {
    case Body::kData:
    case Body::kAck:
    case Body::kClose:
      return dispatch_to_stream(message);
    case Body::kSignal:
      return accept_signal(message.signal());
    case Body::kAccepted:
      return accept_accepted(message.accepted());
    case Body::kCallFailed:
    case Body::kDatagram:
    case Body::kUnreachable:
      return dispatch_to_gateway(message);
    default:
      return fail(corrupt_from_home("accept a message that home does not send"));
  }
}

Result<void> GuestRelay::accept_resumed(const wire::RelayResumed& resumed) {
  if (!runs_here() || established_ || resumed.epoch() != state_epoch_ ||
      static_cast<std::size_t>(resumed.streams_size()) != streams_.size()) {
    return fail(corrupt_from_home("resume the link to home"));
  }
  for (const wire::RelayResumed::Stream& stream : resumed.streams()) {
    GuestStream* const ours = MIGRATE_TRY(find(stream.id()));
    if (stream.retired() && ours->is_accepted()) {
      streams_.erase(stream.id());
    } else {
      MIGRATE_TRY(ours->accept_resumed(stream));
    }
  }
  if (gateway_) {
    gateway_->begin_again();
  }
  for (auto& [id, listener] : listeners_) {
    listener.begin_again();
  }
  established_ = true;
  exit_.begin_again();
  send_job_state();
  send_location();
  send_owed();
  return {};
}

Result<void> GuestRelay::accept_signal(const wire::RelaySignal& signal) {
  if (signal.number() != next_signal_ || signal.siginfo().size() != kSiginfoBytes) {
    return fail(
        corrupt_from_home("accept a signal", "signal number " + std::to_string(signal.number())));
  }
  ++next_signal_;
  for (auto& [id, stream] : streams_) {
    if (stream.is_terminal()) {  // What a shell has done before it sends SIGCONT comes first.
      MIGRATE_TRY(pump_stream(stream));
    }
  }
  if (handlers_.on_signal) {
    handlers_.on_signal(std::as_bytes(std::span(signal.siginfo())));
  }
  return {};
}

void GuestRelay::pump_link() {
  if (!is_linked()) {
    return;
  }
  if (next_signal_ - 1 != acked_signal_) {
    wire::RelayMessage message;
    acked_signal_ = next_signal_ - 1;
    message.mutable_signal_ack()->set_number(acked_signal_);
    link_->send(message);
  }
  for (auto& [id, stream] : streams_) {
    stream.pump_link(*link_);
  }
  if (gateway_) {
    gateway_->pump_link(*link_);
  }
  for (auto& [id, listener] : listeners_) {
    listener.pump_link(*link_);
  }
  if (exit_.is_due()) {
    send_exit();
  }
}

void GuestRelay::send_exit() {
  for (const wire::RelayStreamEnd& end : exit_.told().ends()) {
    const auto stream = streams_.find(end.id());
    if (stream != streams_.end() && !stream->second.sent_to(end.out_end())) {
      return;
    }
  }
  wire::RelayMessage message;
  *message.mutable_exited() = exit_.told();
  link_->send(message);
  exit_.set_sent();
}

wire::RelayState GuestRelay::freeze_state() {
  place_ = Place::kFrozen;
  wire::RelayState state;
  state.set_epoch(state_epoch_ + 1);
  state.set_next_signal(next_signal_);
  state.set_stopped_signal(stopped_signal_);
  follow_calls();
  drain_all();
  for (auto& [id, stream] : streams_) {
    stream.take_unread();
    stream.save(*state.add_streams());
  }
  save_listeners(state);
  state.set_next_accepted(next_accepted_);
  return state;
}

// Of a connection the kernel may have more than fits into our end's queue. What does not come at
// all is told as a reset, never left out in silence.
void GuestRelay::drain_all() {
  constexpr int kRoundMs = 10;
  const auto give_up_at = std::chrono::steady_clock::now() + kLongestDrain;
  const auto has_more = [](const auto& stream) { return stream.second.has_more(); };
  for (;;) {
    if (gateway_) {
      gateway_->pump(true);
    }
    for (auto& [id, stream] : streams_) {
      stream.drain();
    }
    if (std::ranges::none_of(streams_,
                             [](const auto& stream) { return stream.second.copies_first(); })) {
      return;
    }
    handlers_.on_change();
    for (auto& [id, stream] : streams_) {
      stream.take();
    }
    const auto late = std::ranges::find_if(streams_, has_more);
    if (late == streams_.end()) {
      return;
    }
    if (std::chrono::steady_clock::now() > give_up_at) {
      late->second.give_up_output();
    }
    std::array<pollfd, 2> waiting{
        {{late->second.poll_fd(), POLLIN, 0}, {gateway_ ? gateway_->device() : -1, POLLIN, 0}}};
    poll(waiting.data(), waiting.size(), kRoundMs);
  }
}

void GuestRelay::report_job_state(int stopped_signal) {
  stopped_signal_ = static_cast<std::uint32_t>(stopped_signal);
  for (auto& [id, stream] : streams_) {
    if (stopped_signal != 0 && place_ != Place::kFrozen) {
      stream.yield_terminal();
    }
  }
  send_job_state();
}

void GuestRelay::send_job_state() {
  if (is_linked()) {
    wire::RelayMessage message;
    wire::RelayJobState& state = *message.mutable_job_state();
    state.set_stopped_signal(stopped_signal_);
    for (const auto& [id, stream] : streams_) {
      if (stream.is_terminal()) {
        wire::RelayStreamEnd& end = *state.add_ends();
        end.set_id(id);
        end.set_out_end(stream.out_end());
      }
    }
    link_->send(message);
  }
}

void GuestRelay::report_location(const std::string& host, const std::string& session) {
  location_.emplace();
  location_->set_host(host);
  location_->set_session(session);
  send_location();
}

void GuestRelay::send_location() {
  if (is_linked() && location_) {
    wire::RelayMessage message;
    *message.mutable_located() = *location_;
    link_->send(message);
  }
}

void GuestRelay::report_owed(std::uint64_t pages, const std::string& by) {
  if (!owed_ || owed_->pages() != pages || owed_->by() != by) {
    owed_.emplace();
    owed_->set_pages(pages);
    owed_->set_by(by);
    send_owed();
  }
}

void GuestRelay::send_owed() {
  if (is_linked() && owed_) {
    wire::RelayMessage message;
    *message.mutable_owed() = *owed_;
    link_->send(message);
  }
}

void GuestRelay::report_exit(int wait_status, bool keep_streams, const std::string& lost,
                             const std::map<std::uint64_t, std::uint64_t>& positions,
                             const IncompleteCore& core) {
  if (!exit_.has_begun()) {
    exit_.begin(wait_status, keep_streams, lost, positions, core);
    note_ends(!keep_streams);
  }
}

void GuestRelay::report_descendants_ended() {
  if (exit_.keeps_streams()) {
    exit_.end_descendants();
    note_ends(true);
  }
}

// Takes out what was written: all of it, if it is `over`.
void GuestRelay::note_ends(bool over) {
  exit_.told().clear_ends();
  if (over) {
    drain_all();
  }
  for (auto& [id, stream] : streams_) {
    if (over) {
      stream.end_output();
    } else {
      stream.drain();
      stream.leave_to_children();
    }
    wire::RelayStreamEnd& end = *exit_.told().add_ends();
    end.set_id(id);
    end.set_out_end(stream.out_end());
  }
}

bool GuestRelay::flushed() const {
  if (exit_.has_begun() && !exit_.is_acknowledged()) {
    return false;
  }
  if (exit_.is_home_over()) {
    return true;  // What it took, and did not come to confirm, nobody will confirm any more.
  }
  for (const auto& [id, stream] : streams_) {
    if (!stream.flushed()) {
      return false;
    }
  }
  return true;
}

}  // namespace migrate
