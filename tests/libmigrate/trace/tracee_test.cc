#include "libmigrate/trace/tracee.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <thread>

namespace migrate {
namespace {

/// A process that makes a thread when it gets SIGUSR1, and sleeps otherwise.
class TraceeTest : public testing::Test {
 protected:
  void SetUp() override {
    ::signal(SIGUSR1, [](int) {});  // Before: it may be sent at any time.
    process_ = ::fork();
    if (process_ == 0) {
      for (;;) {
        ::pause();
        std::thread([] { ::pause(); }).detach();
      }
    }
    ASSERT_GT(process_, 0);
    ASSERT_TRUE(seize(process_));
    ASSERT_TRUE(interrupt(process_));
    ASSERT_EQ(wait_stop(process_)->event, PTRACE_EVENT_STOP);
  }
  void TearDown() override {
    ::kill(process_, SIGKILL);
    while (::waitpid(-1, nullptr, __WALL) > 0) {
    }
  }

  /// It stands at the entry of a call that makes a thread.
  bool enters_clone() const {
    __ptrace_syscall_info call{};
    return ::ptrace(PTRACE_GET_SYSCALL_INFO, process_, sizeof(call), &call) > 0 &&
           call.op == PTRACE_SYSCALL_INFO_ENTRY &&
           (call.entry.nr == SYS_clone3 || call.entry.nr == SYS_clone);
  }

  /// Its next stop within a second, if there is one.
  std::optional<Stop> next_stop() const {
    for (int look = 0; look < 1000; ++look) {
      siginfo_t told{};
      if (::waitid(P_PID, static_cast<id_t>(process_), &told,
                   WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) == 0 &&
          told.si_pid != 0) {
        return wait_stop(process_).value();
      }
      ::usleep(1000);
    }
    return std::nullopt;
  }

  pid_t process_ = -1;
};

// It hung the freeze of a process that makes threads, one time in some hundred.
TEST_F(TraceeTest, AnInterruptOutlivesAStopForAnotherReason) {
  ::kill(process_, SIGUSR1);
  ASSERT_TRUE(resume(process_));
  auto stop = next_stop();
  ASSERT_TRUE(stop && stop->signal == SIGUSR1);
  ASSERT_EQ(::ptrace(PTRACE_SYSCALL, process_, nullptr, SIGUSR1), 0);
  for (stop = next_stop(); stop && stop->event != PTRACE_EVENT_CLONE; stop = next_stop()) {
    if (enters_clone()) {
      ASSERT_TRUE(interrupt(process_));  // Then comes the stop for the clone, and nothing else.
    }
    ASSERT_TRUE(resume_to_call(process_));
  }
  ASSERT_TRUE(stop);
  ASSERT_TRUE(resume_to_interrupt(process_));
  stop = next_stop();
  ASSERT_TRUE(stop);
  EXPECT_EQ(stop->event, PTRACE_EVENT_STOP);
}

}  // namespace
}  // namespace migrate
