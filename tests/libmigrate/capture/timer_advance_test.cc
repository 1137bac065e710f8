#include "libmigrate/capture/timer_advance.h"

#include <gtest/gtest.h>
#include <time.h>

#include <cstdint>
#include <limits>

#include "libmigrate/image/only_process.h"

namespace migrate {
namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kRead = 5'000 * kMillisecond;          // by the source's clock
constexpr std::int64_t kOffset = -3'000'000'000;               // the process's minus the source's
constexpr std::int64_t kThen = 2'000 * std::int64_t{1000000};  // the same moment for the process

/// What is left of a timer of which `value_ms` were left, `after_ms` later.
wire::OpenFile timerfd_after(std::uint64_t value_ms, std::uint64_t interval_ms, std::uint64_t ticks,
                             std::int64_t after_ms) {
  wire::Image image;
  mutable_only_process(image).set_clock_offset_ns(kOffset);
  wire::OpenFile& file = *image.mutable_objects()->add_files();
  file.set_kind(wire::OpenFile::TIMERFD);
  file.set_value_ns(value_ms * kMillisecond);
  file.set_interval_ns(interval_ms * kMillisecond);
  file.set_ticks(ticks);
  file.set_read_ns(kRead);
  advance_timers(*image.mutable_objects(), mutable_only_process(image),
                 kThen + after_ms * std::int64_t{kMillisecond});
  return image.objects().files(0);
}

std::uint64_t posix_after(int clock, std::uint64_t value_ms, std::int64_t after_ms) {
  wire::Image image;
  mutable_only_process(image).set_clock_offset_ns(kOffset);
  mutable_only_process(image).set_timers_read_ns(kRead);
  wire::PosixTimer& timer = *mutable_only_process(image).add_posix_timers();
  timer.set_clock(clock);
  timer.set_value_ns(value_ms * kMillisecond);
  advance_timers(*image.mutable_objects(), mutable_only_process(image),
                 kThen + after_ms * std::int64_t{kMillisecond});
  return only_process(image).posix_timers(0).value_ns();
}

TEST(TimerAdvance, TakesTheTimeOff) {
  EXPECT_EQ(timerfd_after(100, 0, 0, 30).value_ns(), 70 * kMillisecond);
  EXPECT_EQ(posix_after(CLOCK_MONOTONIC, 100, 30), 70 * kMillisecond);
  EXPECT_EQ(posix_after(CLOCK_REALTIME, 100, 30), 70 * kMillisecond);
}

TEST(TimerAdvance, EndsAtOnceWhatIsOver) {
  EXPECT_EQ(timerfd_after(10, 0, 0, 30).value_ns(), 1U);
  EXPECT_EQ(timerfd_after(10, 0, 0, 30).ticks(), 0U);
  EXPECT_EQ(posix_after(CLOCK_MONOTONIC, 10, 10), 1U);
}

TEST(TimerAdvance, LeavesUnarmedTimersAlone) {
  EXPECT_EQ(timerfd_after(0, 0, 0, 30).value_ns(), 0U);
  EXPECT_EQ(timerfd_after(0, 20, 3, 30).value_ns(), 0U);  // Expired, and stands until it is read.
  EXPECT_EQ(posix_after(CLOCK_MONOTONIC, 0, 30), 0U);
}

TEST(TimerAdvance, KeepsTheRhythmOfAPeriodicTimerfd) {
  const wire::OpenFile once = timerfd_after(10, 20, 2, 10);
  EXPECT_EQ(once.ticks(), 3U);
  EXPECT_EQ(once.value_ns(), 20 * kMillisecond);
  const wire::OpenFile often = timerfd_after(10, 20, 2, 75);  // at 10, 30, 50 and 70
  EXPECT_EQ(often.ticks(), 6U);
  EXPECT_EQ(often.value_ns(), 15 * kMillisecond);
}

TEST(TimerAdvance, LeavesProcessorTimeAlone) {
  EXPECT_EQ(posix_after(CLOCK_PROCESS_CPUTIME_ID, 100, 30), 100 * kMillisecond);
  EXPECT_EQ(posix_after(-6, 100, 30), 100 * kMillisecond);  // of a thread
}

TEST(TimerAdvance, OfIntervalTimersOnlyTheRealOneGoesOn) {
  wire::Image image;
  mutable_only_process(image).set_timers_read_ns(kRead);
  for (int i = 0; i < 3; ++i) {
    mutable_only_process(image).add_interval_timers()->set_value_us(50'000);
  }
  advance_timers(*image.mutable_objects(), mutable_only_process(image),
                 static_cast<std::int64_t>(kRead + 20 * kMillisecond));
  EXPECT_EQ(only_process(image).interval_timers(0).value_us(), 30'000U);
  EXPECT_EQ(only_process(image).interval_timers(1).value_us(), 50'000U);
  EXPECT_EQ(only_process(image).interval_timers(2).value_us(), 50'000U);
}

TEST(TimerAdvance, ShortensWaits) {
  wire::Image image;
  mutable_only_process(image).set_timers_read_ns(kRead);
  mutable_only_process(image).add_threads()->set_wait_remaining_ns(50 * kMillisecond);
  mutable_only_process(image).add_threads();  // does not wait
  mutable_only_process(image).add_threads()->set_wait_remaining_ns(5 * kMillisecond);
  advance_timers(*image.mutable_objects(), mutable_only_process(image),
                 static_cast<std::int64_t>(kRead + 20 * kMillisecond));
  EXPECT_EQ(only_process(image).threads(0).wait_remaining_ns(), 30 * kMillisecond);
  EXPECT_EQ(only_process(image).threads(1).wait_remaining_ns(), 0U);
  EXPECT_EQ(only_process(image).threads(2).wait_remaining_ns(), 1U);
}

TEST(TimerAdvance, IsDoneOnce) {
  wire::Image image;
  mutable_only_process(image).set_timers_read_ns(kRead);
  mutable_only_process(image).add_interval_timers()->set_value_us(50'000);
  advance_timers(*image.mutable_objects(), mutable_only_process(image),
                 static_cast<std::int64_t>(kRead + 20 * kMillisecond));
  advance_timers(*image.mutable_objects(), mutable_only_process(image),
                 static_cast<std::int64_t>(kRead + 40 * kMillisecond));
  EXPECT_EQ(only_process(image).interval_timers(0).value_us(), 30'000U);
}

TEST(TimerAdvance, NothingGoesBackwardsWhateverThePeerSays) {
  EXPECT_EQ(timerfd_after(100, 0, 0, -500).value_ns(), 100 * kMillisecond);
  wire::Image image;
  mutable_only_process(image).set_timers_read_ns(std::numeric_limits<std::uint64_t>::max());
  mutable_only_process(image).set_clock_offset_ns(std::numeric_limits<std::int64_t>::min());
  mutable_only_process(image).add_interval_timers()->set_value_us(
      std::numeric_limits<std::uint64_t>::max());
  wire::OpenFile& file = *image.mutable_objects()->add_files();
  file.set_kind(wire::OpenFile::TIMERFD);
  file.set_ticks(std::numeric_limits<std::uint64_t>::max());
  file.set_value_ns(1);
  file.set_interval_ns(1);
  file.set_read_ns(1);
  advance_timers(*image.mutable_objects(), mutable_only_process(image), kThen);
  EXPECT_GE(only_process(image).interval_timers(0).value_us(), 1U);
  EXPECT_GE(image.objects().files(0).value_ns(), 1U);
}

}  // namespace
}  // namespace migrate
