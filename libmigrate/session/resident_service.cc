// What a resident worker does from the moment when its process runs here.
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/session/channel_link.h"
#include "libmigrate/session/json_member.h"
#include "libmigrate/session/resident_worker.h"

namespace migrate {

void ResidentWorker::serve_until_end() {
  while (!gone_) {
    wait_for_events();
    read_mailbox();
    read_cell();
    follow_pager();
    follow_control();
    follow_home();
    if (!pending_moves_.empty() && independent_ && !exited_) {
      move_on();
    }
    const bool owed_to_source = !independent_ && control_ != nullptr && !cell_over_;
    if (cell_over_ && relay_ && relay_->exit_acknowledged() && relay_->flushed() &&
        !owed_to_source) {
      break;
    }
  }
  pager_.reset();
}

void ResidentWorker::wait_for_events() {
  constexpr int kIdleMs = 1000;
  constexpr int kOwedMs = 50;
  std::vector<pollfd> polled;
  polled.push_back({mailbox_->fd(), POLLIN, 0});
  polled.push_back({cell_over_ ? -1 : cell_->event_fd(), POLLIN, 0});
  polled.push_back({pager_events_.get(), POLLIN, 0});
  if (control_) {
    polled.push_back({control_->channel().poll_fd(), POLLIN, 0});
  }
  polled.push_back({rdma_ ? rdma_->fd() : -1, POLLIN, 0});
  int timeout_ms = independent_ ? kIdleMs : kOwedMs;
  const int wanted = relay_->collect_poll_fds(polled);
  timeout_ms = wanted >= 0 ? std::min(timeout_ms, wanted) : timeout_ms;
  ::poll(polled.data(), polled.size(), timeout_ms);
  std::uint64_t ignored = 0;
  static_cast<void>(::read(pager_events_.get(), &ignored, sizeof(ignored)));
}

void ResidentWorker::read_cell() {
  while (!cell_over_) {
    const auto event = cell_->read_event();
    if (!event && event.error().code == ErrorCode::kRetry) {
      return;
    }
    int status = SIGKILL;  // What an init that was killed leaves.
    if (event && event->kind == CellEvent::Kind::kStatus) {
      status = event->wait_status;
      if (WIFSTOPPED(status)) {
        relay_->report_job_state(WSTOPSIG(status));
        continue;
      }
      if (WIFCONTINUED(status)) {
        relay_->report_job_state(0);
        continue;
      }
    } else {
      cell_over_ = true;
    }
    if (!exited_) {
      exited_ = true;
      relay_->report_exit(status, !cell_over_);
      record(ProcessState::kExited);
      static_cast<void>(registry_->update_exit(to_hex(process_), ProcessRole::kResident, status));
    }
  }
}

void ResidentWorker::read_mailbox() {
  for (;;) {
    auto letter = mailbox_->receive(0);
    if (!letter) {
      if (letter.error().code != ErrorCode::kRetry) {
        spdlog::warn("mailbox: {}", letter.error().message());
      }
      return;
    }
    take_letter(std::move(*letter));
  }
}

void ResidentWorker::take_letter(Letter letter) {
  if (!letter.preamble) {
    take_request(letter.request, EventSink(std::move(letter.fd)));
    return;
  }
  switch (letter.preamble->purpose) {
    case Purpose::kCommand: {
      constexpr int kRequestTimeoutMs = 2000;
      const auto bytes = letter.channel->receive(0, kRequestTimeoutMs);
      if (bytes) {
        spdlog::info("session {}: a request from {}", to_hex(session_), letter.peer.to_string());
        const std::string text(reinterpret_cast<const char*>(bytes->data()), bytes->size());
        take_request(text, EventSink(std::move(letter.channel)));
      }
      break;
    }
    case Purpose::kResume:
      control_ = std::make_unique<ControlChannel>(std::move(letter.channel));
      break;
    case Purpose::kUrgent:
      urgent_ = std::move(letter.channel);
      break;
    case Purpose::kBulk:
      bulk_ = std::move(letter.channel);
      break;
    default:
      spdlog::warn("closed a connection that is not for session {}", to_hex(session_));
  }
}

void ResidentWorker::take_request(const std::string& text, EventSink sink) {
  const nlohmann::json request = parse_object(text);
  if (!request.is_object()) {
    sink.finish_failed(kExitFailed, make_error(ErrorCode::kCorrupt, "read a request"));
    return;
  }
  if (text_member(request, "command") == "check") {
    check(request, std::move(sink));
    return;
  }
  MoveRequest move;
  move.pid = cell_->seed();
  move.destination = text_member(request, "destination");
  move.mode = text_member(request, "mode", "lazy");
  move.transport = text_member(request, "transport", "auto");
  move.wait = text_member(request, "wait", "resumed");
  move.retry_seconds = number_member(request, "retry_seconds", 0.0);
  move.uid = offer_.user();
  move.push = push_limits(request, context_);
  if (!independent_ && control_) {
    wire::ControlMessage message;
    message.mutable_send_all();
    static_cast<void>(control_->send(message));
  }
  pending_moves_.push_back({std::move(move), std::move(sink)});
}

void ResidentWorker::check(const nlohmann::json& request, EventSink sink) {
  SourceMoveOptions options = onward_options(kCheckMode);
  options.destination.host.clear();
  const std::string destination = text_member(request, "destination");
  if (auto address = Address::parse(destination); !destination.empty() && address) {
    options.destination = *address;
  }
  EventSink nobody;
  const auto refusals = SourceMove(std::move(options), {}, nobody).check();
  if (!refusals) {
    sink.finish_failed(kExitOther, refusals.error());
    return;
  }
  sink.finish(refusals->empty() ? kExitDone : kExitRefused,
              {{"movable", refusals->empty()}, {"refusals", to_json(*refusals)}});
}

SourceMoveOptions ResidentWorker::onward_options(const std::string& mode) const {
  SourceMoveOptions options;
  options.pid = cell_->seed();
  options.known = known_objects();
  options.mode = mode;
  options.process = process_;
  options.home = *Address::parse(offer_.home());
  options.token = offer_.token();
  options.command = offer_.command();
  options.user = offer_.user();
  options.waits = waits_;
  options.host_clocks = host_clocks_;
  options.context = &context_;
  return options;
}

KnownObjects ResidentWorker::known_objects() const {
  KnownObjects known;
  known.relays = relay_inodes_;
  for (const char* kind : {"pid", "pid_for_children", "mnt", "time", "time_for_children"}) {
    auto link = read_link("/proc/" + std::to_string(cell_->seed()) + "/ns/" + kind);
    if (link) {
      known.own_namespaces.insert(*link);
    }
  }
  return known;
}

void ResidentWorker::follow_pager() {
  if (rdma_ && independent_) {
    rdma_.reset();
  } else if (rdma_) {
    accept_rdma();
  }
  if (pager_ && pager_done_ && !independent_) {
    independent_ = true;
    static_cast<void>(cell_->drop_kept());
    last_progress_ = progress();
    last_progress_.set_done(true);
    record(exited_ ? ProcessState::kExited : ProcessState::kRunningHere);
  }
  if (pager_ && exited_ && cell_over_ && !independent_) {
    independent_ = true;  // Nobody is left who could miss a page.
    last_progress_ = progress();
    last_progress_.set_owed_pages(0);
    last_progress_.set_done(true);
  }
  if (link_lost_ && !independent_ && urgent_ && bulk_) {
    resume_pages();
  }
}

void ResidentWorker::resume_pages() {
  link_lost_ = false;
  auto resumed = pager_->resume(std::make_unique<ChannelLink>(std::move(urgent_)),
                                std::make_unique<ChannelLink>(std::move(bulk_)));
  if (resumed) {
    spdlog::info("session {} goes on over new connections", to_hex(session_));
  } else {
    spdlog::warn("session {}: {}", to_hex(session_), resumed.error().message());
    link_lost_ = true;
  }
}

void ResidentWorker::follow_control() {
  constexpr std::int64_t kProgressEveryUs = 100'000;
  if (!control_) {
    return;
  }
  if (auto message = control_->try_receive(); !message) {
    control_.reset();
    return;
  }
  if (!independent_ && now_us() < next_progress_us_) {
    return;
  }
  next_progress_us_ = now_us() + kProgressEveryUs;
  wire::ControlMessage message;
  *message.mutable_progress() = independent_ ? last_progress_ : progress();
  record_exposure(message.progress());
  if (!control_->send(message) || !independent_) {
    return;
  }
  if (last_progress_.done()) {
    // The source hangs up when it has read this.
    constexpr int kGoodbyeMs = 1000;
    static_cast<void>(control_->receive(0, kGoodbyeMs));
    control_.reset();
    pager_->stop();
  }
}

// How long two hosts can end the process, for `ps` and `show` here.
void ResidentWorker::record_exposure(const wire::Progress& progress) {
  drain_.note(now_us(), progress.owed_pages());
  if (exited_) {
    return;
  }
  static_cast<void>(registry_->update_state(to_hex(process_), ProcessRole::kResident,
                                            ProcessState::kRunningHere, progress.owed_pages()));
  nlohmann::json exposure = nlohmann::json::object();
  if (progress.done()) {
    exposure["expected_independence_us"] = 0;
  } else if (const auto remaining = drain_.remaining_us()) {
    exposure["expected_independence_us"] = *remaining;
  }
  static_cast<void>(
      registry_->update_result(to_hex(process_), ProcessRole::kResident, exposure.dump()));
}

void ResidentWorker::follow_home() {
  constexpr std::int64_t kReconnectEveryUs = 500'000;
  if (!relay_->connected() && now_us() >= next_home_us_) {
    next_home_us_ = now_us() + kReconnectEveryUs;
    if (auto connected = connect_home(); connected) {
      relay_->attach(std::move(home_channel_));
    } else {
      spdlog::info("home of process {}: {}", to_hex(process_), connected.error().message());
    }
  }
  if (auto handled = relay_->handle(); !handled) {
    spdlog::warn("home of process {}: {}", to_hex(process_), handled.error().message());
  }
}

void ResidentWorker::deliver(std::span<const std::byte> siginfo) {
  siginfo_t information{};
  std::copy_n(siginfo.begin(), std::min(siginfo.size(), sizeof(information)),
              reinterpret_cast<std::byte*>(&information));
  const pid_t pid = cell_->seed();
  // The kernel lets no one forge a signal of kill(2) or of its own for another process.
  if (information.si_code >= 0 || information.si_code == SI_TKILL) {
    ::kill(pid, information.si_signo);
  } else {
    ::syscall(SYS_rt_sigqueueinfo, pid, information.si_signo, &information);
  }
}

wire::Progress ResidentWorker::progress() const {
  const PagerStatistics statistics = pager_->statistics();
  wire::Progress progress;
  progress.set_owed_pages(pager_->owed_pages());
  progress.set_fault_pages(statistics.fault_pages);
  progress.set_prefetch_pages(statistics.prefetch_pages);
  progress.set_push_pages(statistics.push_pages);
  progress.set_local_file_pages(statistics.local_file_pages);
  progress.set_zero_pages(statistics.zero_pages);
  progress.set_never_present_pages(statistics.never_present_pages);
  progress.set_starter_pages(statistics.starter_pages);
  progress.set_faults(statistics.remote_faults);
  progress.set_fault_p50_us(statistics.fault_p50_us);
  progress.set_fault_p99_us(statistics.fault_p99_us);
  progress.set_fault_max_us(statistics.fault_max_us);
  return progress;
}

void ResidentWorker::move_on() {
  PendingMove pending = std::move(pending_moves_.front());
  pending_moves_.erase(pending_moves_.begin());
  auto destination = Address::parse(pending.request.destination);
  if (!destination) {
    pending.sink.finish_failed(kExitFailed, destination.error());
    return;
  }
  SourceMoveOptions options = onward_options(pending.request.mode);
  options.destination = *destination;
  options.push = pending.request.push;
  options.transport =
      parse_page_transport(pending.request.transport).value_or(PageTransport::kAuto);
  SourceMove::Hooks hooks;
  hooks.freeze_relay = [this](const wire::Image&) { return relay_->freeze_state(); };
  hooks.thaw_relay = [this] { relay_->thaw(); };
  SourceMove move(std::move(options), std::move(hooks), pending.sink);
  const MoveOutcome outcome = move.attempt_for(pending.request.retry_seconds);
  if (outcome == MoveOutcome::kRefused) {
    pending.sink.send({{"event", "refused"}, {"refusals", to_json(move.refusals())}});
    pending.sink.finish(kExitRefused, {{"refusals", to_json(move.refusals())}});
  } else if (outcome == MoveOutcome::kFailed) {
    pending.sink.finish_failed(kExitFailed, move.error());
  } else {
    if (outcome == MoveOutcome::kInDoubt) {
      pending.sink.finish_failed(kExitAfterCommit, move.error());
    }
    serve_until_left(move, pending.sink, pending.request.wait);
  }
}

// The process runs elsewhere: serves its pages until it owes nothing, then clears up all of it.
void ResidentWorker::serve_until_left(SourceMove& move, EventSink& sink, const std::string& wait) {
  constexpr int kStepMs = 20;
  constexpr std::int64_t kProgressEveryUs = 100'000;
  gone_ = true;
  relay_.reset();
  static_cast<void>(
      registry_->update_state(to_hex(process_), ProcessRole::kResident, ProcessState::kAway));
  if (wait == "resumed") {
    sink.finish(kExitDone, move.result());
  }
  std::int64_t next_progress_us = 0;
  while (!move.done()) {
    pollfd polled{move.control_fd(), POLLIN, 0};
    ::poll(&polled, 1, kStepMs);
    if (auto handled = move.handle(); !handled) {
      spdlog::warn("session {}: {}", to_hex(move.session()), handled.error().message());
      if (handled.error().code == ErrorCode::kNotFound) {
        break;  // The parked process is gone.
      }
    }
    if (sink.open() && now_us() >= next_progress_us) {
      next_progress_us = now_us() + kProgressEveryUs;
      sink.send(move.progress_event());
    }
  }
  cell_->end();
  if (sink.open()) {
    sink.finish(kExitDone, move.result());
  }
  static_cast<void>(registry_->remove(to_hex(process_), ProcessRole::kResident));
}

void ResidentWorker::record(ProcessState state) {
  ProcessRecord row;
  row.process = to_hex(process_);
  row.role = ProcessRole::kResident;
  row.pid = cell_->seed();
  row.home = offer_.home();
  row.session = to_hex(session_);
  row.mailbox = to_hex(session_);
  row.mode = offer_.mode();
  row.state = state;
  row.owed_pages = pager_ && !independent_ ? pager_->owed_pages() : 0;
  row.uid = offer_.user();
  row.command = offer_.command();
  if (auto written = registry_->upsert(row); !written) {
    spdlog::warn("{}", written.error().message());
  }
}

}  // namespace migrate
