#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "libmigrate/advisor/past_moves.h"
#include "libmigrate/pages/drain_estimate.h"
#include "libmigrate/proto/control.pb.h"

namespace migrate {

/// What is told of one move: how long its phases took, what its pages came to, when nothing will be
/// owed any more. One more counter is one more line of the table in move_report.cc. All times are
/// in microseconds. Owned by one thread, the source worker's.
class MoveReport {
 public:
  /// `deadline`: after which the source is to owe nothing; 0: none. `clock` only grows.
  explicit MoveReport(std::chrono::milliseconds deadline,
                      std::function<std::int64_t()> clock = now_us)
      : deadline_(deadline), clock_(std::move(clock)) {}

  /// A new attempt begins: what an earlier one took is forgotten.
  void begin();
  std::int64_t begun_us() const { return begun_us_; }
  /// The phase `name` began at `since_us` and has just ended; `less_us` of that was another's.
  void end_phase(const char* name, std::int64_t since_us, std::int64_t less_us = 0);
  /// What a phase took; 0 if there was none.
  std::int64_t phase_us(const char* name) const;

  /// What was sent while it ran here (see CopyAhead::report()).
  void note_rounds(nlohmann::json rounds) { rounds_ = std::move(rounds); }
  /// It runs there from now on, or may.
  void note_running() { running_us_ = clock_(); }
  /// It was frozen since then, until note_running().
  void note_frozen_since(std::int64_t since_us) { freeze_us_ = running_us_ - since_us; }
  /// The image that is sent within the freeze has this size.
  void note_image(std::uint64_t bytes) { image_bytes_ = bytes; }
  /// What the destination reports.
  void note_progress(const wire::Progress& progress);
  /// Nothing is owed any more. `wire_bytes`: sent in all.
  void note_done(std::uint64_t wire_bytes);
  bool done() const { return independent_us_ != 0; }
  const wire::Progress& progress() const { return progress_; }
  /// What the move came to, once it is done; its plan, threads and limits are not known here.
  MoveFigures figures() const;
  /// True once: when the deadline has passed and something is owed still.
  bool misses_deadline();

  /// The members that a result has of this, and a progress event. `wire_bytes`: sent so far, which
  /// no longer counts after note_done().
  void add_to(nlohmann::json& result, std::uint64_t wire_bytes) const;
  nlohmann::json progress_event(std::uint64_t wire_bytes) const;

 private:
  nlohmann::json expected_independence() const;  // null while it cannot be said

  const std::chrono::milliseconds deadline_;
  const std::function<std::int64_t()> clock_;
  nlohmann::json phases_ = nlohmann::json::object();
  nlohmann::json rounds_;  // null: none were made
  wire::Progress progress_;
  DrainEstimate drain_;
  std::int64_t begun_us_ = 0;
  std::int64_t running_us_ = 0;
  std::int64_t independent_us_ = 0;  // when nothing was owed any more; 0: something is
  std::int64_t freeze_us_ = 0;
  std::uint64_t image_bytes_ = 0;
  std::uint64_t final_wire_bytes_ = 0;
  bool deadline_missed_ = false;
};

}  // namespace migrate
