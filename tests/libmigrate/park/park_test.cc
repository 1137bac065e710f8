// A process is parked and comes back, as if nothing had been.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <thread>

#include "base/clock.h"
#include "base/file.h"
#include "libmigrate/trace/tracee.h"
#include "tests/libmigrate/park/park_world.h"
#include "tests/transport/temporary_directory.h"

/// hold_general.S: loads the 15 registers from `patterns`, counts down, stores them into `found`.
extern "C" void hold_general(const std::uint64_t* patterns, std::uint64_t* found,
                             std::uint64_t iterations);

namespace migrate {
namespace {

using test::count;
using test::hold_back;
using test::ParkTest;

constexpr std::uint64_t kLongNs = 1'000 * std::uint64_t{1'000'000'000};

siginfo_t parse(const std::string& bytes) {
  siginfo_t signal{};
  bytes.copy(reinterpret_cast<char*>(&signal), sizeof(signal));
  return signal;
}

/// In the process: a little of everything that parking changes and must put back.
void take_a_lot(const std::string& file) {
  count({SIGALRM, SIGRTMIN});
  hold_back({SIGRTMIN, SIGALRM, SIGTERM});
  const sigval value{.sival_int = 42};
  ::sigqueue(::getpid(), SIGRTMIN, value);
  ::sigqueue(::getpid(), SIGRTMIN, value);
  ::syscall(SYS_tgkill, ::getpid(), ::syscall(SYS_gettid), SIGTERM);
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGUSR2;
  timer_t timer{};
  ::timer_create(CLOCK_MONOTONIC, &event, &timer);
  const itimerspec rarely{{7, 5}, to_timespec(kLongNs)};
  ::timer_settime(timer, 0, &rarely, nullptr);
  const itimerval real{{3, 0}, {900, 0}};
  ::setitimer(ITIMER_REAL, &real, nullptr);
  static std::array<char, 65536> stack{};
  stack_t alternate{};
  alternate.ss_sp = stack.data();
  alternate.ss_size = stack.size();
  ::sigaltstack(&alternate, nullptr);
  ::dup2(::open(file.c_str(), O_RDONLY), 0);
  ::lseek(0, 5, SEEK_SET);
  ::eventfd(3, EFD_CLOEXEC);
  ::prctl(PR_SET_NAME, "has a lot");
  for (const int held : {SIGHUP, SIGWINCH}) {
    std::thread([held] {
      hold_back({held, SIGUSR1, SIGUSR2});
      for (;;) {
        ::pause();
      }
    }).detach();
  }
}

class ComesBack : public ParkTest {
 protected:
  void SetUp() override {
    ParkTest::SetUp();
    const UniqueFd file = open_file(directory_.file("input"), O_RDWR | O_CREAT).value();
    ASSERT_TRUE(write_all(file.get(), std::as_bytes(std::span("0123456789"))));
  }
  void start_with_a_lot() {
    start([this] { take_a_lot(directory_.file("input")); });
    expect_rest();
  }

  test::TemporaryDirectory directory_;
};

TEST_F(ComesBack, WithAllThatProcShows) {
  start_with_a_lot();
  const std::string before = facts();
  ASSERT_NO_FATAL_FAILURE(capture_and_park());
  EXPECT_TRUE(is_traced());
  EXPECT_NE(facts(), before);
  ASSERT_TRUE(unpark());
  EXPECT_FALSE(is_traced());
  EXPECT_EQ(facts(), before);
  expect_answer();
}

TEST_F(ComesBack, WithAllThatAnImageHolds) {
  start_with_a_lot();
  ASSERT_NO_FATAL_FAILURE(capture_and_park());
  ASSERT_TRUE(unpark());
  expect_rest();
  test::CapturedProcess again(pid());
  ASSERT_TRUE(again.valid());
  EXPECT_EQ(test::difference(test::lasting(captured_->image()), test::lasting(again.image())), "");
  const wire::ProcessImage& before = captured_->process();
  const wire::ProcessImage& after = again.process();
  EXPECT_EQ(before.threads_size(), 3);
  EXPECT_EQ(before.pending_signals_size(), 2);
  EXPECT_EQ(before.threads(0).pending_signals_size(), 1);
  ASSERT_EQ(after.posix_timers_size(), 1);
  EXPECT_LE(after.posix_timers(0).value_ns(), before.posix_timers(0).value_ns());
  EXPECT_GT(after.posix_timers(0).value_ns(), kLongNs / 2);
  EXPECT_LE(after.interval_timers(0).value_us(), before.interval_timers(0).value_us());
  EXPECT_GT(after.interval_timers(0).value_us(), 450'000'000U);
}

TEST_F(ComesBack, MoreThanOnce) {
  start_with_a_lot();
  const std::string before = facts();
  for (int round = 0; round < 3; ++round) {
    ASSERT_NO_FATAL_FAILURE(capture_and_park());
    ASSERT_TRUE(unpark());
    EXPECT_EQ(facts(), before);
    expect_rest();
  }
}

// In the process:
std::array<std::uint64_t, 15> register_patterns{};
volatile int rounds = 0;
volatile int wrong = 0;

[[noreturn]] void hold_registers(int) {
  constexpr std::uint64_t kIterations = 1'000'000;
  for (;;) {
    std::array<std::uint64_t, 15> found{};
    hold_general(register_patterns.data(), found.data(), kIterations);
    wrong = wrong + (found != register_patterns ? 1 : 0);
    rounds = rounds + 1;
  }
}

TEST_F(ComesBack, WithEveryRegister) {
  for (std::size_t i = 0; i < register_patterns.size(); ++i) {
    register_patterns[i] = 0x0123456789abcdefULL * (i + 1);
  }
  start([] { ::signal(SIGTERM, hold_registers); });
  const auto read = [this](const volatile int& place) {
    int value = -1;
    EXPECT_TRUE(read_memory(pid(), reinterpret_cast<std::uint64_t>(&place),
                            std::as_writable_bytes(std::span(&value, 1))));
    return value;
  };
  ::kill(pid(), SIGTERM);
  ASSERT_TRUE(test::comes_true([&] { return read(rounds) > 0; }));
  for (int round = 0; round < 5; ++round) {
    ASSERT_NO_FATAL_FAILURE(capture_and_park());
    const int before = read(rounds);
    ASSERT_TRUE(unpark());
    EXPECT_TRUE(test::comes_true([&] { return read(rounds) > before + 1; }));
  }
  EXPECT_EQ(read(wrong), 0);
}

TEST_F(ComesBack, FromAFreezeWithoutParking) {
  start_with_a_lot();
  const std::string before = facts();
  ASSERT_NO_FATAL_FAILURE(capture());
  ASSERT_TRUE(write_record());
  captured_.reset();
  EXPECT_EQ(facts(), before);
  EXPECT_FALSE(is_traced());
}

using ParkedSignals = ComesBack;

TEST_F(ParkedSignals, AreToldWithTheirSenderAndReachNoHandler) {
  start([] { count({SIGRTMIN + 1}); });
  ASSERT_NO_FATAL_FAILURE(capture_and_park());
  let_it_loop();
  ::kill(pid(), SIGUSR2);
  const siginfo_t killed = next_signal();
  EXPECT_EQ(killed.si_signo, SIGUSR2);
  EXPECT_EQ(killed.si_code, SI_USER);
  EXPECT_EQ(killed.si_pid, ::getpid());
  for (const int value : {7, 8}) {
    ASSERT_EQ(::sigqueue(pid(), SIGRTMIN + 1, sigval{.sival_int = value}), 0);
  }
  for (const int value : {7, 8}) {
    const siginfo_t queued = next_signal();
    EXPECT_EQ(queued.si_signo, SIGRTMIN + 1);
    EXPECT_EQ(queued.si_value.sival_int, value);
  }
  ASSERT_TRUE(unpark());
  expect_answer();  // Whoever took them off the pipe has them: they are not given back.
  EXPECT_EQ(handled(SIGUSR2), 0);
  EXPECT_EQ(handled(SIGRTMIN + 1), 0);
}

TEST_F(ParkedSignals, ThatNobodyTookAreHandledWhenItIsBack) {
  start([] { count({SIGRTMIN + 1}); });
  for (const int round : {1, 2}) {  // Stopped, and in its loop.
    ASSERT_NO_FATAL_FAILURE(capture_and_park());
    if (round == 2) {
      let_it_loop();
    }
    ::kill(pid(), SIGUSR2);
    ASSERT_EQ(::sigqueue(pid(), SIGRTMIN + 1, sigval{}), 0);
    ASSERT_EQ(::sigqueue(pid(), SIGRTMIN + 1, sigval{}), 0);
    ASSERT_TRUE(unpark());
    EXPECT_TRUE(test::comes_true([&] { return handled(SIGRTMIN + 1) == 2 * round; }));
    EXPECT_TRUE(test::comes_true([&] { return handled(SIGUSR2) == round; }));
  }
}

TEST_F(ParkedSignals, ThatCameBetweenCaptureAndParkingAreKept) {
  start([] { count({SIGURG}); });
  ASSERT_NO_FATAL_FAILURE(capture());
  ::kill(pid(), SIGUSR2);
  ::kill(pid(), SIGURG);  // By which scripts end, too.
  ASSERT_TRUE(park());
  std::set<int> numbers;
  for (const std::string& signal : parked_->signals()) {
    numbers.insert(parse(signal).si_signo);
  }
  EXPECT_EQ(numbers, (std::set<int>{SIGUSR2, SIGURG}));
  EXPECT_EQ(handled(SIGUSR2), 0);
  ASSERT_TRUE(unpark());
  EXPECT_TRUE(test::comes_true([this] { return handled(SIGURG) == 1; }));
  EXPECT_TRUE(test::comes_true([this] { return handled(SIGUSR2) == 1; }));
}

TEST_F(ParkedSignals, ThatTravelInTheImageAreNotKeptTwice) {
  start([] {
    hold_back({SIGUSR2});
    ::raise(SIGUSR2);
  });
  ASSERT_NO_FATAL_FAILURE(capture_and_park());
  EXPECT_TRUE(parked_->signals().empty());
  EXPECT_FALSE(is_pending(pid(), SIGUSR2));
  ASSERT_TRUE(unpark());
  EXPECT_TRUE(is_pending(pid(), SIGUSR2));
}

using ParkedTimers = ComesBack;

TEST_F(ParkedTimers, StandStillAndGoOn) {
  start_with_a_lot();
  ASSERT_NO_FATAL_FAILURE(capture_and_park());
  let_it_loop();
  itimerval real{};
  itimerspec posix{};
  const std::uint32_t timer = captured_->process().posix_timers(0).id();
  std::uint64_t real_at = 0;
  std::uint64_t posix_at = 0;
  const auto read = [&](const Script& script) {
    real = script.value<itimerval>(real_at);
    posix = script.value<itimerspec>(posix_at);
  };
  const auto ask = [&](Script& script) {
    real_at = script.reserve(sizeof(real));
    posix_at = script.reserve(sizeof(posix));
    script.must("read", SYS_getitimer, {ITIMER_REAL, real_at});
    script.must("read", SYS_timer_gettime, {timer, posix_at});
  };
  ask_leader(ask, read);
  EXPECT_EQ(real.it_value.tv_sec, 0);
  EXPECT_EQ(posix.it_value.tv_sec, 0);
  ASSERT_TRUE(unpark());
}

// The timer is armed as captured, and tells of itself once more.
TEST_F(ParkedTimers, ThatFiredBetweenCaptureAndParkingFireOnce) {
  start([] {
    count({SIGALRM});
    const itimerval soon{{0, 0}, {0, 300'000}};
    ::setitimer(ITIMER_REAL, &soon, nullptr);
  });
  ASSERT_NO_FATAL_FAILURE(capture());
  ASSERT_EQ(handled(SIGALRM), 0) << "the machine is too slow for this test";
  ASSERT_TRUE(test::comes_true([this] { return is_pending(pid(), SIGALRM); }));
  ASSERT_TRUE(park());
  EXPECT_TRUE(parked_->signals().empty());
  ASSERT_TRUE(unpark());
  EXPECT_TRUE(test::comes_true([this] { return handled(SIGALRM) == 1; }));
  expect_answer();
  EXPECT_EQ(handled(SIGALRM), 1);
}

TEST_F(ParkedTimers, ThatWouldHaveExpiredDoSoAtOnce) {
  start_with_a_lot();
  ASSERT_NO_FATAL_FAILURE(capture());
  captured_->process().mutable_posix_timers(0)->set_value_ns(1);
  ASSERT_TRUE(park());
  EXPECT_EQ(handled(SIGUSR2), 0);
  ASSERT_TRUE(unpark());
  EXPECT_TRUE(test::comes_true([this] { return handled(SIGUSR2) == 1; }));
}

using NotParked = ComesBack;

TEST_F(NotParked, WithoutADescriptorLeftItRunsOn) {
  start([] {
    hold_back({SIGTERM});
    ::raise(SIGTERM);
    std::atomic<bool> began = false;
    std::thread([&began] {
      hold_back({SIGUSR1});
      began = true;
      for (;;) {
        ::pause();
      }
    }).detach();
    while (!began) {
    }
    const rlimit few{3, 3};
    ::setrlimit(RLIMIT_NOFILE, &few);
  });
  const std::string before = facts();
  ASSERT_NO_FATAL_FAILURE(capture());
  const auto parked = park();
  ASSERT_FALSE(parked);
  EXPECT_EQ(parked.error().sys_errno, EMFILE) << parked.error().message();
  EXPECT_FALSE(is_traced());
  EXPECT_EQ(facts(), before);
  expect_answer();
}

TEST_F(NotParked, AnImageOfOtherThreadsParksNothing) {
  start_with_a_lot();
  const std::string before = facts();
  ASSERT_NO_FATAL_FAILURE(capture());
  const std::uint32_t id = captured_->process().threads(1).id();
  captured_->process().mutable_threads(1)->set_id(id + 1'000'000);
  const auto parked = park();
  ASSERT_FALSE(parked);
  EXPECT_EQ(parked.error().code, ErrorCode::kRetry) << parked.error().message();
  captured_.reset();
  EXPECT_FALSE(is_traced());
  EXPECT_EQ(facts(), before);
  expect_answer();
}

TEST_F(NotParked, AnImageThatOutgrewItsPlaceIsNotWritten) {
  start();
  ASSERT_NO_FATAL_FAILURE(capture());
  const ScriptArea& area = captured_->frozen().area();
  const std::string large(area.record_bytes() - sizeof(ParkingRecord) + 1, 'x');
  const auto written = ParkedProcess::write_record(captured_->frozen(), large, session_, session_);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, ErrorCode::kRetry);
  ParkingRecord record;
  ASSERT_TRUE(area.read(area.record(), std::as_writable_bytes(std::span(&record, 1))));
  EXPECT_EQ(record.magic, 0U);
  EXPECT_TRUE(
      ParkedProcess::write_record(captured_->frozen(), large.substr(1), session_, session_));
}

using EndsParked = ComesBack;

TEST_F(EndsParked, WhenItIsKilled) {
  start_with_a_lot();
  ASSERT_NO_FATAL_FAILURE(capture_and_park());
  let_it_loop();
  EXPECT_EQ(parked_->check_state().value(), 0);
  ::kill(pid(), SIGKILL);
  EXPECT_TRUE(test::comes_true([this] { return parked_->check_state().value_or(-2) == -1; }));
}

TEST_F(EndsParked, AndCannotComeBackThen) {
  start_with_a_lot();
  ASSERT_NO_FATAL_FAILURE(capture_and_park());
  ::kill(pid(), SIGKILL);
  const auto back = unpark();
  ASSERT_FALSE(back);
  EXPECT_EQ(back.error().code, ErrorCode::kNotFound) << back.error().message();
}

TEST_F(EndsParked, WhenSomebodyMakesItRunAnotherProgram) {
  start();
  ASSERT_NO_FATAL_FAILURE(capture_and_park());
  let_it_loop();
  ask_leader([](Script& script) {
    const std::uint64_t path = script.put_string("/bin/sleep");
    const std::array<std::uint64_t, 3> arguments{path, script.put_string("60"), 0};
    script.call(SYS_execve, {path, script.put_value(arguments), 0});
  });
  EXPECT_TRUE(test::comes_true([this] { return parked_->check_state().value_or(-2) == -1; }));
  EXPECT_TRUE(has_ended(pid()));
}

using ParkedJobs = ComesBack;

TEST_F(ParkedJobs, AStopIsToldAndEndsWithContinue) {
  start();
  ASSERT_NO_FATAL_FAILURE(capture_and_park());
  let_it_loop();
  ::kill(pid(), SIGSTOP);
  EXPECT_TRUE(test::comes_true([this] { return parked_->check_state().value() == SIGSTOP; }));
  EXPECT_EQ(parked_->check_state().value(), 0);
  ::kill(pid(), SIGCONT);
  ::kill(pid(), SIGUSR2);
  EXPECT_TRUE(test::comes_true([this] {
    EXPECT_EQ(parked_->check_state().value(), 0);
    return !is_pending(pid(), SIGUSR2);
  }));
  const std::set<int> told{next_signal().si_signo, next_signal().si_signo};
  EXPECT_EQ(told, (std::set<int>{SIGCONT, SIGUSR2}));
  ASSERT_TRUE(unpark());
  expect_answer();
}

TEST_F(ParkedJobs, AStopThatNobodyHasSeenStopsItWhenItIsBack) {
  start();
  for (const bool loops : {false, true}) {
    ASSERT_NO_FATAL_FAILURE(capture_and_park());
    if (loops) {
      let_it_loop();
    }
    ::kill(pid(), SIGSTOP);
    ASSERT_TRUE(unpark());
    EXPECT_TRUE(test::comes_true([this] { return is_stopped(); }));
    ::kill(pid(), SIGCONT);
    expect_answer();
  }
}

}  // namespace
}  // namespace migrate
