#include "libmigrate/trace/script.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "base/file.h"
#include "base/mapping.h"
#include "libmigrate/trace/tracee.h"
#include "tests/libmigrate/trace/freeze.h"

/// hold_general.S: loads the 15 registers from `patterns`, counts down, stores them into `found`.
extern "C" void hold_general(const std::uint64_t* patterns, std::uint64_t* found,
                             std::uint64_t iterations);
/// rseq_section.S: stays in a restartable sequence; returns when the kernel does not protect it.
extern "C" void rseq_section(struct rseq* area, std::uint64_t* counts);

namespace migrate {
namespace {

/// What a test and its subject share.
struct Shared {
  std::atomic<int> rounds = 0;
  std::atomic<int> wrong = 0;
  std::atomic<bool> stop = false;
  std::array<std::uint64_t, 2> sequence{};  // rseq_section()'s counts
};

/// A subject that runs scripts, and a tracer that is killed while it does.
class DeadTracerTest : public testing::Test {
 protected:
  void SetUp() override {
    void* const memory =
        ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    shared_ = new (memory) Shared;
  }

  void TearDown() override {
    if (subject_ > 0) {
      ::kill(subject_, SIGKILL);
      ::waitpid(subject_, nullptr, 0);
    }
    ::munmap(shared_, sizeof(Shared));
  }

  template <class Body>
  static pid_t fork_child(Body body) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      body();
      ::_exit(0);
    }
    return pid;
  }

  static bool wait_until(const std::function<bool()>& holds) {
    for (int i = 0; i < 2000 && !holds(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return holds();
  }

  /// True while the subject stands in system call `number`.
  bool is_in_call(int number) const {
    const auto call = read_file("/proc/" + std::to_string(subject_) + "/syscall").value_or("");
    return call.starts_with(std::to_string(number) + " ");
  }

  /// True when the subject has ended.
  bool is_over() const {
    siginfo_t told{};
    return ::waitid(P_PID, static_cast<id_t>(subject_), &told, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           told.si_pid == subject_;
  }

  FrozenProcess freeze_subject() const { return test::freeze(subject_); }

  /// A tracer that freezes the subject and has it run a script, in the middle of which it is now.
  pid_t start_tracer() {
    const pid_t tracer = fork_child([this] {
      const FrozenProcess frozen = freeze_subject();
      Script script(frozen.area());
      const timespec while_killed{0, 300'000'000};
      // Unlike nanosleep, this does not make the kernel forget an interrupted sleep.
      script.call(SYS_pselect6, {0, 0, 0, 0, script.put_value(while_killed), 0});
      static_cast<void>(script.run(frozen.leader().host_id, frozen.leader().registers,
                                   frozen.leader().signal_mask));
    });
    EXPECT_TRUE(wait_until([this] { return is_in_call(SYS_pselect6); }));
    return tracer;
  }

  void lose_tracer() {
    const pid_t tracer = start_tracer();
    ::kill(tracer, SIGKILL);
    ::waitpid(tracer, nullptr, 0);
    ASSERT_TRUE(is_in_call(SYS_pselect6));  // Else the script was over before its tracer.
  }

  int exit_status() {
    int status = 0;
    ::waitpid(std::exchange(subject_, 0), &status, 0);
    return status;
  }

  Shared* shared_ = nullptr;
  pid_t subject_ = 0;
};

TEST_F(DeadTracerTest, LeavesEveryRegister) {
  constexpr std::uint64_t kIterations = 50'000'000;
  std::array<std::uint64_t, 15> patterns{};
  for (std::size_t i = 0; i < patterns.size(); ++i) {
    patterns[i] = 0x0123456789abcdefULL * (i + 1);
  }
  subject_ = fork_child([&] {
    while (!shared_->stop) {
      std::array<std::uint64_t, 15> found{};
      hold_general(patterns.data(), found.data(), kIterations);
      shared_->wrong += found != patterns ? 1 : 0;
      ++shared_->rounds;
    }
  });
  ASSERT_TRUE(wait_until([this] { return shared_->rounds > 0; }));
  lose_tracer();
  const int before = shared_->rounds;
  EXPECT_TRUE(wait_until([&] { return shared_->rounds > before + 1; }));
  shared_->stop = true;
  EXPECT_EQ(exit_status(), 0);
  EXPECT_EQ(shared_->wrong, 0);
}

/// A thread in the middle of a restartable sequence begins it anew: nothing else is atomic there.
TEST_F(DeadTracerTest, RestartsASequenceThatItInterrupted) {
  std::array<std::uint64_t, 2>* const counts = &shared_->sequence;
  subject_ = fork_child([&] {
    auto* const area = reinterpret_cast<struct rseq*>(
        static_cast<std::byte*>(__builtin_thread_pointer()) + __rseq_offset);
    if (__rseq_size == 0) {
      ::_exit(9);
    }
    rseq_section(area, counts->data());
  });
  const auto count = [&](std::size_t which) {
    return __atomic_load_n(&(*counts)[which], __ATOMIC_RELAXED);
  };
  ASSERT_TRUE(wait_until([&] { return count(0) > 0; }));
  for (int round = 0; round < 20; ++round) {
    const std::uint64_t begun = count(1);
    {
      FrozenProcess frozen = freeze_subject();
      Script script(frozen.area());
      script.call(SYS_getpid, {});
      ASSERT_TRUE(script.run(frozen.leader().host_id, frozen.leader().registers,
                             frozen.leader().signal_mask));
    }
    const std::uint64_t rounds = count(0);
    ASSERT_TRUE(wait_until([&] { return count(0) > rounds || is_over(); }));
    ASSERT_FALSE(is_over()) << "it went on in the middle";
    EXPECT_GT(count(1), begun);
  }
}

/// A subject that is stopped while it runs a script.
class JobStopTest : public DeadTracerTest {
 protected:
  /// Sends `after` once the script's tracer has taken a SIGSTOP, and waits for the end of both.
  void stop_in_script(int after) {
    subject_ = fork_child([this] {
      while (!shared_->stop) {
        ++shared_->rounds;
      }
    });
    ASSERT_TRUE(wait_until([this] { return shared_->rounds > 0; }));
    const pid_t tracer = start_tracer();
    ::kill(subject_, SIGSTOP);
    ASSERT_TRUE(wait_until([this] { return !is_pending(subject_, SIGSTOP); }));
    ASSERT_TRUE(is_in_call(SYS_pselect6));  // Else it was over before.
    if (after != 0) {
      ::kill(subject_, after);
    }
    ::waitpid(tracer, nullptr, 0);
  }

  bool is_stopped() const {
    const auto stat = read_file("/proc/" + std::to_string(subject_) + "/stat").value_or("");
    return stat.find(") T ") != std::string::npos;
  }
};

TEST_F(JobStopTest, StopsWhenItGoesOn) {
  stop_in_script(0);
  EXPECT_TRUE(wait_until([this] { return is_stopped(); }));
}

TEST_F(JobStopTest, GoesOnIfToldSoMeanwhile) {
  stop_in_script(SIGCONT);
  const int before = shared_->rounds;
  EXPECT_TRUE(wait_until([&] { return shared_->rounds > before; }));
  EXPECT_FALSE(is_stopped());
  shared_->stop = true;
  EXPECT_EQ(exit_status(), 0);
}

TEST_F(DeadTracerTest, LeavesTheCallThatItInterrupted) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  subject_ = fork_child([&] {
    char letter = 0;
    const ssize_t count = ::read(ends[0], &letter, 1);
    ::_exit(count == 1 && letter == 'x' ? 7 : 1);
  });
  ASSERT_TRUE(wait_until([this] { return is_in_call(SYS_read); }));
  lose_tracer();
  EXPECT_TRUE(wait_until([this] { return is_in_call(SYS_read); }));
  ASSERT_EQ(::write(ends[1], "x", 1), 1);
  EXPECT_EQ(exit_status(), 7 << 8);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_F(DeadTracerTest, LeavesASleepAsLongAsItWas) {
  subject_ = fork_child([] {
    const timespec whole{1, 500'000'000};
    timespec begin{};
    timespec end{};
    ::clock_gettime(CLOCK_MONOTONIC, &begin);
    const int result = ::clock_nanosleep(CLOCK_MONOTONIC, 0, &whole, nullptr);
    ::clock_gettime(CLOCK_MONOTONIC, &end);
    const double slept = static_cast<double>(end.tv_sec - begin.tv_sec) +
                         static_cast<double>(end.tv_nsec - begin.tv_nsec) / 1e9;
    ::_exit(result == 0 && slept >= 1.5 ? 7 : 1);
  });
  ASSERT_TRUE(wait_until([this] { return is_in_call(SYS_clock_nanosleep); }));
  lose_tracer();
  EXPECT_EQ(exit_status(), 7 << 8);
}

TEST_F(DeadTracerTest, LeavesTheSignalMask) {
  subject_ = fork_child([] {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGURG);
    ::sigprocmask(SIG_SETMASK, &set, nullptr);
    for (;;) {
      ::pause();
    }
  });
  const auto mask = [this] {
    const auto status = read_file("/proc/" + std::to_string(subject_) + "/status").value_or("");
    return status.substr(std::min(status.size(), status.find("SigBlk:")), 24);
  };
  ASSERT_TRUE(wait_until([this] { return is_in_call(SYS_pause); }));
  const std::string before = mask();
  lose_tracer();
  ASSERT_TRUE(wait_until([this] { return is_in_call(SYS_pause); }));
  EXPECT_EQ(mask(), before);
  ::kill(subject_, SIGTERM);
  EXPECT_EQ(exit_status(), SIGTERM);
}

}  // namespace
}  // namespace migrate
