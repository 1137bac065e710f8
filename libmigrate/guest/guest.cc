#include "libmigrate/guest/guest.h"

#include <signal.h>

#include <algorithm>
#include <utility>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/guest/guest_seat.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/state/phase.h"

namespace migrate {
namespace {

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

Guest::Guest(const WorkerContext& context, const SessionId& session, const SessionId& process,
             PeerIdentity source, GuestRecord record, std::function<std::int64_t()> clock)
    : context_(context),
      session_(session),
      process_(process),
      source_host_(std::move(source)),
      clock_(std::move(clock)),
      record_(std::move(record)),
      source_(clock_),
      core_watch_(clock_) {
  record_.set_facts([this] {
    GuestRecord::Facts facts;
    facts.owed_pages = pages_ && !independent() ? pages_->owed() : 0;
    facts.owed_by = record_.noted().source();
    facts.children_left = children_left();
    facts.lost = lost_;
    return facts;
  });
}

Guest::~Guest() = default;

GuestRelay::Handlers Guest::relay_handlers() {
  GuestRelay::Handlers handlers;
  handlers.on_signal = [this](std::span<const std::byte> siginfo) { deliver(siginfo); };
  handlers.on_change = [this] { note_change(); };
  handlers.on_foreground = [this](bool in_foreground) {
    if (exited()) {
      return;
    }
    if (auto given = cell_->set_foreground(in_foreground); !given) {
      log::debug("process {}: {}", name(), given.error().message());
    }
  };
  return handlers;
}

bool Guest::is_over() const {
  constexpr std::int64_t kSourceReturnUs = 10'000'000;
  const GuestRelay& relay = *home_->relay();
  const bool source_served = source_.knows() || clock_() - over_since_us_ > kSourceReturnUs;
  return cell_over() && relay.exit_acknowledged() && relay.flushed() && source_served;
}

void Guest::follow_pages() {
  pages_->follow(independent());
  drop_again();
  if (independent()) {
    return;
  }
  if (pages_->done()) {
    context_.stops.reach("destination.done");
    last_progress_ = pages_->progress();
    become_independent();
  } else if (cell_over()) {  // Nobody is left who could miss a page.
    last_progress_ = pages_->progress();
    last_progress_.set_owed_pages(0);
    become_independent();
  }
}

void Guest::become_independent() {
  // Before the init lets go of what a new worker would need.
  record_.enter(GuestPhase::kIndependent);
  let_go_of_pages();
  last_progress_.set_done(true);
  source_.hurry();  // It waits for nothing else.
}

// Until the init has closed its duplicates, the process may wait for a pager that is no more.
void Guest::let_go_of_pages() {
  to_drop_ = {{.kind = Kept::Kind::kUserfault}, {.kind = Kept::Kind::kLedger}};
  drop_again();
}

void Guest::drop_again() {
  std::erase_if(to_drop_, [this](const Kept& what) {
    const auto dropped = cell_over() ? Result<void>() : cell_->drop(what);
    if (!dropped) {
      log::error("the cell of process {} still holds its memory: {}", name(),
                 dropped.error().message());
    }
    return dropped.has_value();
  });
}

// A process that is owed pages and has no link to who has them, or none to its home.
void Guest::watch_waiting() {
  const std::int64_t now = clock_();
  if (!reports_wait(now)) {
    return;
  }
  const std::int64_t limit_us = std::int64_t{context_.end_waiting_s} * 1'000'000;
  if (limit_us != 0 && now - waits_since_us_ > limit_us && !cell_over()) {
    log::error("process {} waited for its pages for {} s, and is ended", name(),
               context_.end_waiting_s);
    cell_->end();
  }
  if (exited() && !cell_over() && home_gave_up()) {
    give_up_children("their home, which owes them pages, has given them up");
  }
}

// True: it waits for pages.
bool Guest::reports_wait(std::int64_t now) {
  constexpr std::int64_t kHomePatienceUs = 2'000'000;
  if (!independent() && pages_->waits()) {
    if (waits_since_us_ == 0) {
      waits_since_us_ = now;
      record_.row().set_waiting("the pages that its source owes it", 0);
    }
    return true;
  }
  waits_since_us_ = 0;
  const std::int64_t away_us = home_->away_us();
  const bool shown = away_us > kHomePatienceUs;
  record_.row().set_waiting(
      shown ? "its home at " + record_.noted().home() + ", for its signals, output and end"
            : std::string(),
      away_us);
  return false;
}

// Home has no worker for the process any more, and no other host owes it pages.
bool Guest::home_gave_up() const {
  return home_->relay()->home_over() && record_.noted().source() == record_.noted().home();
}

void Guest::answer_source(std::unique_ptr<ControlChannel> control, bool wants_all) {
  source_.answer(std::move(control), progress(), wants_all && !independent());
}

void Guest::hear_source() {
  if (source_.hear() && pages_) {
    pages_->stop();
  }
}

void Guest::tell_source() {
  hear_source();
  // `ps` here tells of what is owed without a link, too.
  if ((!source_.connected() && independent()) || !source_.is_due()) {
    return;
  }
  const wire::Progress now = progress();
  record_exposure(now);
  source_.tell(now);
}

// How long two hosts can end the process, for `ps` and `show` here.
void Guest::record_exposure(const wire::Progress& progress) {
  const std::int64_t now = clock_();
  drain_.note(now, progress.owed_pages());
  const auto state = row_state(phase(), children_left());
  if (!state || *state == ProcessState::kExited || has_ended(phase()) != exited()) {
    return;  // Its end is in the row, or will be as soon as it is reported.
  }
  nlohmann::json exposure = {{"expected_independence_us", nullptr}};
  if (progress.done()) {
    exposure["expected_independence_us"] = 0;
  } else if (const auto remaining = drain_.remaining_us(now)) {
    exposure["expected_independence_us"] = *remaining;
  }
  record_.row().set_progress(*state, progress.owed_pages(), record_.noted().source(),
                             json_text(exposure));
}

wire::Progress Guest::progress() const {
  if (!independent()) {
    return pages_->progress();
  }
  wire::Progress last = last_progress_;
  last.set_done(true);
  return last;
}

void Guest::follow_home() {
  if (record_.noted().source() != record_.noted().home()) {
    home_->report_owed(independent() ? 0 : pages_->owed(), record_.noted().source());
  }
  home_->follow();
  if (cell_over() && home_gave_up()) {
    source_.note_knows();
  }
}

void Guest::deliver(std::span<const std::byte> siginfo) {
  siginfo_t information{};
  std::copy_n(siginfo.begin(), std::min(siginfo.size(), sizeof(information)),
              reinterpret_cast<std::byte*>(&information));
  if (exited()) {  // The pid may be another's. Home says so of what kept its memory.
    if (information.si_signo != SIGKILL || cell_over()) {
      return;
    }
    if (const auto may = may_end_children(); !may) {
      log::warn("children of process {} are not ended: {}", name(), may.error().message());
    } else {
      give_up_children("what kept the memory of the process at its home was killed");
    }
    return;
  }
  if (const auto may = may_signal_now(); !may) {
    log::warn("signal {} for process {} is not delivered: {}", information.si_signo, name(),
              may.error().message());
    return;
  }
  if (stops_by_default(cell_->seed(), information.si_signo)) {
    // In the cell nobody could let it go on, the kernel thinks (its process group is orphaned), and
    // ignores ^Z; its home can.
    cell_->signal_seed(SIGSTOP);
    return;
  }
  // Of the first two nobody sees who sent them; those of real time come in numbers, and a sender is
  // made for each signal.
  const bool has_handler = information.si_signo != SIGKILL && information.si_signo != SIGSTOP &&
                           information.si_signo < SIGRTMIN;
  // The kernel lets no one forge a signal of kill(2) or of its own for another process.
  if (information.si_code == SI_USER && information.si_pid > 1 && has_handler && is_its_users()) {
    cell_->signal_seed_as(information.si_signo, information.si_pid, information.si_uid);
  } else if (information.si_code >= 0 || information.si_code == SI_TKILL) {
    cell_->signal_seed(information.si_signo);
  } else {
    cell_->signal_seed(information.si_signo, &information);
  }
}

void Guest::note_change() {
  if (home_->relay() == nullptr) {
    return;
  }
  *record_.noted().mutable_relay() = home_->relay()->note();
  if (auto saved = record_.save(); !saved) {
    log::warn("{}", saved.error().message());
  }
  if (cell_over()) {  // Nobody is left to hold them.
    return;
  }
  if (auto kept = record_.keep_ends(*cell_, *home_->relay()); !kept) {
    log::error(
        "the cell of process {} does not hold the streams that are open: {}; until its next change "
        "a new worker would lose some, or the process not see that some were closed",
        name(), kept.error().message());
  }
}

void Guest::close() {
  // The cell first: what is left in it must never see a page without its pager.
  if (cell_ && !cell_->end_and_wait()) {
    log::error("session {}: what is left in the cell does not end, and its pager does",
               to_hex(session_));
  }
  pages_.reset();
  remove_noted_groups(record_.noted());
  record_.enter(has_left(phase()) ? GuestPhase::kWentOn : GuestPhase::kOver);
  if (source_.knows()) {
    record_.file().remove();
  }
}

}  // namespace migrate
