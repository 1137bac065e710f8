#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "libmigrate/image/only_process.h"
#include "libmigrate/move/handover.h"
#include "tests/libmigrate/move/stand_ins.h"

namespace migrate::handover_testing {

/// A handover to a stand-in, over memory channels, with the test's clock.
class HandoverTest : public testing::Test {
 protected:
  static constexpr std::int64_t kMillisecond = 1000;
  static constexpr std::int64_t kSecond = 1'000'000;

  HandoverTest() : report_({}, [this] { return now_us_; }) {}

  void make(const char* mode = "lazy", PushLimits push = {}) {
    HandoverOptions options;
    options.destination = {.scheme = "tcp", .host = "there", .port = 1};
    options.plan = parse_offered_mode(mode).value();
    options.transport = parse_page_transport("tcp").value();
    options.context = &context_;
    options.push = push;
    options.patience = {.reply_ms = 20,
                        .restored_ms = restored_ms_,
                        .all_pages_ms = 40,
                        .running_ms = 20,
                        .verdict_ms = 20,
                        .once_more_ms = 2000};
    Handover::World world;
    world.connect = [this](Purpose purpose, const SessionId& session) {
      attempts_us_.push_back(now_us_);
      return there_.connect(purpose, session);
    };
    world.note = [this](const wire::Outgoing& outgoing) -> Result<void> {
      noted_.push_back(outgoing);
      return notes_ ? Result<void>() : fail(make_error(ErrorCode::kSystem, "note"));
    };
    world.still_wanted = [this]() -> Result<void> {
      return is_wanted_ ? Result<void>() : fail(make_error(ErrorCode::kCancelled, "move"));
    };
    world.clock = [this] { return now_us_ += tick_us_; };
    handover_ = std::make_unique<Handover>(options, world, memory_, report_);
  }

  Result<void> make_offer() {
    MIGRATE_TRY(handover_->open());
    return handover_->offer({}, {});
  }
  Result<void> send_process() {
    wire::Image image;
    mutable_only_process(image).set_clock_offset_ns(1);
    std::string bytes = image.SerializeAsString();
    MIGRATE_TRY(handover_->send_image(bytes, {}));
    return handover_->serve();
  }
  /// Up to the moment before Run; the destination takes all.
  void hand_over(const char* mode = "lazy") {
    make(mode);
    there_.says = {offer_reply(), connected(), restored()};
    ASSERT_TRUE(make_offer());
    ASSERT_TRUE(handover_->connect_pages());
    ASSERT_TRUE(send_process());
    if (std::string(mode) == "eager") {
      handover_->push();
    }
    ASSERT_TRUE(handover_->await_restored());
  }
  /// The process runs there.
  void run(const char* mode = "lazy") {
    hand_over(mode);
    there_.say(running());
    ASSERT_TRUE(handover_->run({}));
    ASSERT_TRUE(there_.hears(Body::kRun));
  }
  /// Run was sent, and the connection broke before an answer came.
  void doubt(const char* mode = "lazy") {
    hand_over(mode);
    there_.cut_control();
    ASSERT_FALSE(handover_->run({}));
  }
  void adopt(bool confirmed, bool done, Original original) {
    make();
    wire::Outgoing outgoing;
    outgoing.set_session(std::string(16, 's'));
    outgoing.set_destination("tcp://there:1");
    outgoing.set_incarnation("first");
    outgoing.set_confirmed(confirmed);
    outgoing.set_done(done);
    handover_->adopt(outgoing, original);
  }

  void pass(std::int64_t time_us) { now_us_ += time_us; }
  /// Lets the time pass after which another connection is tried, and tries.
  void reconnect() {
    pass(6 * kSecond);
    handover_->handle();
  }
  /// A new connection on which the destination says that.
  void reconnect_and_hear(const wire::ControlMessage& message) {
    there_.says = {message};
    reconnect();
    ASSERT_EQ(handover_->phase(), HandoverPhase::kAsked);
    handover_->handle();
  }
  /// Handles what comes until `reached`: threads of the feed have a part in it.
  bool handle_until(const std::function<bool()>& reached) {
    for (int look = 0; look < StandInDestination::kLookMs; ++look) {
      handover_->handle();
      if (reached()) {
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
  /// Takes all that is pushed, and looks whether what it confirms is handed on.
  void expect_pushes() {
    there_.take_pushes();
    EXPECT_GE(there_.confirmed_pages, StandInMemory::kPages - 1);
    EXPECT_TRUE(handle_until([this] { return memory_.confirmed_pages == there_.confirmed_pages; }));
  }
  const std::string& waits_for() const { return handover_->outage().reason(); }

  WorkerContext context_;
  std::int64_t now_us_ = kSecond;
  std::int64_t tick_us_ = 0;  // that pass with each look at the clock
  MoveReport report_;
  StandInMemory memory_;
  StandInDestination there_;
  std::vector<wire::Outgoing> noted_;
  std::vector<std::int64_t> attempts_us_;
  bool is_wanted_ = true;
  int restored_ms_ = 20;
  bool notes_ = true;
  std::unique_ptr<Handover> handover_;
};

}  // namespace migrate::handover_testing
