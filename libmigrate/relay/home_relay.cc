#include "libmigrate/relay/home_relay.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <limits>
#include <set>
#include <sstream>
#include <utility>

#include "base/file.h"

namespace migrate {
namespace {

constexpr std::size_t kMaxPendingLinks = 8;
/// How often to ask whether the deputy may read its terminal again.
constexpr int kForegroundIntervalMs = 200;

// Of no more and no other letters than an address has: it is shown to users as it is.
bool is_address(const std::string& text) {
  constexpr std::size_t kMostBytes = 300;
  return text.size() <= kMostBytes &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return c > ' ' && c < 0x7F; });
}

Error corrupt_from_place(const char* what,
                         const std::string& object = "link to the process's place") {
  return make_error(ErrorCode::kCorrupt, what, object);
}

}  // namespace

bool is_in_foreground(pid_t process, std::uint64_t device) {
  const Result<std::string> stat = read_file("/proc/" + std::to_string(process) + "/stat");
  if (!stat || stat->rfind(')') == std::string::npos) {
    return false;
  }
  // After the name: state, parent, group, session, terminal, the terminal's foreground group.
  std::istringstream fields(stat->substr(stat->rfind(')') + 1));
  std::string state;
  long parent = 0;
  long group = 0;
  long session = 0;
  unsigned terminal = 0;
  long foreground = 0;
  if (!(fields >> state >> parent >> group >> session >> terminal >> foreground) || state == "Z" ||
      state == "X") {
    return false;
  }
  const unsigned minor_number = (terminal & 0xffU) | ((terminal >> 12U) & 0xfff00U);
  const unsigned major_number = (terminal >> 8U) & 0xfffU;
  return device != makedev(major_number, minor_number) || group == foreground;
}

HomeRelay::HomeRelay(std::vector<Stream> streams, pid_t deputy, Handlers handlers)
    : handlers_(std::move(handlers)), deputy_(deputy) {
  std::uint32_t last_id = 0;
  for (Stream& stream : streams) {
    last_id = std::max(last_id, stream.id);
    if (stream.is_listener) {
      acceptor_.add(stream.id, std::move(stream.real));
      continue;
    }
    streams_.try_emplace(stream.id, stream.id, stream.directions, std::move(stream.real),
                         stream.terminal, stream.connection);
    streams_.at(stream.id).set_found_journal(std::move(stream.journal));
  }
  acceptor_.begin_at(last_id + 1);
  if (handlers_.on_datagram) {
    outgoing_.datagrams().guard(handlers_.on_datagram);
  }
  std::signal(SIGPIPE, SIG_IGN);  // A write to a pipe has no MSG_NOSIGNAL.
}

HomeRelay::~HomeRelay() {
  for (auto& [id, stream] : streams_) {
    stream.close();
  }
}

void HomeRelay::adopt(const wire::HomeRelayState& state) {
  for (const wire::HomeRelayState::Stream& noted : state.streams()) {
    const auto found = streams_.find(noted.id());
    if (found != streams_.end()) {
      found->second.adopt(noted);
    }
  }
  acceptor_.adopt(state);
  epoch_ = state.epoch();
  attempt_ = state.attempt();
  signals_.adopt(state);
  stopped_signal_ = static_cast<int>(state.stopped_signal());
  if (state.has_location()) {
    location_ = state.location();
  }
  if (state.has_exited()) {
    exited_ = state.exited();
  }
  if (state.has_owed()) {
    owed_ = state.owed();
  }
  exit_delivered_ = state.exit_delivered();
}

wire::HomeRelayState HomeRelay::note() const {
  wire::HomeRelayState state;
  for (const auto& [id, stream] : streams_) {
    wire::HomeRelayState::Stream& noted = *state.add_streams();
    stream.note(noted);
    acceptor_.note(id, noted);
  }
  acceptor_.note(state);
  state.set_epoch(epoch_);
  state.set_attempt(attempt_);
  signals_.note(state);
  state.set_stopped_signal(static_cast<std::uint32_t>(stopped_signal_));
  if (location_) {
    *state.mutable_location() = *location_;
  }
  if (exited_) {
    *state.mutable_exited() = *exited_;
  }
  if (owed_) {
    *state.mutable_owed() = *owed_;
  }
  state.set_exit_delivered(exit_delivered_);
  return state;
}

void HomeRelay::attach(std::unique_ptr<Channel> channel) {
  if (pending_.size() == kMaxPendingLinks) {
    pending_.pop_front();
  }
  pending_.push_back(std::make_unique<Peer>(std::move(channel)));
}

bool HomeRelay::may_read(const HomeStream& stream) const {
  return stream.is_terminal() ? may_take(stream) : active_ && (!exited_ || exited_->keep_streams());
}

// Who is left of a process that has ended is in no foreground, and its pid may be another's.
bool HomeRelay::may_take(const HomeStream& stream) const {
  return active_ && !exited_ &&
         (deputy_ == 0 || is_in_foreground(deputy_, stream.terminal_device()));
}

void HomeRelay::follow_terminals() {
  for (auto& [id, stream] : streams_) {
    if (stream.is_terminal() && !exited_) {  // Later it does as the last frames say.
      const bool in_foreground =
          deputy_ == 0 || is_in_foreground(deputy_, stream.terminal_device());
      stream.follow_terminal(in_foreground, active_ != nullptr);
    }
  }
}

std::uint32_t HomeRelay::silent_ms() const {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (::getsockopt(active_->link.poll_fd(), IPPROTO_TCP, TCP_INFO, &info, &size) != 0) {
    return std::numeric_limits<std::uint32_t>::max();
  }
  return std::min(info.tcpi_last_ack_recv, info.tcpi_last_data_recv);
}

int HomeRelay::collect_poll_fds(std::vector<pollfd>& descriptors) {
  int timeout_ms = -1;
  const auto add = [&](Peer& peer) {
    if (peer.link.arm()) {
      timeout_ms = 0;
    } else {
      descriptors.push_back({peer.link.poll_fd(), POLLIN, 0});
    }
  };
  if (active_) {
    add(*active_);
  }
  for (const auto& peer : pending_) {
    add(*peer);
  }
  for (const auto& [id, stream] : streams_) {
    const bool allowed = may_read(stream);
    stream.collect(descriptors, allowed);
    const bool is_followed = stream.is_terminal() && (active_ || stream.has_taken_terminal());
    if (!allowed && !exited_ && is_followed && timeout_ms < 0) {
      timeout_ms = kForegroundIntervalMs;
    }
  }
  if (may_accept()) {
    outgoing_.collect(descriptors, active_->link);
  }
  const int rest_ms = may_accept() ? acceptor_.collect(descriptors, streams_.size()) : -1;
  return rest_ms >= 0 && (timeout_ms < 0 || rest_ms < timeout_ms) ? rest_ms : timeout_ms;
}

Result<void> HomeRelay::handle() {
  Result<void> outcome;
  receive_active(outcome);
  receive_pending(outcome);
  tell_superseded();
  follow_terminals();
  make_journals();
  pump_streams();
  pump_calls();
  accept_waiting();
  stop_deputy();
  handlers_.on_change();
  if (may_accept()) {
    acceptor_.make_wanted(handlers_.on_listen);
  }
  for (auto& [id, stream] : streams_) {
    stream.take();
  }
  deliver_exit();
  pump_link();
  tell_closed();
  close_left();
  forget_retired();
  return outcome;
}

void HomeRelay::receive_active(Result<void>& outcome) {
  for (int i = 0; i < Link::kMessagesPerTurn && active_; ++i) {
    Result<std::optional<wire::RelayMessage>> message = active_->link.receive();
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
      active_.reset();
      if (done.error().code != ErrorCode::kPeerLost) {
        outcome = std::move(done);
      }
    }
  }
}

void HomeRelay::receive_pending(Result<void>& outcome) {
  for (std::size_t i = 0; i < pending_.size();) {
    const Result<bool> activated = read_pending(*pending_[i]);
    if (activated && !*activated) {
      ++i;
      continue;
    }
    std::unique_ptr<Peer> peer = std::move(pending_[i]);
    pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(i));
    if (activated) {
      activate(std::move(peer));
    } else if (activated.error().code != ErrorCode::kPeerLost) {
      outcome = fail(activated.error());
    }
  }
}

// A place that is in doubt where the process runs asks by a link that it does not activate.
void HomeRelay::tell_superseded() {
  for (const auto& peer : pending_) {
    if (peer->resume && peer->resume->epoch() < epoch_ && !peer->told_newer) {
      wire::RelayMessage message;
      message.mutable_resumed()->set_epoch(epoch_);
      peer->link.send(message);
      peer->told_newer = true;
    }
  }
}

/// True when the side of this link says that the process runs there.
Result<bool> HomeRelay::read_pending(Peer& peer) {
  while (true) {
    const std::optional<wire::RelayMessage> message = MIGRATE_TRY(peer.link.receive());
    if (!message) {
      return false;
    }
    if (message->has_resume() && !peer.resume) {
      peer.resume = message->resume();
    } else if (message->has_activate() && peer.resume) {
      MIGRATE_TRY(check_resume(peer, message->activate().epoch()));
      return true;
    } else {
      return fail(corrupt_from_place("accept a message before the link is active"));
    }
  }
}

Result<void> HomeRelay::check_resume(const Peer& peer, std::uint64_t activated_epoch) const {
  const wire::RelayResume& resume = *peer.resume;
  if (resume.epoch() < epoch_ || (resume.epoch() == epoch_ && resume.attempt() <= attempt_)) {
    return fail(make_error(ErrorCode::kPeerLost, "take a link", "one older than the present"));
  }
  if (activated_epoch != resume.epoch() || !signals_.may_resume_at(resume.next_signal())) {
    return fail(corrupt_from_place("resume the link to the process's place"));
  }
  return check_streams(resume);
}

void HomeRelay::activate(std::unique_ptr<Peer> peer) {
  active_ = std::move(peer);
  const wire::RelayResume resume = *std::exchange(active_->resume, std::nullopt);
  if (epoch_ != resume.epoch()) {
    owed_.reset();
  }
  epoch_ = resume.epoch();
  attempt_ = resume.attempt();
  outgoing_.calls().end_all();
  acceptor_.try_again();
  wire::RelayMessage message;
  message.mutable_resumed()->set_epoch(epoch_);
  resume_streams(resume, *message.mutable_resumed());
  signals_.resume_at(resume.next_signal());
  active_->link.send(message);
}

Result<HomeStream*> HomeRelay::find(std::uint32_t id) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) {
    return fail(
        corrupt_from_place("find the stream of a message", "relay stream " + std::to_string(id)));
  }
  return &found->second;
}

Result<void> HomeRelay::dispatch(const wire::RelayMessage& message) {
  using Body = wire::RelayMessage;
  switch (message.body_case()) {
    case Body::kData:
      return MIGRATE_TRY(find(message.data().stream()))->accept_data(message.data());
    case Body::kAck:
      return MIGRATE_TRY(find(message.ack().stream()))->accept_ack(message.ack());
    case Body::kClose:
      return MIGRATE_TRY(find(message.close().stream()))->accept_close(message.close());
    case Body::kTaken:
      acceptor_.set_taken(message.taken().stream());
      return {};
    case Body::kRetired:
      retire(message.retired().stream());
      return {};
    case Body::kCall:
      return outgoing_.calls().take(message.call());
    case Body::kCallEnded:
      outgoing_.calls().end(message.call_ended().number());
      return {};
    case Body::kDatagram:
      return may_accept() ? outgoing_.send(message.datagram(), handlers_.on_call, active_->link)
                          : Result<void>();
    case Body::kBound:
      return may_accept() ? outgoing_.datagrams().follow(message.bound(), handlers_.on_call)
                          : Result<void>();
    case Body::kListening:
      return may_accept() ? acceptor_.want(message.listening()) : Result<void>();
    case Body::kUnlistened:
      close_listener(message.unlistened().listener());
      return {};
    case Body::kSignalAck:
      return signals_.acknowledge(message.signal_ack().number());
    case Body::kJobState:
      accept_job_state(message.job_state());
      return {};
    case Body::kExited:
      accept_exited(message.exited());
      return {};
    case Body::kLocated:
      if (!is_address(message.located().host()) || !is_address(message.located().session())) {
        return fail(corrupt_from_place("learn where the process is"));
      }
      if (handlers_.on_located && (!location_ || location_->host() != message.located().host() ||
                                   location_->session() != message.located().session())) {
        handlers_.on_located(message.located().host(), message.located().session());
      }
      location_ = message.located();
      return {};
    case Body::kOwed:
      if (!is_address(message.owed().by())) {
        return fail(corrupt_from_place("learn who owes pages to the process"));
      }
      owed_ = message.owed();
      if (handlers_.on_owed) {
        handlers_.on_owed();
      }
      return {};
    default:
      return fail(corrupt_from_place("accept a message that the process's place does not send"));
  }
}

std::optional<HomeRelay::Owed> HomeRelay::owed() const {
  constexpr std::uint64_t kFirstPlace = 1;
  if (epoch_ <= kFirstPlace || (owed_ && owed_->pages() == 0)) {
    return std::nullopt;
  }
  return owed_ ? Owed{owed_->pages(), owed_->by()} : Owed{};
}

void HomeRelay::accept_job_state(const wire::RelayJobState& state) {
  const int signal = static_cast<int>(state.stopped_signal());
  if (signal == stopped_signal_) {
    return;
  }
  stopped_signal_ = signal;
  if (signal != 0) {
    stop_ = state;
    stop_deputy();
    return;
  }
  stop_.reset();
  for (auto& [id, stream] : streams_) {
    stream.take_terminal_again();
  }
  if (handlers_.on_continued) {
    handlers_.on_continued();
  }
}

// Whoever sees it stop may write to its terminal, and read: not before what it had written.
void HomeRelay::stop_deputy() {
  if (stop_ && was_written(stop_->ends())) {
    stop_.reset();
    if (handlers_.on_stopped) {
      handlers_.on_stopped(stopped_signal_);
    }
  }
}

bool HomeRelay::was_written(
    const google::protobuf::RepeatedPtrField<wire::RelayStreamEnd>& ends) const {
  return std::ranges::all_of(ends, [&](const wire::RelayStreamEnd& end) {
    const auto found = streams_.find(end.id());
    return found == streams_.end() || found->second.written_to(end.out_end());
  });
}

// Told twice if descendants outlive it: of its end, and of theirs.
void HomeRelay::accept_exited(const wire::RelayExited& exited) {
  if (all_ended_ || (exit_delivered_ && exited.keep_streams())) {
    acknowledge_exit();
  } else {
    exited_ = exited;
  }
}

void HomeRelay::acknowledge_exit() {
  if (active_) {
    wire::RelayMessage message;
    message.mutable_exited_ack()->set_descendants(all_ended_);
    active_->link.send(message);
  }
}

bool HomeRelay::streams_open() const {
  return acceptor_.is_open() ||
         std::any_of(streams_.begin(), streams_.end(),
                     [](const auto& stream) { return stream.second.open(); });
}

void HomeRelay::pump_streams() {
  std::vector<pollfd> descriptors;
  std::vector<std::size_t> index;  // by stream: where its descriptor is, if it is there
  std::vector<bool> allowed;
  for (const auto& [id, stream] : streams_) {
    const std::size_t before = descriptors.size();
    allowed.push_back(may_read(stream));
    stream.collect(descriptors, allowed.back());
    index.push_back(descriptors.size() > before ? before : SIZE_MAX);
  }
  if (!descriptors.empty() && poll(descriptors.data(), descriptors.size(), 0) < 0) {
    for (pollfd& descriptor : descriptors) {
      descriptor.revents = 0;
    }
  }
  std::size_t i = 0;
  for (auto& [id, stream] : streams_) {
    const short events = index[i] == SIZE_MAX ? short{0} : descriptors[index[i]].revents;
    stream.pump_real(events, allowed[i]);
    ++i;
  }
}

void HomeRelay::pump_link() {
  if (!active_) {
    return;
  }
  for (auto& [id, stream] : streams_) {
    if (stream.is_terminal()) {  // What a shell has done before it sent SIGCONT.
      stream.pump_link(active_->link);
    }
  }
  signals_.pump(active_->link);
  tell_accepted();
  for (auto& [id, stream] : streams_) {
    if (!retired_.contains(id)) {
      stream.pump_link(active_->link);
    }
  }
}

void HomeRelay::deliver_exit() {
  if (!exited_ || all_ended_ || (exit_delivered_ && exited_->keep_streams())) {
    return;
  }
  if (!was_written(exited_->ends())) {
    return;
  }
  if (!exited_->keep_streams()) {
    all_ended_ = true;
    for (const std::uint32_t listener : acceptor_.listeners()) {
      acceptor_.close(listener);
    }
    for (auto& [id, stream] : streams_) {
      stream.end(!exited_->lost().empty() || !acceptor_.is_taken(id));
    }
  } else {
    for (auto& [id, stream] : streams_) {
      stream.follow_terminal(false, false);  // Whoever waits for the deputy has it now.
    }
  }
  acknowledge_exit();
  if (!std::exchange(exit_delivered_, true) && handlers_.on_exit) {
    handlers_.on_exit(*exited_);
  }
}

void HomeRelay::tell_closed() {
  for (auto& [id, stream] : streams_) {
    if (const std::uint32_t journal = stream.take_closed_journal(); journal != 0) {
      handlers_.on_accepted_closed(journal);
    }
    const std::uint32_t closed = (stream.in_closed() ? std::uint32_t{wire::RELAY_IN} : 0U) |
                                 (stream.out_closed() ? std::uint32_t{wire::RELAY_OUT} : 0U);
    const std::uint32_t news = closed & ~told_closed_[id];
    told_closed_[id] = closed;
    if (acceptor_.has(id)) {
      const auto descriptor = news != 0 ? acceptor_.take_descriptor(id) : std::nullopt;
      if (descriptor) {
        handlers_.on_accepted_closed(*descriptor);
      }
      continue;
    }
    for (const wire::RelayDirection direction : {wire::RELAY_IN, wire::RELAY_OUT}) {
      if ((news & direction) != 0 && handlers_.on_stream_closed) {
        handlers_.on_stream_closed(id, direction);
      }
    }
  }
}

Result<void> HomeRelay::send_signal(std::span<const std::byte> siginfo) {
  if (siginfo.size() != kSiginfoBytes) {
    return fail(make_error(ErrorCode::kInvalid, "forward a signal", "siginfo of a wrong size"));
  }
  siginfo_t information{};
  std::memcpy(&information, siginfo.data(), std::min(siginfo.size(), sizeof(information)));
  const bool has_terminal = std::ranges::any_of(
      streams_, [](const auto& stream) { return stream.second.is_controlling_terminal(); });
  if (information.si_signo == SIGWINCH && information.si_code == SI_KERNEL && has_terminal) {
    return {};  // The terminal that the process has there tells it.
  }
  if (information.si_signo == SIGCONT) {  // As from a shell that has given it its terminal.
    for (auto& [id, stream] : streams_) {
      stream.take_terminal_again();
    }
    follow_terminals();
  }
  return signals_.add(siginfo);
}

}  // namespace migrate
