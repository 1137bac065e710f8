#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <limits>

#include "base/file.h"
#include "tests/libmigrate/carriers/hosts.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kMillisecond = 1'000'000;

UniqueFd timer(int clock, timespec first, timespec interval, int flags = 0) {
  UniqueFd fd(::timerfd_create(clock, flags));
  const itimerspec setting{interval, first};
  EXPECT_EQ(::timerfd_settime(fd.get(), 0, &setting, nullptr), 0);
  return fd;
}

bool is_readable(int fd, int timeout_ms) {
  pollfd polled{fd, POLLIN, 0};
  return ::poll(&polled, 1, timeout_ms) == 1;
}

std::uint64_t ticks_of(int fd) {
  std::uint64_t ticks = 0;
  EXPECT_EQ(::read(fd, &ticks, sizeof ticks), static_cast<ssize_t>(sizeof ticks));
  return ticks;
}

/// The timer, advanced as it is after a freeze of `elapsed_ns`, and made anew.
UniqueFd carried(const UniqueFd& timer, std::uint64_t elapsed_ns) {
  test::Source source;
  EXPECT_EQ(source.find(timer.get()), 0);
  EXPECT_EQ(test::flaw_in(source.objects()), "");
  wire::OpenFile& file = source.file(0);
  EXPECT_EQ(file.kind(), wire::OpenFile::TIMERFD);
  carriers::carrier_of(file.kind()).advance(file, file.read_ns() + elapsed_ns);
  test::Destination destination(source.objects());
  auto made = destination.make(file);
  EXPECT_TRUE(made);
  return made ? std::move(*made) : UniqueFd();
}

std::uint64_t left_of(const UniqueFd& timer) {
  itimerspec now{};
  EXPECT_EQ(::timerfd_gettime(timer.get(), &now), 0);
  return static_cast<std::uint64_t>(now.it_value.tv_sec) * kSecond +
         static_cast<std::uint64_t>(now.it_value.tv_nsec);
}

TEST(TimerfdCarrier, GoesOnWithWhatIsLeft) {
  const UniqueFd source = timer(CLOCK_MONOTONIC, {100, 0}, {7, 5}, TFD_NONBLOCK);
  const UniqueFd made = carried(source, 40 * kSecond);
  EXPECT_LE(left_of(made), 60 * kSecond);
  EXPECT_GT(left_of(made), 50 * kSecond);
  test::Source again;
  ASSERT_EQ(again.find(made.get()), 0);
  EXPECT_EQ(again.file(0).interval_ns(), 7 * kSecond + 5);
  EXPECT_EQ(again.file(0).clock(), static_cast<std::uint32_t>(CLOCK_MONOTONIC));
  EXPECT_NE(again.file(0).flags() & O_NONBLOCK, 0U);
}

TEST(TimerfdCarrier, OneThatIsOverByThenExpiresAtOnce) {
  const UniqueFd made = carried(timer(CLOCK_REALTIME, {100, 0}, {0, 0}), 200 * kSecond);
  ASSERT_TRUE(is_readable(made.get(), 1000));
  EXPECT_EQ(ticks_of(made.get()), 1U);
  EXPECT_FALSE(is_readable(made.get(), 0));
}

TEST(TimerfdCarrier, AnUnarmedOneStaysSo) {
  const UniqueFd made = carried(timer(CLOCK_BOOTTIME, {0, 0}, {0, 0}), kSecond);
  EXPECT_EQ(left_of(made), 0U);
  EXPECT_FALSE(is_readable(made.get(), 0));
}

TEST(TimerfdCarrier, TicksThatNobodyHasReadTravel) {
  const UniqueFd source = timer(CLOCK_MONOTONIC, {0, 1}, {1000, 0});
  ASSERT_TRUE(is_readable(source.get(), 1000));
  const UniqueFd made = carried(source, 0);
  ASSERT_TRUE(is_readable(made.get(), 1000));
  EXPECT_EQ(ticks_of(made.get()), 1U);
  EXPECT_GT(left_of(made), 900 * kSecond) << "it goes on";
}

TEST(TimerfdCarrier, APeriodicOneCountsWhatItMissed) {
  const UniqueFd made = carried(timer(CLOCK_MONOTONIC, {10, 0}, {20, 0}), 75 * kSecond);
  ASSERT_TRUE(is_readable(made.get(), 1000));
  EXPECT_EQ(ticks_of(made.get()), 4U) << "at 10, 30, 50 and 70";
  EXPECT_LE(left_of(made), 15 * kSecond);
  EXPECT_GT(left_of(made), 10 * kSecond);
}

// One that is cancelled when the clock is set, and one of a clock that wakes the machine.
TEST(TimerfdCarrier, AnAbsoluteOneStaysAbsolute) {
  const std::string absolute = "settime flags: 03";
  UniqueFd source(::timerfd_create(CLOCK_REALTIME, 0));
  timespec now{};
  ASSERT_EQ(::clock_gettime(CLOCK_REALTIME, &now), 0);
  const itimerspec setting{{0, 0}, {now.tv_sec + 1000, 0}};
  ASSERT_EQ(::timerfd_settime(source.get(), TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &setting,
                              nullptr),
            0);
  const UniqueFd made = carried(source, 0);
  const std::string details = read_file("/proc/self/fdinfo/" + std::to_string(made.get())).value();
  EXPECT_NE(details.find(absolute), std::string::npos) << details;
  EXPECT_GT(left_of(made), 900 * kSecond);
  EXPECT_LE(left_of(made), 1000 * kSecond);
  UniqueFd alarm(::timerfd_create(CLOCK_BOOTTIME_ALARM, 0));
  if (!alarm.valid()) {
    GTEST_SKIP() << "no right to wake the machine";
  }
  ASSERT_EQ(::clock_gettime(CLOCK_BOOTTIME, &now), 0);
  const itimerspec later{{0, 0}, {now.tv_sec + 1000, 0}};
  ASSERT_EQ(::timerfd_settime(alarm.get(), TFD_TIMER_ABSTIME, &later, nullptr), 0);
  const UniqueFd again = carried(alarm, 0);
  EXPECT_FALSE(is_readable(again.get(), 0));
  EXPECT_GT(left_of(again), 900 * kSecond);
}

TEST(TimerfdCarrier, IsAdvancedOnce) {
  wire::OpenFile file;
  file.set_value_ns(100 * kMillisecond);
  file.set_read_ns(kSecond);
  const auto advance = carriers::carrier_of(wire::OpenFile::TIMERFD).advance;
  advance(file, kSecond + 30 * kMillisecond);
  EXPECT_EQ(file.value_ns(), 70 * kMillisecond);
  advance(file, kSecond + 60 * kMillisecond);
  EXPECT_EQ(file.value_ns(), 70 * kMillisecond);
}

TEST(TimerfdCarrier, WhateverAPeerSaysOfTimeCanBeMade) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  wire::Objects objects;
  wire::OpenFile& file = *objects.add_files();
  file.set_kind(wire::OpenFile::TIMERFD);
  file.set_clock(CLOCK_MONOTONIC);
  for (const std::uint64_t value : {std::uint64_t{0}, std::uint64_t{1}, kMost / 4, kMost}) {
    file.set_value_ns(value);
    file.set_interval_ns(value);
    file.set_read_ns(1);
    carriers::carrier_of(file.kind()).advance(file, kMost / 2);
    test::Destination destination(objects);
    EXPECT_TRUE(destination.make(file)) << value;
  }
}

TEST(TimerfdCarrier, AClockThatTimersCannotHaveIsMalformed) {
  wire::Objects objects;
  wire::OpenFile& file = *objects.add_files();
  file.set_kind(wire::OpenFile::TIMERFD);
  for (const int clock : {CLOCK_PROCESS_CPUTIME_ID, CLOCK_MONOTONIC_RAW, CLOCK_TAI, 99, -1}) {
    file.set_clock(static_cast<std::uint32_t>(clock));
    EXPECT_NE(test::flaw_in(objects), "") << clock;
    EXPECT_LT(::timerfd_create(clock, 0), 0) << "the kernel takes it: " << clock;
  }
}

TEST(TimerfdCarrier, WithoutItsStateItIsRefused) {
  test::Source source;
  wire::OpenFile file;
  EXPECT_FALSE(
      source.find({.number = 3, .link = "anon_inode:[timerfd]", .details = "clockid: 1\n"}, file));
  EXPECT_EQ(source.refusals(), Refusals{"UNKNOWN_DESCRIPTOR"});
}

}  // namespace
}  // namespace migrate
