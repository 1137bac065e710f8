// How a guest worker moves its process on, and what it does until it owes nothing any more.
#include "libmigrate/guest/going_on.h"

#include <signal.h>

#include <utility>

#include "base/log.h"
#include "libmigrate/guest/serving.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/request_json.h"

namespace migrate {

int GoingOn::collect_poll_fds(std::vector<pollfd>& polled) {
  constexpr int kStepMs = 20;
  polled.push_back({move().control_fd(), POLLIN, 0});
  polled.push_back({guest_.source().poll_fd(), POLLIN, 0});
  return kStepMs;
}

void GoingOn::refuse(EventSink& sink, const char* operation, const std::string& reason) const {
  sink.finish_failed(MIGRATE_REFUSED, make_error(ErrorCode::kRefused, operation,
                                                 "process " + guest_.name(), reason));
}

void GoingOn::on_request(GuestRequest request) {
  if (const auto* const decision = std::get_if<ResolveRequest>(&request.wanted)) {
    const Resolution resolution = decision->action;
    on_decision(std::move(request), resolution);
  } else {
    request.refuse(MIGRATE_FAILED, leaving_error(guest_.name()));
  }
}

// Only here, not through its home, which has a doubt of its own to decide.
void GoingOn::on_decision(GuestRequest request, Resolution resolution) {
  if (request.home) {
    refuse(request.sink, "resolve", "ask on the host that it is leaving");
  } else if (const auto may = guest_.may_use(request.text, nullptr); !may) {
    request.refuse(MIGRATE_REFUSED, may.error());
  } else {
    decide(resolution, std::move(request.sink));
  }
}

void GoingOn::on_resume(std::unique_ptr<ControlChannel> control) {
  guest_.answer_source(std::move(control), false);
  guest_.hear_source();
}

// It is owed nothing: a process moves on when all has come.
void GoingOn::on_pages(Purpose, std::unique_ptr<Channel>) {
  log::info("session {}: closed a connection for pages, of which none are owed",
            to_hex(guest_.session()));
}

GuestInDoubt::GuestInDoubt(Guest& guest, OnwardMove& onward)
    : GoingOn(guest, onward), since_us_(guest.now()) {
  guest_.record().enter(GuestPhase::kInDoubt);
}

bool GuestInDoubt::step() {
  static_cast<void>(move().handle());  // It says it again where it matters.
  ask_home();
  const bool in_doubt = move().fate() == Fate::kUnknown && !decision_.is_due() && !home_ended_;
  if (!in_doubt) {
    return false;
  }
  ProcessRow& row = guest_.record().row();
  row.set_waiting("in doubt whether it runs at " + move().waits_for(),
                  guest_.now() - move().waits_since_us());
  row.refresh();
  if (onward_.sink.open() && guest_.now() - since_us_ > kPatienceUs) {
    onward_.sink.finish_failed(MIGRATE_LOST, doubt_error(move(), guest_.name()));
  }
  return true;
}

// Where the process runs, its worker has called home, which therefore may know what this host does
// not.
void GuestInDoubt::ask_home() {
  constexpr std::int64_t kAskEveryUs = 1'000'000;
  constexpr int kConnectMs = 2000;
  if (move().fate() != Fate::kUnknown) {
    return;
  }
  if (!enquiry_ && guest_.now() >= next_enquiry_us_) {
    if (guest_.home().connect(kConnectMs)) {
      enquiry_ = std::make_unique<HomeEnquiry>(guest_.home().take_connection(),
                                               guest_.home().relay()->epoch());
    }
    next_enquiry_us_ = guest_.now() + kAskEveryUs;
  }
  const auto answer =
      enquiry_ ? enquiry_->answer() : Result<HomeEnquiry::Answer>(HomeEnquiry::Answer::kNone);
  if (!answer) {
    enquiry_.reset();
  } else if (*answer == HomeEnquiry::Answer::kLaterPlace) {
    log::info("process {} has called its home from a later place: it runs at {}", guest_.name(),
              move().destination());
    move().confirm_runs();
  } else if (*answer == HomeEnquiry::Answer::kEnded) {
    home_ended_ = true;
  }
}

void GuestInDoubt::decide(Resolution resolution, EventSink sink) {
  if (decision_.made()) {
    sink.finish_failed(MIGRATE_ERROR,
                       make_error(ErrorCode::kRetry, "resolve", "process " + guest_.name(),
                                  "another such request is being carried out"));
    return;
  }
  decision_ = {resolution, std::move(sink)};
}

GuestInDoubt::End GuestInDoubt::settle() {
  enquiry_.reset();
  if (home_ended_) {
    refuse_decision(decision_, guest_.name(), "its home has just answered: it has ended");
    end_process("its home says that it has ended");
    return End::kOver;
  }
  const DoubtEnd end = end_doubt(move(), decision_, guest_.name());
  guest_.record().row().set_waiting({}, 0);
  switch (end) {
    case DoubtEnd::kThere:
      return End::kThere;
    case DoubtEnd::kHere:
      stay();
      return End::kHere;
    case DoubtEnd::kGivenUp:
      break;
  }
  end_process("an operator gave it up while it was in doubt whether it ran at " +
              move().destination());
  return End::kOver;
}

void GuestInDoubt::stay() {
  guest_.record().noted().clear_outgoing();
  guest_.note_change();
  guest_.record().enter(GuestPhase::kIndependent);
  onward_.sink.finish_failed(MIGRATE_FAILED, move().error());
}

// Over while it was in doubt whether it runs at the next place: its home hears that, and why,
// unless it has said so itself.
void GuestInDoubt::end_process(const std::string& why) {
  guest_.home().relay()->thaw();
  guest_.record().noted().clear_outgoing();
  guest_.note_change();
  guest_.report_end(SIGKILL, why);
  guest_.cell()->end();
}

GuestLeaving::GuestLeaving(Guest& guest, OnwardMove& onward) : GoingOn(guest, onward) {
  guest_.record().set_facts([this] {
    GuestRecord::Facts facts;
    facts.owed_pages = move().owed_pages();
    facts.where = move().destination();
    return facts;
  });
  guest_.record().enter(GuestPhase::kLeaving);
  guest_.home().drop_relay();
  if (auto hidden = move().hide(); !hidden) {
    log::warn("process {}: {}", guest_.name(), hidden.error().message());
  }
  if (onward_.wait == MoveWait::kResumed) {
    onward_.sink.finish(MIGRATE_DONE, move().result());
  }
}

GuestLeaving::~GuestLeaving() {
  guest_.record().set_facts([] { return GuestRecord::Facts(); });
}

bool GuestLeaving::step() {
  constexpr std::int64_t kGoodbyeUs = 2'000'000;
  guest_.hear_source();
  if (goodbye_until_us_ == 0 && !serve()) {
    if (onward_.sink.open()) {
      onward_.sink.finish(MIGRATE_DONE, move().result());
    }
    goodbye_until_us_ = guest_.now() + kGoodbyeUs;
  }
  if (goodbye_until_us_ == 0 || (guest_.source().connected() && guest_.now() < goodbye_until_us_)) {
    return true;
  }
  guest_.record().row().remove();
  return false;
}

// False: nothing is owed any more, or nobody asks for it.
bool GuestLeaving::serve() {
  if (move().done() || given_up_) {
    return false;
  }
  if (move().handle() == Original::kGone) {
    return false;
  }
  ProcessRow& row = guest_.record().row();
  row.set_waiting(move().waits_for(), guest_.now() - move().waits_since_us());
  if (!move().done()) {
    row.set_progress(ProcessState::kAway, move().owed_pages(), {}, json_text(move().result()));
  }
  row.refresh();
  given_up_ = given_up_ || waits_too_long();
  if (onward_.sink.open() && guest_.now() >= next_progress_us_) {
    next_progress_us_ = guest_.now() + kProgressEveryUs;
    onward_.sink.send(move().progress_event());
  }
  return !move().done() && !given_up_;
}

// Where it runs, it is ended after as long without its pages.
bool GuestLeaving::waits_too_long() const {
  const std::int64_t limit_us = std::int64_t{guest_.context().end_waiting_s} * 1'000'000;
  if (limit_us == 0 || move().waits_for().empty() ||
      guest_.now() - move().waits_since_us() <= limit_us) {
    return false;
  }
  log::error("process {}: nothing was heard of {} for {} s; its pages are given up", guest_.name(),
             move().destination(), guest_.context().end_waiting_s);
  return true;
}

void GuestLeaving::decide(Resolution resolution, EventSink sink) {
  const std::string who = "process " + guest_.name();
  if (resolution != Resolution::kGiveUp) {
    refuse(sink, "resume", "it is known to have run elsewhere");
  } else if (move().waits_for().empty()) {
    refuse(sink, "give up", "it runs at " + move().destination() + ", which answers");
  } else {
    log::warn("{}: an operator gives it up, as lost with {}", who, move().destination());
    given_up_ = true;
    sink.finish(MIGRATE_DONE,
                {{"process", to_hex(guest_.process())}, {"resolved", to_string(resolution)}});
  }
}

}  // namespace migrate
