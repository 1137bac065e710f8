#include "libmigrate/home/home_worker.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "libmigrate/move/not_moved.h"
#include "libmigrate/state/row_state.h"

namespace migrate {
namespace {

constexpr int kIdleMs = 1000;
constexpr int kOwingMs = 20;
constexpr std::int64_t kLingerUs = 2'000'000;

// Sent by on_continued below, because the process goes on already.
bool is_own_continue(const std::array<std::byte, kSiginfoBytes>& bytes) {
  siginfo_t information{};
  std::memcpy(&information, bytes.data(), sizeof(information));
  return information.si_signo == SIGCONT && information.si_code == SI_USER &&
         information.si_pid == ::getpid();
}

}  // namespace

std::array<std::byte, kSiginfoBytes> plain_siginfo(int signal) {
  siginfo_t information{};
  information.si_signo = signal;
  information.si_code = SI_USER;
  std::array<std::byte, kSiginfoBytes> bytes{};
  std::copy_n(reinterpret_cast<const std::byte*>(&information), kSiginfoBytes, bytes.begin());
  return bytes;
}

std::string command_line(pid_t pid) {
  const std::string base = "/proc/" + std::to_string(pid);
  auto text = read_file(base + "/cmdline");
  if (!text || text->empty()) {
    text = read_file(base + "/comm");
  }
  if (!text) {
    return {};
  }
  while (!text->empty() && (text->back() == '\0' || text->back() == '\n')) {
    text->pop_back();
  }
  std::replace_if(
      text->begin(), text->end(), [](unsigned char c) { return std::iscntrl(c) != 0; }, ' ');
  return *text;
}

HomeWorker::HomeWorker(const WorkerContext& context, UniqueFd client, MoveRequest request)
    : context_(context), request_(std::move(request)), sink_(std::move(client)) {}

void HomeWorker::run() {
  if (auto prepared = prepare(); !prepared) {
    if (file_) {
      file_->remove();
    }
    sink_.finish_failed(MIGRATE_FAILED, prepared.error());
    return;
  }
  enter(HomePhase::kOffered);
  const MoveOutcome outcome = move_->attempt_for(request_.retry_seconds);
  if (outcome == MoveOutcome::kRefused || outcome == MoveOutcome::kFailed) {
    report_not_moved(outcome);
    return;
  }
  if (outcome == MoveOutcome::kInDoubt && !settle_doubt()) {
    report_not_moved(MoveOutcome::kFailed);
    return;
  }
  if (auto deputy = become_deputy(); !deputy) {
    log::error("deputy of process {}: {}", request_.pid, deputy.error().message());
  }
  serve_until_end();
}

Result<void> HomeWorker::prepare() {
  pid_lock_ = MIGRATE_TRY(PidLock::take(context_.state_directory, request_.pid));
  process_ = MIGRATE_TRY(random_session_id());
  token_ = to_hex(MIGRATE_TRY(random_session_id()));
  command_ = command_line(request_.pid);
  mailbox_.emplace(MIGRATE_TRY(Mailbox::create(context_.state_directory, to_hex(process_))));
  MIGRATE_TRY(open_mailbox());
  row_.emplace(MIGRATE_TRY(
      ProcessRow::open(context_.state_directory, to_hex(process_), ProcessRole::kHome)));
  file_.emplace(MIGRATE_TRY(
      SessionFile::create(context_.state_directory, home_session_name(to_hex(process_)))));
  file_->mark().process = request_.pid;
  file_->mark().process_start = start_time(request_.pid);
  noted_.set_pid(request_.pid);
  noted_.set_token(token_);
  noted_.set_command(command_);
  noted_.set_user(request_.uid);
  noted_.set_wait(std::string(to_string(request_.wait)));
  take_children();
  const Address destination = MIGRATE_TRY(Address::parse(request_.destination));
  move_ = std::make_unique<SourceMove>(move_options(destination), hooks(), sink_);
  return file_->save(noted_.SerializeAsString());
}

// Any host may have the process by and by, so that nothing but the token tells it.
Result<void> HomeWorker::open_mailbox() {
  const auto whoever_has_it = [](const PeerIdentity&) { return std::string(); };
  return mailbox_->open(
      {.trust = context_.trust, .token = token_, .rules = {{Purpose::kHome, whoever_has_it}}});
}

void HomeWorker::take_children() {
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &child, nullptr);
  child_signals_.reset(::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
}

SourceMoveOptions HomeWorker::move_options(const Address& destination) const {
  SourceMoveOptions options;
  options.pid = request_.pid;
  options.destination = destination;
  options.plan = request_.plan;
  options.transport = request_.transport;
  options.process = process_;
  options.home = context_.own_address;
  options.token = token_;
  options.command = command_;
  options.asker = request_.asker;
  options.push = request_.push;
  options.host_clocks = clock_offsets(0).value_or(ClockOffsets());
  options.context = &context_;
  return options;
}

SourceMove::Hooks HomeWorker::hooks() {
  SourceMove::Hooks hooks;
  hooks.freeze_relay = RealFiles::fresh_relay;
  hooks.on_captured = [this](const wire::Image& image) {
    request_.uid = image.threads(0).credentials().uid_real();  // It may have become another's.
    noted_.set_user(request_.uid);
    return files_.fetch_streams(request_.pid, image);
  };
  hooks.on_outgoing = [this](const wire::Outgoing& outgoing) {
    *noted_.mutable_outgoing() = outgoing;
    return file_->save(noted_.SerializeAsString());
  };
  hooks.on_area = [this](std::uint64_t area) { file_->mark().area = area; };
  return hooks;
}

// True: it runs there. False: it runs here again, or is over. Until then, nothing runs.
bool HomeWorker::settle_doubt() {
  log::warn("session {} is in doubt: {}", to_hex(move_->session()), move_->error().message());
  enter(HomePhase::kInDoubt);
  const std::int64_t since_us = now_us();
  while (move_->fate() == Fate::kUnknown && !decision_.is_due()) {
    wait_for_events();
    read_mailbox();
    hear_caller();
    watch_deputy();
    static_cast<void>(move_->handle());  // It says it again where it matters.
    show_waiting();
    row_->refresh();
    if (sink_.open() && now_us() - since_us > kPatienceUs) {
      sink_.finish_failed(MIGRATE_LOST, doubt_error(*move_, command_));
    }
  }
  const DoubtEnd end = end_doubt(*move_, decision_, command_);
  show_waiting();
  give_up_ = end == DoubtEnd::kGivenUp;
  return end != DoubtEnd::kHere;
}

// Where the process runs, its worker calls home every half second, and speaks first. A connection
// alone is none: it is made before the process may run.
void HomeWorker::hear_caller() {
  if (!caller_) {
    return;
  }
  const auto message = caller_->try_receive();
  if (message && !*message) {
    return;
  }
  if (message) {
    log::info("process {} has called from {}: it runs there", command_, move_->destination());
    move_->confirm_runs();
  }
  caller_.reset();  // It calls again.
}

void HomeWorker::report_not_moved(MoveOutcome outcome) {
  row_->remove();
  refuse_requests();
  file_->remove();
  tell_not_moved(sink_, *move_, outcome, request_.pid, command_);
}

// Its pid may be another's by and by.
void HomeWorker::signal_deputy(int signal) const {
  if (const auto deputy = ProcessIdentity{request_.pid, file_->mark().process_start}.open()) {
    send_signal(deputy->get(), signal);
  }
}

Result<void> HomeWorker::become_deputy() {
  if (where_.session.empty()) {
    where_.host = request_.destination;
    where_.session = to_hex(move_->session());
  }
  enter(move_->done() ? HomePhase::kIndependent : HomePhase::kServing);
  forwards_.emplace(command_, [this](const Whereabouts& where, const nlohmann::json& request) {
    return send_request(where, request);
  });
  HomeRelay::Handlers handlers;
  handlers.on_exit = [this](const wire::RelayExited& exited) {
    take_exit(exited);
    files_.set_positions(exited, command_);
  };
  handlers.on_change = [this] { note_change(); };
  handlers.on_stopped = [this](int) { signal_deputy(SIGSTOP); };
  handlers.on_continued = [this] { signal_deputy(SIGCONT); };
  handlers.on_located = [this](const std::string& host, const std::string& session) {
    where_.host = host;
    where_.session = session;
    record();
  };
  handlers.on_command_reply = [](std::uint64_t, const Result<std::string>&) {};
  handlers.on_stream_closed = [this](std::uint32_t id, wire::RelayDirection) { close_stream(id); };
  relay_ = std::make_unique<HomeRelay>(files_.take_streams(), request_.pid, std::move(handlers));
  relay_->adopt(noted_.relay());
  if (noted_.relay().exit_delivered()) {  // To a worker that died before it had ended the deputy.
    take_exit(noted_.relay().exited());
  }
  if (caller_) {
    relay_->attach(std::move(caller_));
  }
  if (deputy_gone_ && exit_status_) {
    return {};  // See watch_keeper().
  }
  if (deputy_gone_) {
    return relay_->send_signal(plain_siginfo(SIGKILL));
  }
  files_.fetch_shared(request_.pid, move_->image());
  MIGRATE_TRY(move_->parked().settle(descriptors_to_keep(move_->image(), true)));
  context_.stops.reach("source.settled");
  sink_.send({{"event", "phase"}, {"phase", "run"}});
  if (request_.wait == MoveWait::kResumed) {
    sink_.finish(MIGRATE_DONE, move_->result());
  }
  return {};
}

void HomeWorker::take_exit(const wire::RelayExited& exited) {
  exit_status_ = exited.wait_status();
  lost_ = exited.lost();
  children_ = exited.keep_streams();
  core_ = {exited.core_lacks_pages(), exited.core_file()};
}

void HomeWorker::serve_until_end() {
  std::optional<std::int64_t> linger_until;
  bool ended = false;
  for (;;) {
    wait_for_events();
    read_mailbox();
    watch_deputy();
    read_signals();
    follow_move();
    row_->refresh();
    pump_forwards();
    if (relay_) {
      if (auto handled = relay_->handle(); !handled) {
        log::warn("link to {}: {}", where_.host, handled.error().message());
      }
    }
    hear_of_end();
    if (exit_status_ && !ended) {
      ended = true;
      context_.stops.reach("source.exit");
      end_deputy(*exit_status_);
    }
    follow_children();
    if (ended && !children_left_ && !linger_until) {
      linger_until = now_us() + kLingerUs;
    }
    const bool heard = move_->done() && (!forwards_ || forwards_->empty()) &&
                       (!relay_ || (relay_->finished() && !relay_->connected()));
    if (linger_until && (heard || now_us() > *linger_until)) {
      if (forwards_) {
        forwards_->end();
      }
      file_->remove();
      return;
    }
  }
}

// The destination's daemon says that the process is over and its worker too: the relay will not.
void HomeWorker::hear_of_end() {
  if (give_up_ && !exit_status_) {
    exit_status_ = SIGKILL;
    lost_ = "an operator gave it up";
  }
  if (move_->fate() != Fate::kEnded || exit_status_) {
    return;
  }
  told_ended_us_ = told_ended_us_ == 0 ? now_us() : told_ended_us_;
  if (now_us() - told_ended_us_ > kLingerUs) {
    exit_status_ = move_->wait_status();
    lost_ = move_->error().message();
  }
}

void HomeWorker::note_change() {
  noted_.set_where(where_.host);
  noted_.set_where_session(where_.session);
  *noted_.mutable_relay() = relay_->note();
  if (auto saved = file_->save(noted_.SerializeAsString()); !saved) {
    log::warn("{}", saved.error().message());
  }
}

// What `show` tells.
void HomeWorker::show_waiting() {
  std::string waits_for = move_->waits_for();
  if (!waits_for.empty() && move_->fate() == Fate::kUnknown) {
    waits_for = "in doubt whether it runs at " + waits_for;
  }
  row_->set_waiting(waits_for, now_us() - move_->waits_since_us());
}

void HomeWorker::wait_for_events() {
  std::vector<pollfd> polled;
  int timeout_ms = move_->done() ? kIdleMs : kOwingMs;
  polled.push_back({mailbox_->fd(), POLLIN, 0});
  polled.push_back({child_signals_.get(), POLLIN, 0});
  polled.push_back({deputy_gone_ ? -1 : move_->parked().signal_pipe(), POLLIN, 0});
  polled.push_back({move_->control_fd(), POLLIN, 0});
  if (forwards_) {
    const int wanted = forwards_->collect_poll_fds(polled);
    timeout_ms = wanted >= 0 ? std::min(timeout_ms, wanted) : timeout_ms;
  }
  if (relay_) {
    const int wanted = relay_->collect_poll_fds(polled);
    timeout_ms = wanted >= 0 ? std::min(timeout_ms, wanted) : timeout_ms;
  }
  ::poll(polled.data(), polled.size(), exit_status_ ? std::min(timeout_ms, kOwingMs) : timeout_ms);
}

void HomeWorker::read_mailbox() {
  for (;;) {
    auto letter = mailbox_->receive(0);
    if (!letter) {
      if (letter.error().code != ErrorCode::kRetry) {
        log::warn("mailbox: {}", letter.error().message());
      }
      return;
    }
    take_letter(std::move(*letter));
  }
}

void HomeWorker::take_letter(Letter letter) {
  if (!letter.preamble) {
    forward_request(std::move(letter));
    return;
  }
  if (letter.preamble->purpose != Purpose::kHome) {
    log::warn("closed a connection that is not for a deputy");
  } else if (relay_) {
    relay_->attach(std::move(letter.channel));
  } else {
    caller_ = std::move(letter.channel);
  }
}

// Signals that the parked leader received.
void HomeWorker::read_signals() {
  if (deputy_gone_ || !relay_) {
    return;
  }
  pollfd polled{move_->parked().signal_pipe(), POLLIN, 0};
  std::array<std::byte, kSiginfoBytes> siginfo;
  while (::poll(&polled, 1, 0) > 0 && (polled.revents & POLLIN) != 0 &&
         ::read(polled.fd, siginfo.data(), siginfo.size()) ==
             static_cast<ssize_t>(siginfo.size())) {
    if (is_own_continue(siginfo)) {
      continue;
    }
    if (auto sent = relay_->send_signal(siginfo); !sent) {
      log::warn("a signal was lost: {}", sent.error().message());
    }
  }
}

void HomeWorker::watch_deputy() {
  signalfd_siginfo ignored{};
  while (::read(child_signals_.get(), &ignored, sizeof(ignored)) > 0) {
  }
  if (deputy_gone_) {
    return;
  }
  auto state = move_->parked().check_state();
  if (state && *state == 0) {
    return;
  }
  int signal = SIGKILL;
  if (state && *state > 0) {
    signal = *state;
  } else {
    deputy_gone_ = true;  // Nothing but SIGKILL can do that.
    move_->stop_serving();
    log::info("the deputy of process {} was killed; so is the process, if its user still may",
              to_hex(process_));
  }
  if (relay_) {
    static_cast<void>(relay_->send_signal(plain_siginfo(signal)));
  }
}

void HomeWorker::follow_move() {
  const bool was_done = move_->done();
  static_cast<void>(move_->handle());  // watch_deputy() sees the end of what is parked here.
  if (exit_status_ && !children_left_) {
    return;  // Only so that the destination hears that we know.
  }
  show_waiting();
  if (move_->done() && !reported_done_) {
    reported_done_ = true;
    if (!deputy_gone_ || keeper_lives_) {
      if (auto freed = move_->parked().free_all(); !freed) {
        log::warn("{}", freed.error().message());
      }
    }
    enter(HomePhase::kIndependent);
    row_->set_result(outcome().dump());
    if (request_.wait == MoveWait::kDone) {
      sink_.finish(MIGRATE_DONE, move_->result());
    }
  } else if (!was_done && now_us() >= next_progress_us_) {
    next_progress_us_ = now_us() + kProgressEveryUs;
    if (const auto state = row_state(phase())) {
      row_->set_progress(*state, move_->owed_pages(), outcome().dump());
    }
    if (sink_.open()) {
      sink_.send(move_->progress_event());
    }
  }
}

void HomeWorker::end_deputy(int wait_status) {
  if (serves_children()) {
    leave_to_keeper(wait_status);
  } else if (keeper_lives_) {
    end_keeper();
  }
  // First, so that a worker that takes over knows why there is no deputy.
  enter(HomePhase::kEnding, wait_status);
  if (!deputy_gone_) {
    ParkedProcess& deputy = ending_ ? *ending_ : move_->parked();
    if (auto ended = deputy.end_as(wait_status); !ended) {
      log::error("deputy of process {}: {}", request_.pid, ended.error().message());
    }
    deputy_gone_ = true;
    ending_.reset();
    if (!keeper_lives_) {
      move_->stop_serving();
    }
    context_.stops.reach("source.ended");
  }
  pid_lock_.reset();
  if (!lost_.empty()) {
    log::error("process {} is lost: {}", command_, lost_);
  }
  if (core_.lacks_pages != 0) {
    log::warn("process {} ended at {} with a core dump that lacks {} pages{}{}", command_,
              where_.host, core_.lacks_pages, core_.file.empty() ? "" : ": ", core_.file);
  }
  nlohmann::json result = outcome();
  if (!lost_.empty() || core_.lacks_pages != 0) {
    row_->set_result(result.dump());
  }
  // After the reason, which whoever waits for the end then reads.
  enter(children_left_ ? HomePhase::kChildrenLeft : HomePhase::kEnded, wait_status);
  tell_end(sink_, std::move(result));
  for (EndClient& waiting : end_clients_) {
    tell_end(waiting.client, std::move(waiting.result));
  }
}

void HomeWorker::add_core(nlohmann::json& result) const {
  if (core_.lacks_pages != 0) {
    result["core_lacks_pages"] = core_.lacks_pages;
    result["core_file"] = core_.file;
  }
}

// Of the last move, and of the end.
nlohmann::json HomeWorker::outcome() const {
  nlohmann::json result = move_->result();
  if (!lost_.empty()) {
    result["lost"] = lost_;
  }
  add_core(result);
  return result;
}

void HomeWorker::tell_end(EventSink& client, nlohmann::json result) const {
  if (!client.open()) {
    return;
  }
  result["state"] = "exited";
  result["exit_status"] = exit_status_.value_or(0);
  add_core(result);
  if (!lost_.empty()) {
    result["error"] = {{"code", "state"}, {"message", "the process was lost: " + lost_}};
  }
  client.finish(lost_.empty() ? MIGRATE_DONE : MIGRATE_LOST, std::move(result));
}

void run_source_worker(const WorkerContext& context, UniqueFd client, const MoveRequest& request) {
  HomeWorker(context, std::move(client), request).run();
}

}  // namespace migrate
