#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "libmigrate/guest/onward.h"
#include "libmigrate/guest/owed_pages.h"

namespace migrate {

/// A cell whose init says what the test wants, and that notes what the worker asks of it.
class StandInCell final : public CellControl {
 public:
  explicit StandInCell(pid_t seed) : seed_(seed) {}

  pid_t seed() const override { return seed_; }
  int event_fd() const override { return -1; }
  Result<CellEvent> read_event() override {
    if (events.empty() && ended) {
      return fail(make_error(ErrorCode::kPeerLost, "read an event"));
    }
    if (events.empty()) {
      return fail(make_error(ErrorCode::kRetry, "read an event"));
    }
    const CellEvent event = events.front();
    events.pop_front();
    return event;
  }
  Result<void> keep(Kept what, int) override {
    if (keeps_to_fail > 0 || what.kind == kind_to_fail) {
      keeps_to_fail = std::max(keeps_to_fail - 1, 0);
      on_failed_keep();
      return fail(make_error(ErrorCode::kSystem, "keep a descriptor"));
    }
    kept.push_back(what);
    on_keep(what);
    return {};
  }
  Result<void> drop(Kept what) override {
    if (drops_to_fail > 0) {
      --drops_to_fail;
      return fail(make_error(ErrorCode::kSystem, "drop a descriptor"));
    }
    dropped.push_back(what);
    return {};
  }
  using CellControl::signal_seed;
  void signal_seed(int signal, siginfo_t*) override { signals.push_back(signal); }
  void signal_seed_as(int signal, pid_t, uid_t) override { signals.push_back(signal); }
  Result<PseudoTerminal> make_terminal(unsigned wanted) override {
    return make_pseudo_terminal("/dev/pts/ptmx", wanted);
  }
  Result<PseudoTerminal> take_terminal() override { return make_terminal(0); }
  Result<void> set_foreground(bool in_foreground) override {
    foregrounds.push_back(in_foreground);
    return {};
  }
  void end() override {
    ended = true;
    on_end();
  }
  bool end_and_wait() override {
    end();
    return ends;
  }

  std::deque<CellEvent> events;
  std::vector<Kept> kept;
  std::vector<Kept> dropped;
  std::vector<int> signals;
  std::vector<bool> foregrounds;
  std::function<void(Kept what)> on_keep = [](Kept) {};
  std::function<void()> on_failed_keep = [] {};
  std::function<void()> on_end = [] {};
  int keeps_to_fail = 0;
  std::optional<Kept::Kind> kind_to_fail;  // that is never kept
  int drops_to_fail = 0;
  bool ended = false;
  bool ends = true;  // when it is ended

 private:
  const pid_t seed_;
};

/// Pages of which the test says how many are owed.
class StandInPages final : public OwedPages {
 public:
  void take(Purpose purpose, std::unique_ptr<Channel>) override { taken.push_back(purpose); }
  void collect_poll_fds(std::vector<pollfd>&) override {}
  void follow(bool) override {}
  void stop() override { stopped = true; }
  bool done() const override { return owed_pages == 0; }
  bool waits() const override { return lost; }
  std::uint64_t owed() const override { return owed_pages; }
  std::uint64_t owed_to_first() const override { return owed_pages; }
  bool first_gone() const override { return false; }
  wire::Progress progress() const override {
    wire::Progress progress;
    progress.set_owed_pages(owed_pages);
    return progress;
  }

  std::uint64_t owed_pages = 5;
  bool lost = false;
  bool stopped = false;
  std::vector<Purpose> taken;
};

/// A move of which the test says what the destination says.
class StandInDeparture final : public Departure {
 public:
  explicit StandInDeparture(const std::int64_t& clock) : clock_(clock) {}

  const SessionId& session() const override { return session_; }
  std::string destination() const override { return "hostC:7070"; }
  const Error& error() const override { return error_; }
  Fate fate() const override { return fate_now; }
  int wait_status() const override { return 0; }
  const std::string& waits_for() const override { return waits; }
  std::int64_t waits_since_us() const override { return waits_since; }
  bool done() const override { return owes_nothing; }
  std::uint64_t owed_pages() const override { return owes_nothing ? 0 : 7; }
  int control_fd() const override { return -1; }
  Original handle() override {
    ++handled;
    return parked_gone ? Original::kGone : Original::kHere;
  }
  void ask_once_more() override {
    ++asked;
    fate_now = fate_when_asked;
  }
  void confirm_runs() override { fate_now = Fate::kRuns; }
  Result<void> resume_here() override {
    ++resumed;
    return {};
  }
  void stop_serving() override {}
  Result<void> hide() override {
    ++hidden;
    return {};
  }
  nlohmann::json result() const override { return {{"id", "moved"}}; }
  nlohmann::json progress_event() const override { return {{"event", "progress"}}; }

  /// Nothing is heard of the destination any more.
  void lose() {
    waits = "hostC:7070: nothing came";
    waits_since = clock_;
  }

  Fate fate_now = Fate::kRuns;
  Fate fate_when_asked = Fate::kUnknown;
  std::string waits;
  std::int64_t waits_since = 0;
  bool owes_nothing = false;
  bool parked_gone = false;
  int handled = 0;
  int asked = 0;
  int resumed = 0;
  int hidden = 0;

 private:
  const std::int64_t& clock_;
  const SessionId session_{};
  const Error error_ = make_error(ErrorCode::kPeerLost, "hear from the destination");
};

/// Gives out the move that the test has made.
class StandInMoves final : public OnwardMoves {
 public:
  bool answers_at_once(const MoveRequest& /*request*/, EventSink& /*sink*/) override {
    return false;
  }
  std::unique_ptr<OnwardMove> begin(const MoveRequest& request, EventSink sink) override {
    begun.push_back(request.destination);
    if (!next) {
      sink.finish_failed(MIGRATE_REFUSED, make_error(ErrorCode::kRefused, "move"));
      return nullptr;
    }
    return std::make_unique<OnwardMove>(OnwardMove{std::move(sink), request.wait, std::move(next)});
  }
  void check(const CheckRequest& request, EventSink sink) override {
    checked.push_back(request.destination);
    sink.finish(MIGRATE_DONE, {{"refusals", nlohmann::json::array()}});
  }

  std::unique_ptr<StandInDeparture> next;
  std::vector<std::string> begun;
  std::vector<std::string> checked;
};

}  // namespace migrate
