// The worker that parked a process dies, and another one takes over.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <optional>
#include <thread>

#include "libmigrate/trace/tracee.h"
#include "tests/base/code_of.h"
#include "tests/libmigrate/park/park_world.h"

namespace migrate {
namespace {

using test::count;
using test::DyingWorker;
using test::LastWords;

class AdoptTest : public test::ParkTest {
 protected:
  /// A worker captures and parks the process, and goes as far as `last` says; its area is known.
  void lose_worker(const std::function<void()>& last = [] {}) {
    worker_.emplace([&] {
      capture_and_park();
      last();
      return LastWords{.area = captured_->frozen().area().address};
    });
    worker_->die();
  }
  Result<void> adopt() { return adopt(session_, worker_->words().area); }
  Result<void> adopt(const SessionId& session, std::uint64_t area) {
    parked_.emplace(MIGRATE_TRY(ParkedProcess::adopt(pid(), area, session, image_)));
    return {};
  }
  Result<void> bring_back() { return parked_->unpark(only_process(image_)); }
  /// Whether it still is parked, traced or not: then no handler runs.
  void expect_parked() {
    const int before = handled(SIGUSR1);
    ::kill(pid(), SIGUSR1);
    EXPECT_TRUE(test::comes_true([this] { return !is_pending(pid(), SIGUSR1); }));
    EXPECT_EQ(handled(SIGUSR1), before);
  }

  std::optional<DyingWorker> worker_;
  wire::Image image_;
};

void start_threads() {
  for (int i = 0; i < 3; ++i) {
    std::thread([] {
      test::hold_back({SIGUSR1, SIGUSR2});
      for (;;) {
        ::pause();
      }
    }).detach();
  }
}

TEST_F(AdoptTest, ItComesBackFromTheRecordAlone) {
  start(start_threads);
  expect_rest();
  const std::string before = facts();
  ASSERT_NO_FATAL_FAILURE(lose_worker());
  EXPECT_FALSE(is_traced());
  expect_parked();
  ASSERT_TRUE(adopt());
  EXPECT_TRUE(is_traced());
  EXPECT_EQ(only_process(image_).threads_size(), 4);
  EXPECT_EQ(only_process(image_).process_id(), static_cast<std::uint32_t>(pid()));
  ASSERT_TRUE(bring_back());
  EXPECT_FALSE(is_traced());
  expect_rest();
  EXPECT_EQ(facts(), before);
  EXPECT_TRUE(test::comes_true([this] { return handled(SIGUSR1) == 1; }));
}

TEST_F(AdoptTest, SignalsWaitForTheNextWorker) {
  start([] { count({SIGRTMIN}); });
  ASSERT_NO_FATAL_FAILURE(lose_worker());
  ASSERT_EQ(::sigqueue(pid(), SIGRTMIN, sigval{.sival_int = 3}), 0);
  ASSERT_TRUE(adopt());
  const siginfo_t told = next_signal();
  EXPECT_EQ(told.si_signo, SIGRTMIN);
  EXPECT_EQ(told.si_value.sival_int, 3);
  ASSERT_TRUE(bring_back());
  expect_answer();
}

TEST_F(AdoptTest, SignalsThatCameBeforeItWasParkedAreInTheRecord) {
  start();
  worker_.emplace([&] {
    capture();
    ::kill(pid(), SIGUSR2);
    EXPECT_TRUE(park());
    return LastWords{.area = captured_->frozen().area().address};
  });
  worker_->die();
  ASSERT_TRUE(adopt());
  EXPECT_EQ(parked_->signals().size(), 1U);
  ASSERT_TRUE(bring_back());
  EXPECT_TRUE(test::comes_true([this] { return handled(SIGUSR2) == 1; }));
}

TEST_F(AdoptTest, OfAnotherSessionItIsNotFoundAndStaysParked) {
  start(start_threads);
  ASSERT_NO_FATAL_FAILURE(lose_worker());
  SessionId other = session_;
  other[15] = std::byte{1};
  EXPECT_EQ(test::code_of(adopt(other, worker_->words().area)), ErrorCode::kNotFound);
  for (const std::uint64_t area :
       {std::uint64_t{0}, worker_->words().area + kPageBytes, std::uint64_t{1} << 60U}) {
    EXPECT_EQ(test::code_of(adopt(session_, area)), ErrorCode::kNotFound) << area;
  }
  EXPECT_FALSE(is_traced());
  expect_parked();
  ASSERT_TRUE(adopt());
  ASSERT_TRUE(bring_back());
  EXPECT_TRUE(test::comes_true([this] { return handled(SIGUSR1) == 1; }));
}

TEST_F(AdoptTest, ARecordThatSomebodySpoiltIsNone) {
  start();
  ASSERT_NO_FATAL_FAILURE(lose_worker());
  const std::uint64_t record = worker_->words().area + ScriptArea::kRecordOffset;
  const auto spoil = [&](std::uint64_t at, std::uint64_t value) {
    std::uint64_t before = 0;
    EXPECT_TRUE(read_memory(pid(), record + at, std::as_writable_bytes(std::span(&before, 1))));
    EXPECT_TRUE(write_memory(pid(), record + at, std::as_bytes(std::span(&value, 1))));
    EXPECT_FALSE(adopt()) << at << " " << value;
    EXPECT_FALSE(is_traced());
    EXPECT_TRUE(write_memory(pid(), record + at, std::as_bytes(std::span(&before, 1))));
  };
  spoil(offsetof(ParkingRecord, magic), 1);
  spoil(offsetof(ParkingRecord, image_bytes), ~std::uint64_t{0});
  spoil(offsetof(ParkingRecord, image_bytes), std::uint64_t{1} << 24U);  // Beyond its memory.
  spoil(offsetof(ParkingRecord, image_bytes), 3);
  spoil(sizeof(ParkingRecord), ~std::uint64_t{0});
  ASSERT_TRUE(adopt());
  ASSERT_TRUE(bring_back());
  expect_answer();
}

TEST_F(AdoptTest, OneThatWasCapturedOnlyRunsOnUntouched) {
  start(start_threads);
  worker_.emplace([&] {
    capture();
    EXPECT_TRUE(write_record());
    return LastWords{.area = captured_->frozen().area().address};
  });
  worker_->die();
  const auto adopted = adopt();
  ASSERT_FALSE(adopted);
  EXPECT_EQ(adopted.error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(is_traced());
  expect_answer();
}

TEST_F(AdoptTest, OneThatWasBroughtBackIsNotParked) {
  start();
  worker_.emplace([&] {
    capture_and_park();
    EXPECT_TRUE(unpark());
    return LastWords{.area = captured_->frozen().area().address};
  });
  worker_->die();
  EXPECT_EQ(test::code_of(adopt()), ErrorCode::kNotFound);
  expect_answer();
}

TEST_F(AdoptTest, OneThatWasKilledMeanwhileIsGone) {
  start();
  ASSERT_NO_FATAL_FAILURE(lose_worker());
  ::kill(pid(), SIGKILL);
  EXPECT_TRUE(test::comes_true([this] { return has_ended(pid()); }));
  EXPECT_FALSE(adopt());
}

TEST_F(AdoptTest, OneThatSomebodyElseTracesIsNotTaken) {
  start();
  ASSERT_NO_FATAL_FAILURE(lose_worker());
  {
    DyingWorker other([&] {
      EXPECT_TRUE(seize(pid()));
      return LastWords{};
    });
    const auto adopted = adopt();
    ASSERT_FALSE(adopted);
    EXPECT_EQ(adopted.error().sys_errno, EPERM);
    other.die();
  }
  ASSERT_TRUE(adopt());
  ASSERT_TRUE(bring_back());
  expect_answer();
}

TEST_F(AdoptTest, AStopThatCameMeanwhileIsTold) {
  start();
  ASSERT_NO_FATAL_FAILURE(lose_worker());
  ::kill(pid(), SIGSTOP);
  EXPECT_TRUE(test::comes_true([this] { return is_stopped(); }));
  ASSERT_TRUE(adopt());
  ::kill(pid(), SIGCONT);
  EXPECT_TRUE(test::comes_true([this] {
    static_cast<void>(parked_->check_state());
    return !is_pending(pid(), SIGCONT);
  }));
  ASSERT_TRUE(bring_back());
  expect_answer();
}

TEST_F(AdoptTest, ADeputyThatHasSettledIsTakenAsOne) {
  start(start_threads);
  lose_worker([this] { ASSERT_TRUE(parked_->settle({0})); });
  ASSERT_TRUE(adopt());
  ::kill(pid(), SIGUSR2);
  EXPECT_EQ(next_signal().si_signo, SIGUSR2);
  const auto back = bring_back();  // Its threads have ended: it ran elsewhere.
  ASSERT_FALSE(back);
  EXPECT_EQ(back.error().code, ErrorCode::kRefused);
}

}  // namespace
}  // namespace migrate
