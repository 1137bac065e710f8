#include "tests/libmigrate/home/stand_ins.h"

#include <unistd.h>

#include <algorithm>

namespace migrate::home_testing {
namespace {

Result<void> refused_unless(bool may) {
  return may ? Result<void>() : fail(make_error(ErrorCode::kRefused, "resolve"));
}

}  // namespace

bool Doings::has(const std::string& step) const {
  return std::find(log.begin(), log.end(), step) != log.end();
}

void Doings::take_step(const std::string& step, const std::function<void()>& act) {
  if (step == die_before) {
    die_before.clear();
    throw WorkerDied();
  }
  log.push_back(step);
  if (step == in_step.first) {
    in_step.second();
  }
  act();
  if (step == die_after) {
    die_after.clear();
    throw WorkerDied();
  }
}

SessionId test_session() {
  SessionId session{};
  session.fill(std::byte{0x11});
  return session;
}

void StandInMove::ask_once_more() {
  doings_.take_step("ask once more", [this] {
    doings_.fate = doings_.fate == Fate::kUnknown ? doings_.answer : doings_.fate;
  });
}

void StandInMove::confirm_runs() {
  doings_.take_step("confirm", [this] {
    doings_.fate = Fate::kRuns;
    record_.text().mutable_outgoing()->set_confirmed(true);
    record_.keep();
  });
}

Result<void> StandInMove::resume_here() {
  doings_.take_step("resume here");
  return doings_.can_resume ? Result<void>() : fail(make_error(ErrorCode::kSystem, "resume"));
}

Result<void> StandInDeputy::free_all() {
  doings_.take_step("free all");
  return {};
}

Result<void> StandInDeputy::close_stream(std::uint32_t id) {
  doings_.take_step("close stream " + std::to_string(id));
  return {};
}

void StandInDeputy::fetch_streams(RealFiles& files, wire::HomeRelayState& /*noted*/) const {
  files.fetch_streams_left(::getpid(), doings_.image);
}

void StandInDeputy::send(int signal) const {
  doings_.take_step("send " + std::to_string(signal));
}

Result<void> StandInDeputy::settle(const std::set<std::uint32_t>& /*accepted*/) {
  doings_.take_step("settle");
  return doings_.can_settle ? Result<void>() : fail(make_error(ErrorCode::kSystem, "settle"));
}

Result<std::unique_ptr<ParkedKeeper>> StandInDeputy::make_keeper(
    const std::set<std::uint32_t>& /*accepted*/) {
  doings_.take_step("make keeper");
  if (!doings_.can_make_keeper) {
    return fail(make_error(ErrorCode::kSystem, "make a keeper"));
  }
  return std::make_unique<StandInKeeper>(doings_);
}

// Says, too, in which phase of the record that is, and whether a keeper is noted.
Result<void> StandInDeputy::end_as(int wait_status) {
  const std::string kept = record_.text().has_keeper() ? ", keeper noted" : "";
  doings_.take_step("end as " + std::to_string(wait_status) + " in " +
                        std::string(to_string(record_.phase())) + kept,
                    [this] {
                      doings_.state = -1;
                      doings_.found = Found::kGone;
                    });
  return {};
}

Result<void> StandInDeputy::let_attach(const Asker& /*asker*/) const {
  return refused_unless(doings_.may_be_decided);
}

Result<void> StandInDeputy::let_signal(const Asker& /*asker*/) const {
  return refused_unless(doings_.may_be_decided);
}

Result<void> StandInKeeper::free_all() {
  doings_.take_step("free all of keeper");
  return {};
}

Result<void> StandInKeeper::close_stream(std::uint32_t id) {
  doings_.take_step("close stream " + std::to_string(id) + " of keeper");
  return {};
}

void StandInKeeper::fetch_streams(RealFiles& files, wire::HomeRelayState& /*noted*/) const {
  files.fetch_streams_left(::getpid(), doings_.image);
}

MoveOutcome StandInLeaving::attempt() {
  const bool runs = doings_.outcome == MoveOutcome::kCommitted;
  if (doings_.outcome == MoveOutcome::kInDoubt && doings_.fate == Fate::kRuns) {
    doings_.fate = Fate::kUnknown;
  }
  wire::Outgoing& outgoing = *record_.text().mutable_outgoing();
  const SessionId session = test_session();
  outgoing.set_session(session.data(), session.size());
  outgoing.set_destination("tcp://b:7070");
  outgoing.set_mode("lazy");
  outgoing.set_confirmed(runs);
  static_cast<void>(files_.fetch_streams(::getpid(), doings_.image));
  record_.keep();
  doings_.take_step("attempt");
  return doings_.outcome;
}

Departed StandInLeaving::depart() {
  return {std::make_unique<StandInMove>(doings_, record_),
          std::make_unique<StandInDeputy>(doings_, record_), nullptr};
}

void StandInLeaving::tell_not_moved(EventSink& client, MoveOutcome outcome) {
  client.finish_failed(outcome == MoveOutcome::kRefused ? MIGRATE_REFUSED : MIGRATE_FAILED,
                       make_error(ErrorCode::kRetry, "move"));
}

Result<Found> StandInRemains::find() {
  if (!doings_.finds) {
    return fail(make_error(ErrorCode::kSystem, "find"));
  }
  return doings_.found;
}

Result<Departed> StandInRemains::go_on() {
  Departed departed;
  departed.move = std::make_unique<StandInMove>(doings_, record_);
  if (doings_.found == Found::kParked) {
    departed.deputy = std::make_unique<StandInDeputy>(doings_, record_);
  } else if (record_.text().has_keeper() && doings_.keeper_state >= 0) {
    departed.keeper = std::make_unique<StandInKeeper>(doings_);
  }
  return departed;
}

Result<wire::Verdict> StandInRemains::ask_verdict() {
  doings_.take_step("ask verdict");
  if (doings_.verdicts.empty()) {
    return fail(make_error(ErrorCode::kPeerLost, "ask"));
  }
  auto verdict = std::move(doings_.verdicts.front());
  doings_.verdicts.pop_front();
  return verdict;
}

}  // namespace migrate::home_testing
