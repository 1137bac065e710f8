// What a guest worker does from the moment when its process runs here.
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "libmigrate/guest/guest_worker.h"
#include "libmigrate/move/control_channel.h"
#include "libmigrate/pages/channel_link.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/state/row_state.h"

namespace migrate {
namespace {

constexpr std::int64_t kSourceReturnUs = 10'000'000;

/// Whether a signal of a terminal would stop the process: it neither handles, ignores nor blocks
/// it.
bool stops_by_default(pid_t process, int signal) {
  if (signal != SIGTSTP && signal != SIGTTIN && signal != SIGTTOU) {
    return false;
  }
  const auto status = read_file("/proc/" + std::to_string(process) + "/status");
  std::uint64_t minded = 0;
  for (const char* field : {"SigBlk:", "SigIgn:", "SigCgt:"}) {
    minded |= status ? number_field(*status, field, 16) : ~0ULL;
  }
  return (minded >> (static_cast<unsigned>(signal) - 1U) & 1U) == 0;
}

}  // namespace

void GuestWorker::serve_until_end() {
  while (!gone()) {
    wait_for_events();
    read_mailbox();
    watch_core();
    read_cell();
    follow_pager();
    watch_waiting();  // Before what may block: users are to see it.
    follow_control();
    follow_home();
    row_->refresh();
    if (!pending_moves_.empty() && independent() && !exited_) {
      move_on();
    }
    // A source that has not heard of the end would serve pages for ever: time for it to come back.
    const bool source_served = source_knows_ || now_us() - over_since_us_ > kSourceReturnUs;
    if (!gone() && cell_over_ && relay_->exit_acknowledged() && relay_->flushed() &&
        source_served) {
      break;
    }
  }
  pager_.reset();
  close_session();
}

// Nobody needs to take over. Unless the source knows all, a note of what became of the process
// stays for it: whoever finds none may say that the process never ran.
void GuestWorker::close_session() {
  if (cell_) {
    cell_->end();
  }
  if (!file_) {
    return;
  }
  enter(gone() ? GuestPhase::kWentOn : GuestPhase::kOver);
  if (source_knows_) {
    file_->remove();
  }
}

void GuestWorker::wait_for_events() {
  constexpr int kLongestPollMs = 1000;
  constexpr int kOwedPollMs = 50;
  std::vector<pollfd> polled;
  polled.push_back({mailbox_->fd(), POLLIN, 0});
  polled.push_back({cell_over_ ? -1 : cell_->event_fd(), POLLIN, 0});
  polled.push_back({pager_events_.get(), POLLIN, 0});
  if (control_) {
    polled.push_back({control_->channel().poll_fd(), POLLIN, 0});
  }
  polled.push_back({rdma_ ? rdma_->fd() : -1, POLLIN, 0});
  int timeout_ms = independent() ? kLongestPollMs : kOwedPollMs;
  const int wanted = relay_->collect_poll_fds(polled);
  timeout_ms = wanted >= 0 ? std::min(timeout_ms, wanted) : timeout_ms;
  ::poll(polled.data(), polled.size(), timeout_ms);
  std::uint64_t ignored = 0;
  static_cast<void>(::read(pager_events_.get(), &ignored, sizeof(ignored)));
}

void GuestWorker::read_cell() {
  while (!cell_over_) {
    const auto event = cell_->read_event();
    if (!event && event.error().code == ErrorCode::kRetry) {
      return;
    }
    // If the init was killed, it could not say how the process ended.
    const bool was_noted = has_ended(phase());
    int status = was_noted ? file_->mark().phase.wait_status() : SIGKILL;
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
      over_since_us_ = now_us();
      if (exited_) {
        end_children();
      }
    }
    if (!exited_) {
      context_.stops.reach("destination.exit");
      std::string lost;
      if (!was_noted) {
        lost = "the cell of process " + noted_.command() + " on host " + context_.host_name +
               " was killed, and the process with it";
      }
      report_end(status, lost);
    }
  }
}

// A process that is owed pages may end with a core dump.
void GuestWorker::watch_core() {
  if (pager_ && !independent() && !exited_ && !core_watch_.has_execed()) {
    core_watch_.look(cell_->seed(), pager_->statistics().first_gone);
  }
}

// `lost`: why it did not end by itself, if so.
void GuestWorker::report_end(int status, const std::string& lost) {
  if (!lost.empty()) {
    log::error("process {}: {}", noted_.command(), lost);
  }
  exited_ = true;
  lost_ = lost;
  enter(GuestPhase::kEnded, status);
  status = file_->mark().phase.wait_status();  // The init may have noted it first.
  std::map<std::uint64_t, std::uint64_t> positions;
  for (const auto& [id, file] : shared_files_) {
    if (const off_t position = ::lseek(file.get(), 0, SEEK_CUR); position >= 0) {
      positions.emplace(id, static_cast<std::uint64_t>(position));
    }
  }
  const std::uint64_t owed =
      pager_ && !independent() ? pager_->statistics().first_owed_pages : std::uint64_t{0};
  const IncompleteCore core =
      core_watch_.note_end(cell_->seed(), status, owed, noted_.credentials(), noted_.command());
  relay_->report_exit(status, children_left(), lost, positions, core);
  for (PendingMove& pending : std::exchange(pending_moves_, {})) {
    pending.sink.finish_failed(MIGRATE_ERROR, ended_error());
  }
}

// Of children that the process left, killed with their cell or not, nothing is left.
void GuestWorker::end_children() {
  relay_->report_descendants_ended();
  record();
}

// The process has ended, and children of it are owed pages that nobody has any more.
void GuestWorker::give_up_children(const std::string& reason) {
  log::error("children of process {} are ended: {}", noted_.command(), reason);
  cell_->end();
}

Error GuestWorker::ended_error() const {
  return make_error(ErrorCode::kNotFound, "carry out a request", "process " + noted_.command(),
                    cell_over_ ? "it has ended" : "it has ended; only children of it are left");
}

void GuestWorker::read_mailbox() {
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

void GuestWorker::take_letter(Letter letter) {
  if (is_request(letter)) {
    if (auto asked = open_request(std::move(letter))) {
      take_request(asked->text, std::move(asked->sink), asked->home ? &*asked->home : nullptr);
    }
    return;
  }
  switch (letter.preamble->purpose) {
    case Purpose::kResume:
      if (!has_run(phase())) {
        break;  // Only what runs here can be resumed; await_run() looks for these itself.
      }
      control_ =
          std::make_unique<ControlChannel>(std::move(letter.channel), letter.peer.to_string());
      send_verdict();
      break;
    case Purpose::kUrgent:
      urgent_ = std::move(letter.channel);
      break;
    case Purpose::kBulk:
      bulk_ = std::move(letter.channel);
      break;
    default:
      log::warn("closed a connection that is not for session {}", to_hex(session_));
  }
}

SourceMoveOptions GuestWorker::onward_options(const MovePlan& plan) const {
  SourceMoveOptions options;
  options.pid = cell_->seed();
  options.known = known_objects();
  options.plan = plan;
  options.process = process_;
  options.home = *Address::parse(noted_.home());
  options.token = noted_.token();
  options.command = noted_.command();
  options.waits = waits_;
  options.host_clocks = host_clocks_;
  options.context = &context_;
  return options;
}

KnownObjects GuestWorker::known_objects() const {
  KnownObjects known;
  known.relays = relay_inodes_;
  for (const auto& [id, file] : shared_files_) {
    known.shared_files.emplace(id, file.get());
  }
  // The pager has let go of them all, but the kernel may not have seen its last descriptor close
  // yet.
  known.own_userfaultfd = true;
  for (const char* kind : {"pid", "pid_for_children", "mnt", "time", "time_for_children"}) {
    auto link = read_link("/proc/" + std::to_string(cell_->seed()) + "/ns/" + kind);
    if (link) {
      known.own_namespaces.insert(*link);
    }
  }
  return known;
}

void GuestWorker::follow_pager() {
  if (rdma_ && independent()) {
    rdma_.reset();
  } else if (rdma_) {
    accept_rdma();
  }
  if (pager_ && pager_done_ && !independent()) {
    context_.stops.reach("destination.done");
    enter(GuestPhase::kIndependent);  // Before the init lets go of what a new worker would need.
    static_cast<void>(cell_->drop({.kind = Kept::Kind::kUserfault}));
    static_cast<void>(cell_->drop({.kind = Kept::Kind::kLedger}));
    last_progress_ = progress();
    last_progress_.set_done(true);
    next_progress_us_ = 0;  // The source waits for nothing else.
  }
  if (pager_ && exited_ && cell_over_ && !independent()) {
    enter(GuestPhase::kIndependent);  // Nobody is left who could miss a page.
    last_progress_ = progress();
    last_progress_.set_owed_pages(0);
    last_progress_.set_done(true);
    next_progress_us_ = 0;
  }
  if (!independent() && urgent_ && bulk_) {
    resume_pages();
  }
}

// A process that is owed pages and has no link to who has them, or none to its home.
void GuestWorker::watch_waiting() {
  constexpr std::int64_t kHomePatienceUs = 2'000'000;
  const std::int64_t away_us = home_lost_us_ == 0 ? 0 : now_us() - home_lost_us_;
  const bool waits = !independent() && (link_lost_ || (pager_ && !pager_->started()));
  if (!waits) {
    waits_since_us_ = 0;
    const bool shown = away_us > kHomePatienceUs;
    row_->set_waiting(shown ? "its home at " + noted_.home() + ", for its signals, output and end"
                            : std::string(),
                      away_us);
    return;
  }
  if (waits_since_us_ == 0) {
    waits_since_us_ = now_us();
    row_->set_waiting("the pages that its source owes it", 0);
  }
  const std::int64_t limit_us = std::int64_t{context_.end_waiting_s} * 1'000'000;
  if (limit_us != 0 && now_us() - waits_since_us_ > limit_us && !cell_over_) {
    log::error("process {} waited for its pages for {} s, and is ended", noted_.command(),
               context_.end_waiting_s);
    cell_->end();
  }
  if (exited_ && !cell_over_ && home_gave_up()) {
    give_up_children("their home, which owes them pages, has given them up");
  }
}

// Home has no worker for the process any more, and no other host owes it pages.
bool GuestWorker::home_gave_up() const {
  return relay_->home_over() && noted_.source() == noted_.home();
}

void GuestWorker::resume_pages() {
  link_lost_ = false;
  auto urgent = make_urgent_link(std::move(urgent_), pages_read_);
  auto bulk = std::make_unique<ChannelLink>(std::move(bulk_));
  auto resumed = pager_->started() ? pager_->resume(std::move(urgent), std::move(bulk))
                                   : pager_->start(std::move(urgent), std::move(bulk));
  if (resumed) {
    log::info("session {} goes on over new connections", to_hex(session_));
  } else {
    log::warn("session {}: {}", to_hex(session_), resumed.error().message());
    link_lost_ = true;
  }
}

void GuestWorker::send_verdict() {
  wire::ControlMessage message;
  message.mutable_verdict()->set_fate(wire::Verdict::RUNS);
  *message.mutable_verdict()->mutable_progress() = independent() ? last_progress_ : progress();
  last_heard_us_ = now_us();
  bool sent = control_->send(message).has_value();
  if (sent && !pending_moves_.empty() && !independent()) {
    wire::ControlMessage all;  // A new worker there has not heard of it.
    all.mutable_send_all();
    sent = control_->send(all).has_value();
  }
  if (!sent) {
    control_.reset();
  }
}

void GuestWorker::hear_source() {
  const bool knew = source_knows_;
  while (control_) {
    auto message = control_->try_receive();
    if (!message) {
      control_.reset();
    } else if (!*message) {
      break;
    } else {
      last_heard_us_ = now_us();
      source_knows_ = source_knows_ || (*message)->has_goodbye();
    }
  }
  if (source_knows_ && !knew) {  // It may have closed the connection since.
    control_.reset();
    if (pager_) {
      pager_->stop();
    }
  }
}

void GuestWorker::follow_control() {
  hear_source();
  const bool is_owed = pager_ && !independent();  // `ps` here tells of it without a link, too
  if ((!control_ && !is_owed) || now_us() < next_progress_us_) {
    return;
  }
  next_progress_us_ = now_us() + kProgressEveryUs;
  wire::ControlMessage message;
  *message.mutable_progress() = independent() ? last_progress_ : progress();
  record_exposure(message.progress());
  if (!control_) {
    return;
  }
  if (!control_->send(message) || now_us() - last_heard_us_ > kSilenceUs) {
    control_.reset();
  }
}

// How long two hosts can end the process, for `ps` and `show` here.
void GuestWorker::record_exposure(const wire::Progress& progress) {
  drain_.note(now_us(), progress.owed_pages());
  const auto state = row_state(phase(), children_left());
  if (!state || *state == ProcessState::kExited || has_ended(phase()) != exited_) {
    return;  // Its end is in the row, or will be as soon as it is reported.
  }
  nlohmann::json exposure = {{"expected_independence_us", nullptr}};
  if (progress.done()) {
    exposure["expected_independence_us"] = 0;
  } else if (const auto remaining = drain_.remaining_us(now_us())) {
    exposure["expected_independence_us"] = *remaining;
  }
  row_->set_progress(*state, progress.owed_pages(), exposure.dump());
}

void GuestWorker::follow_home() {
  constexpr std::int64_t kReconnectEveryUs = 500'000;
  constexpr int kReconnectMs = 2000;  // The loop stands still in that time.
  if (relay_->connected()) {
    home_lost_us_ = 0;
  } else if (home_lost_us_ == 0) {
    home_lost_us_ = now_us();
  }
  if (!relay_->connected() && now_us() >= next_home_us_) {
    next_home_us_ = now_us() + kReconnectEveryUs;
    if (auto connected = connect_home(kReconnectMs); connected) {
      relay_->attach(std::move(home_channel_));
    } else {
      log::info("home of process {}: {}", to_hex(process_), connected.error().message());
    }
  }
  if (auto handled = relay_->handle(); !handled) {
    log::warn("home of process {}: {}", to_hex(process_), handled.error().message());
  }
  source_knows_ = source_knows_ || (cell_over_ && home_gave_up());
}

void GuestWorker::deliver(std::span<const std::byte> siginfo) {
  siginfo_t information{};
  std::copy_n(siginfo.begin(), std::min(siginfo.size(), sizeof(information)),
              reinterpret_cast<std::byte*>(&information));
  if (exited_) {  // The pid may be another's. Home says so of what kept its memory.
    if (information.si_signo == SIGKILL && !cell_over_) {
      give_up_children("what kept the memory of the process at its home was killed");
    }
    return;
  }
  if (const auto may = may_signal_now(); !may) {
    log::warn("signal {} for process {} is not delivered: {}", information.si_signo,
              noted_.command(), may.error().message());
    return;
  }
  if (stops_by_default(cell_->seed(), information.si_signo)) {
    // In the cell nobody could let it go on, the kernel thinks (its process group is orphaned), and
    // ignores ^Z; its home can.
    cell_->signal_seed(SIGSTOP);
    return;
  }
  // The kernel lets no one forge a signal of kill(2) or of its own for another process.
  if (information.si_code >= 0 || information.si_code == SI_TKILL) {
    cell_->signal_seed(information.si_signo);
  } else {
    cell_->signal_seed(information.si_signo, &information);
  }
}

wire::Progress GuestWorker::progress() const {
  wire::Progress progress;
  if (!pager_) {
    progress.set_done(true);
    return progress;
  }
  const PagerStatistics statistics = pager_->statistics();
  progress.set_owed_pages(pager_->owed_pages());
  progress.set_fault_pages(statistics.fault_pages);
  progress.set_prefetch_pages(statistics.prefetch_pages);
  progress.set_push_pages(statistics.push_pages);
  progress.set_local_file_pages(statistics.local_file_pages);
  progress.set_zero_pages(statistics.zero_pages);
  progress.set_never_present_pages(statistics.never_present_pages);
  progress.set_one_sided_pages(pages_read_);
  progress.set_starter_pages(statistics.starter_pages);
  progress.set_faults(statistics.remote_faults);
  progress.set_fault_p50_us(statistics.fault_p50_us);
  progress.set_fault_p99_us(statistics.fault_p99_us);
  progress.set_fault_max_us(statistics.fault_max_us);
  return progress;
}

}  // namespace migrate
