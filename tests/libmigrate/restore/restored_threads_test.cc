// A process made anew in a cell: its threads, their waits, signals and timers.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "libmigrate/trace/tracee.h"
#include "tests/libmigrate/capture/dying_worker.h"
#include "tests/libmigrate/restore/restored_world.h"

/// hold_general.S: loads the 15 registers from `patterns`, counts down, stores them into `found`.
extern "C" void hold_general(const std::uint64_t* patterns, std::uint64_t* found,
                             std::uint64_t iterations);

namespace migrate {
namespace {

using test::counted;
using test::hold_back;
using test::RestoredProcess;

class RestoredThreads : public test::RestoredTest {
 protected:
  /// Of each thread, by its id: name, state of signals, nice value, policy and processors.
  static std::string threads_of(pid_t process, pid_t first) {
    const std::string folder = "/proc/" + std::to_string(process) + "/task/";
    std::string told;
    std::vector<std::string> names = list_directory(folder).value();
    std::ranges::sort(names);
    for (const std::string& name : names) {
      std::istringstream lines(read_file((folder + name).append("/status")).value());
      for (std::string line; std::getline(lines, line);) {
        for (const char* key : {"Name:", "SigPnd:", "SigBlk:", "Cpus_allowed:"}) {
          told += line.starts_with(key) ? line + "\n" : "";
        }
        if (line.starts_with("NSpid:")) {
          const int id = std::stoi(line.substr(line.find_last_of('\t')));
          told += "the first and " + std::to_string(id - first) + "\n";
        }
      }
      const pid_t thread = std::stoi(name);
      told += std::to_string(::getpriority(PRIO_PROCESS, static_cast<id_t>(thread))) + " " +
              std::to_string(::sched_getscheduler(thread)) + "\n";
    }
    return told;
  }
  template <class T>
  static std::remove_cv_t<T> read(pid_t process, const T& place) {
    std::remove_cv_t<T> value{};
    EXPECT_TRUE(read_memory(process, reinterpret_cast<std::uint64_t>(&place),
                            std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
};

[[noreturn]] void rest() {
  for (;;) {
    ::pause();
  }
}

TEST_F(RestoredThreads, HaveTheirIdsNamesMasksAndScheduling) {
  start([] {
    for (int i = 0; i < 4; ++i) {
      std::thread([i] {
        ::prctl(PR_SET_NAME, ("thread " + std::to_string(i)).c_str());
        hold_back({SIGUSR1, SIGUSR2, SIGRTMIN + i});
        ::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), i);
        if (i == 1) {
          constexpr int kOfThread = 1;
          constexpr int kBestEffort = 2 << 13;
          ::syscall(SYS_ioprio_set, kOfThread, 0, kBestEffort | 7);
        }
        if (i == 2) {
          const sched_param none{};
          ::sched_setscheduler(0, SCHED_BATCH, &none);
        }
        if (i == 3) {
          cpu_set_t one;
          CPU_ZERO(&one);
          CPU_SET(0, &one);
          ::sched_setaffinity(0, sizeof(one), &one);
          ::syscall(SYS_tgkill, ::getpid(), ::syscall(SYS_gettid), SIGRTMIN + 3);
        }
        rest();
      }).detach();
    }
  });
  expect_rest(here());
  const std::string before = threads_of(here(), here());
  EXPECT_EQ(status(here(), "Threads"), "5");
  ASSERT_NO_FATAL_FAILURE(move());
  EXPECT_EQ(threads_of(there(), here()), before);
  expect_rest(there());
  expect_same_image();
}

// In the process: one thread ends, and another one begins.
std::atomic<int> phase = 0;

TEST_F(RestoredThreads, AreThoseOfTheImageAndNotOfTheDraft) {
  start([] {
    std::thread([] {
      hold_back({SIGUSR1});
      while (phase == 0) {  // Until it is told.
        ::pause();
      }
    }).detach();
    ::signal(SIGTERM, [](int) { phase = 1; });
    ::signal(SIGUSR2, [](int) {
      std::thread([] {
        hold_back({SIGUSR1});
        rest();
      }).detach();
      std::thread([] {
        hold_back({SIGUSR1});
        rest();
      }).detach();
    });
  });
  expect_rest(here());
  RestoredProcess::Options options{.draft = test::inspect(here()).image};
  const auto names = [&] { return list_directory("/proc/" + std::to_string(here()) + "/task"); };
  std::vector<std::string> before = names().value();
  ASSERT_EQ(before.size(), 2U);
  std::ranges::sort(before);
  ::syscall(SYS_tgkill, here(), std::stoi(before.back()), SIGTERM);
  ASSERT_TRUE(test::comes_true([&] { return names()->size() == 1; }));
  ::kill(here(), SIGUSR2);
  ASSERT_TRUE(test::comes_true([&] { return names()->size() == 3; }));
  expect_rest(here());
  const std::string threads = threads_of(here(), here());
  ASSERT_NO_FATAL_FAILURE(move(options));
  EXPECT_EQ(threads_of(there(), here()), threads);
  expect_rest(there());
  expect_same_image();
  expect_answer();
}

// In the process:
std::array<std::uint64_t, 15> register_patterns{};
volatile int rounds = 0;
volatile int wrong = 0;

TEST_F(RestoredThreads, HaveEveryRegister) {
  for (std::size_t i = 0; i < register_patterns.size(); ++i) {
    register_patterns[i] = 0x0123456789abcdefULL * (i + 1);
  }
  start([] {
    ::signal(SIGTERM, [](int) {
      for (;;) {
        std::array<std::uint64_t, 15> found{};
        hold_general(register_patterns.data(), found.data(), 1'000'000);
        wrong = wrong + (found != register_patterns ? 1 : 0);
        rounds = rounds + 1;
      }
    });
  });
  ::kill(here(), SIGTERM);
  ASSERT_TRUE(test::comes_true([this] { return read(here(), rounds) > 0; }));
  ASSERT_NO_FATAL_FAILURE(move());
  const int before = read(here(), rounds);
  EXPECT_TRUE(test::comes_true([&] { return read(there(), rounds) > before + 1; }));
  EXPECT_EQ(read(there(), wrong), 0);
}

TEST_F(RestoredThreads, HaveWhatWasSentToThemWithItsValues) {
  start([] {
    hold_back({SIGRTMIN, SIGRTMIN + 1, SIGTERM});
    ::signal(SIGWINCH, SIG_IGN);
    test::count({SIGALRM});
    for (const int value : {5, 6, 7}) {
      ::sigqueue(::getpid(), SIGRTMIN, sigval{.sival_int = value});
    }
    ::syscall(SYS_tgkill, ::getpid(), ::syscall(SYS_gettid), SIGTERM);
    static std::array<char, 65536> memory{};
    stack_t stack{};
    stack.ss_sp = memory.data();
    stack.ss_size = memory.size();
    ::sigaltstack(&stack, nullptr);
    ::prctl(PR_SET_PDEATHSIG, SIGHUP);
  });
  ASSERT_NO_FATAL_FAILURE(move());
  expect_same_status({"SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"});
  expect_rest(there());
  expect_same_image();
  const wire::ProcessImage& image = restored_->source().process();
  ASSERT_EQ(image.pending_signals_size(), 3);
  siginfo_t last{};
  image.pending_signals(2).copy(reinterpret_cast<char*>(&last), sizeof(last));
  EXPECT_EQ(last.si_value.sival_int, 7);
  EXPECT_EQ(image.threads(0).pending_signals_size(), 1);
  EXPECT_EQ(image.threads(0).parent_death_signal(), std::uint32_t{SIGHUP});
}

void make_timers() {
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGUSR2;
  event.sigev_value.sival_int = 99;
  std::array<timer_t, 3> timers{};
  for (timer_t& timer : timers) {
    ::timer_create(CLOCK_MONOTONIC, &event, &timer);
  }
  ::timer_delete(timers[1]);  // So that there is a hole in their numbers.
  const itimerspec late{{50, 0}, {900, 0}};
  ::timer_settime(timers[0], 0, &late, nullptr);
  const itimerval real{{3, 0}, {800, 0}};
  ::setitimer(ITIMER_REAL, &real, nullptr);
  const itimerval of_processor{{0, 0}, {700, 0}};
  ::setitimer(ITIMER_PROF, &of_processor, nullptr);
}

wire::PosixTimer timer_of(const wire::ProcessImage& image, std::uint32_t id) {
  for (const wire::PosixTimer& timer : image.posix_timers()) {
    if (timer.id() == id) {
      return timer;
    }
  }
  ADD_FAILURE() << "no timer " << id;
  return {};
}

TEST_F(RestoredThreads, HaveTimersOfTheSameNumbersThatGoOn) {
  start(make_timers);
  ASSERT_NO_FATAL_FAILURE(move());
  expect_rest(there());
  test::CapturedProcess again(there(), restored_->known());
  ASSERT_TRUE(again.valid());
  const wire::ProcessImage& before = restored_->source().process();
  const wire::ProcessImage& after = again.process();
  ASSERT_EQ(after.posix_timers_size(), 2);
  EXPECT_LE(timer_of(after, 0).value_ns(), timer_of(before, 0).value_ns());
  EXPECT_GT(timer_of(after, 0).value_ns(), 800 * std::uint64_t{kNanosecondsPerSecond});
  EXPECT_EQ(timer_of(after, 2).value_ns(), 0U);
  EXPECT_GT(after.interval_timers(0).value_us(), 700'000'000U);
  EXPECT_EQ(after.interval_timers(1).value_us(), 0U);
  EXPECT_GT(after.interval_timers(2).value_us(), 600'000'000U);
  EXPECT_EQ(
      test::difference(test::portable(restored_->source().image()), test::portable(again.image())),
      "");
}

TEST_F(RestoredThreads, ATimerWhoseTimeIsOverFiresThere) {
  start(make_timers);
  move({.change = [](wire::Image& image) {
    mutable_only_process(image).mutable_posix_timers(0)->set_value_ns(1);
  }});
  EXPECT_TRUE(test::comes_true([this] { return counted(there(), SIGUSR2) == 1; }));
  EXPECT_EQ(counted(here(), SIGUSR2), 0);
}

/// Makes this process and its children find no way to choose the number of a timer, as before Linux
/// 6.15.
void forget_timer_numbers() {
  constexpr std::uint32_t kRestoreIds = 77;  // PR_TIMER_CREATE_RESTORE_IDS
  std::array<sock_filter, 6> program{
      sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
      sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args)),
      sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kRestoreIds, 0, 1),
      sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
      sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  EXPECT_EQ(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
}

TEST_F(RestoredThreads, HaveTimersOfTheSameNumbersWhereTheKernelCountsThem) {
  start(make_timers);
  test::DyingWorker worker([this] {
    forget_timer_numbers();
    restored_.emplace(here());
    EXPECT_TRUE(restored_->outcome()) << restored_->outcome().error().message();
    return test::LastWords{.process = there()};
  });
  std::set<std::string> numbers;
  const auto timers = read_file("/proc/" + std::to_string(worker.words().process) + "/timers");
  std::istringstream lines(timers.value_or(""));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("ID: ")) {
      numbers.insert(line);
    }
  }
  EXPECT_EQ(numbers, (std::set<std::string>{"ID: 0", "ID: 2"}));
}

// In the process: what the waits of its threads ended with; -1: they have not.
enum Wait { kSleep, kClockSleep, kPoll, kFutex, kWaits };
std::array<long, kWaits> ended{-1, -1, -1, -1};
constexpr long kWaitSeconds = 5000;

void begin_waits() {
  static std::uint32_t word = 0;
  const auto begin = [](Wait which, auto wait) {
    std::thread([which, wait] {
      hold_back({SIGUSR1, SIGUSR2});
      *static_cast<volatile long*>(&ended[which]) = wait();
      rest();
    }).detach();
  };
  static const timespec time{kWaitSeconds, 0};
  begin(kSleep, [] { return ::syscall(SYS_nanosleep, &time, nullptr); });
  begin(kClockSleep, [] {
    timespec left{};
    return ::syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &time, &left);
  });
  begin(kPoll, [] { return ::syscall(SYS_poll, nullptr, 0, kWaitSeconds * 1000); });
  begin(kFutex,
        [] { return ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &time) == 0 ? 0 : errno; });
}

class RestoredWaits : public RestoredThreads {
 protected:
  /// In which calls the threads of a process are, in the order of their ids.
  static std::vector<long> calls_of(pid_t process) {
    const std::string folder = "/proc/" + std::to_string(process) + "/task/";
    std::vector<std::string> names = list_directory(folder).value();
    std::ranges::sort(names);
    std::vector<long> calls;
    for (const std::string& name : names) {
      const std::string call = read_file((folder + name).append("/syscall")).value_or("");
      calls.push_back(call.empty() || call.starts_with("r") ? -1 : std::stol(call));
    }
    return calls;
  }
  void start_waits() {
    start(begin_waits);
    const std::vector<long> wanted{SYS_pause, SYS_nanosleep, SYS_clock_nanosleep, SYS_poll,
                                   SYS_futex};
    ASSERT_TRUE(test::comes_true([&] { return calls_of(here()) == wanted; }));
  }
};

TEST_F(RestoredWaits, GoOnWithWhatIsLeft) {
  start_waits();
  move({.change = [](wire::Image& image) {
    for (int i = 1; i <= kWaits; ++i) {
      wire::Thread& thread = *mutable_only_process(image).mutable_threads(i);
      EXPECT_GT(thread.wait_remaining_ns(), 4900 * std::uint64_t{kNanosecondsPerSecond});
      thread.set_wait_remaining_ns(1000 * std::uint64_t{kNanosecondsPerSecond});
    }
  }});
  EXPECT_TRUE(test::comes_true([this] {
    const std::vector<long> calls = calls_of(there());
    return std::ranges::none_of(calls, [](long call) { return call < 0; });
  }));
  for (const long result : read(there(), ended)) {
    EXPECT_EQ(result, -1);
  }
  // The sleep that tells its caller what is left tells it of the shorter one.
  test::CapturedProcess again(there(), restored_->known());
  ASSERT_TRUE(again.valid());
  EXPECT_LE(again.process().threads(2).wait_remaining_ns(),
            1000 * std::uint64_t{kNanosecondsPerSecond});
}

TEST_F(RestoredWaits, ThatAreOverEndThereAsTheyWouldHave) {
  start_waits();
  move({.change = [](wire::Image& image) {
    for (int i = 1; i <= kWaits; ++i) {
      mutable_only_process(image).mutable_threads(i)->set_wait_remaining_ns(1);
    }
  }});
  expect_rest(there());
  const auto results = read(there(), ended);
  EXPECT_EQ(results[kSleep], 0);
  EXPECT_EQ(results[kClockSleep], 0);
  EXPECT_EQ(results[kPoll], 0);
  EXPECT_EQ(results[kFutex], ETIMEDOUT);
  EXPECT_EQ(read(here(), ended)[kSleep], -1);
}

}  // namespace
}  // namespace migrate
