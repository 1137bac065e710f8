#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "libmigrate/home/departed.h"
#include "libmigrate/home/remains.h"

namespace migrate::home_testing {

/// Thrown where a test has the worker die.
struct WorkerDied {};

/// What the stand-ins of one process are and do, over all workers that it has. What they were told
/// to do is logged; a test may have the worker die before or after one of these steps.
struct Doings {
  std::vector<std::string> log;
  std::string die_before;
  std::string die_after;
  /// What happens in the middle of a step.
  std::pair<std::string, std::function<void()>> in_step;

  // The move.
  MoveOutcome outcome = MoveOutcome::kCommitted;
  Fate fate = Fate::kRuns;
  Fate answer = Fate::kUnknown;  ///< To whoever asks once more.
  int wait_status = 0;
  std::string waits_for;
  bool done = false;
  bool can_resume = true;
  int control_fd = -1;

  // What is parked.
  int state = 0;  ///< Of the deputy: 0, a signal that stopped it, -1: it has ended.
  int keeper_state = 0;
  int signal_pipe = -1;
  bool can_settle = true;
  bool can_make_keeper = true;
  bool may_be_decided = true;
  wire::Image image;  ///< With the relayed descriptors, of this process.

  // Those of a dead worker.
  Found found = Found::kParked;
  bool finds = true;
  std::deque<Result<wire::Verdict>> verdicts;

  bool has(const std::string& step) const;
  /// Logs a step, carries it out, dies where it shall.
  void take_step(
      const std::string& step, const std::function<void()>& act = [] {});
};

/// The id of the session of every move.
SessionId test_session();

/// A move, by what `doings` says of it.
class StandInMove : public Departure {
 public:
  StandInMove(Doings& doings, HomeRecord& record) : doings_(doings), record_(record) {}

  const SessionId& session() const override { return session_; }
  std::string destination() const override { return "tcp://b:7070"; }
  const Error& error() const override { return error_; }
  Fate fate() const override { return doings_.fate; }
  int wait_status() const override { return doings_.wait_status; }
  const std::string& waits_for() const override { return doings_.waits_for; }
  std::int64_t waits_since_us() const override { return 0; }
  bool done() const override { return doings_.done; }
  std::uint64_t owed_pages() const override { return doings_.done ? 0 : 7; }
  int control_fd() const override { return doings_.control_fd; }
  Original handle() override { return Original::kHere; }
  void ask_once_more() override;
  void confirm_runs() override;
  Result<void> resume_here() override;
  void stop_serving() override { doings_.take_step("stop serving"); }
  Result<void> hide() override { return {}; }
  nlohmann::json result() const override { return {{"id", to_hex(session_)}, {"pid", 1}}; }
  nlohmann::json progress_event() const override { return {{"event", "progress"}}; }

 private:
  Doings& doings_;
  HomeRecord& record_;
  const SessionId session_ = test_session();
  const Error error_ = make_error(ErrorCode::kPeerLost, "hear from the destination");
};

/// The deputy: this process, whose descriptors the streams are.
class StandInDeputy : public ParkedDeputy {
 public:
  StandInDeputy(Doings& doings, HomeRecord& record) : doings_(doings), record_(record) {}

  pid_t process() const override { return record_.pid(); }
  Result<int> check_state() override { return doings_.state; }
  Result<void> free_all() override;
  Result<void> close_stream(std::uint32_t id) override;
  void fetch_streams(RealFiles& files, wire::HomeRelayState& noted) const override;
  int signal_pipe() const override { return doings_.signal_pipe; }
  void send(int signal) const override;
  Result<AcceptedSocket> accept(std::uint32_t /*id*/, std::uint32_t /*descriptor*/,
                                const std::set<std::uint32_t>& /*accepted*/) override {
    return fail(make_error(ErrorCode::kNotFound, "accept"));
  }
  Result<AcceptedSocket> listen(const wire::RelayListening& /*wanted*/,
                                const std::set<std::uint32_t>& /*accepted*/) override {
    return fail(make_error(ErrorCode::kRetry, "listen"));
  }
  Result<AcceptedSocket> make_socket(int /*type*/, const SocketName& /*local*/,
                                     const SocketName* /*peer*/,
                                     const std::set<std::uint32_t>& /*accepted*/) override {
    return fail(make_error(ErrorCode::kRetry, "make a socket"));
  }
  Result<AcceptedSocket> make_journal(const std::set<std::uint32_t>& /*accepted*/) override {
    return fail(make_error(ErrorCode::kRetry, "make a journal"));
  }
  Result<void> close_accepted(std::uint32_t /*descriptor*/) override { return {}; }
  Result<void> settle(const std::set<std::uint32_t>& accepted) override;
  void fetch_shared(RealFiles& /*files*/) const override {}
  Result<std::unique_ptr<ParkedKeeper>> make_keeper(
      const std::set<std::uint32_t>& accepted) override;
  Result<void> end_as(int wait_status) override;
  Result<void> let_attach(const Asker& asker) const override;
  Result<void> let_signal(const Asker& asker) const override;

 private:
  Doings& doings_;
  HomeRecord& record_;
};

class StandInKeeper : public ParkedKeeper {
 public:
  explicit StandInKeeper(Doings& doings) : doings_(doings) {}

  pid_t process() const override { return 4711; }
  Result<int> check_state() override { return doings_.keeper_state; }
  Result<void> free_all() override;
  Result<void> close_stream(std::uint32_t id) override;
  void fetch_streams(RealFiles& files, wire::HomeRelayState& noted) const override;
  Result<AcceptedSocket> accept(std::uint32_t /*id*/, std::uint32_t /*descriptor*/,
                                const std::set<std::uint32_t>& /*accepted*/) override {
    return fail(make_error(ErrorCode::kNotFound, "accept"));
  }
  Result<AcceptedSocket> listen(const wire::RelayListening& /*wanted*/,
                                const std::set<std::uint32_t>& /*accepted*/) override {
    return fail(make_error(ErrorCode::kRetry, "listen"));
  }
  Result<AcceptedSocket> make_socket(int /*type*/, const SocketName& /*local*/,
                                     const SocketName* /*peer*/,
                                     const std::set<std::uint32_t>& /*accepted*/) override {
    return fail(make_error(ErrorCode::kRetry, "make a socket"));
  }
  Result<AcceptedSocket> make_journal(const std::set<std::uint32_t>& /*accepted*/) override {
    return fail(make_error(ErrorCode::kRetry, "make a journal"));
  }
  Result<void> close_accepted(std::uint32_t /*descriptor*/) override { return {}; }
  void end() override { doings_.take_step("keeper ends"); }

 private:
  Doings& doings_;
};

class StandInLeaving : public HomeLeaving {
 public:
  StandInLeaving(Doings& doings, HomeRecord& record, RealFiles& files)
      : doings_(doings), record_(record), files_(files) {}

  MoveOutcome attempt() override;
  Departed depart() override;
  void tell_not_moved(EventSink& client, MoveOutcome outcome) override;

 private:
  Doings& doings_;
  HomeRecord& record_;
  RealFiles& files_;
};

class StandInRemains : public HomeRemains {
 public:
  StandInRemains(Doings& doings, HomeRecord& record) : doings_(doings), record_(record) {}

  Result<Found> find() override;
  Result<bool> find_keeper() override { return doings_.keeper_state >= 0; }
  Result<Departed> go_on() override;
  Result<wire::Verdict> ask_verdict() override;

 private:
  Doings& doings_;
  HomeRecord& record_;
};

}  // namespace migrate::home_testing
