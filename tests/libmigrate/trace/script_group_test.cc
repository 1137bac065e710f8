// Scripts of many threads at once, in a process of their own that goes on afterwards.
#include "libmigrate/trace/script_group.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

#include "base/file.h"
#include "libmigrate/trace/tracee.h"
#include "tests/libmigrate/trace/freeze.h"

namespace migrate {
namespace {

constexpr std::size_t kThreads = ScriptArea::kSlots + 7;  // more than run at once

using Counts = std::array<std::atomic<std::uint64_t>, kThreads + 1>;
std::atomic<std::uint64_t>* urgent = nullptr;  // how many SIGURG the first thread has had

void set_urgent_mask(int how) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGURG);
  ::pthread_sigmask(how, &set, nullptr);
}

[[noreturn]] void count_for_ever(std::atomic<std::uint64_t>& count) {
  for (;;) {
    ++count;
    ::usleep(1000);
  }
}

/// Builds scripts that only wait.
auto pause_for(int milliseconds) {
  return [=](std::size_t, Script& script) -> Result<void> {
    const timespec time{0, milliseconds * 1'000'000L};
    script.call(SYS_pselect6, {0, 0, 0, 0, script.put_value(time), 0});
    return {};
  };
}

class ScriptGroupTest : public testing::Test {
 protected:
  void SetUp() override {
    void* const memory =
        ::mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    counts_ = new (memory) Counts{};
    urgent = &counts_->back();
    subject_ = ::fork();
    if (subject_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::signal(SIGURG, [](int) { ++*urgent; });
      set_urgent_mask(SIG_BLOCK);  // in all but the first
      for (std::size_t i = 1; i < kThreads; ++i) {
        std::thread([this, i] { count_for_ever((*counts_)[i]); }).detach();
      }
      set_urgent_mask(SIG_UNBLOCK);
      count_for_ever((*counts_)[0]);
    }
    ASSERT_TRUE(all_count_on());
  }

  void TearDown() override {
    if (subject_ > 0) {
      ::kill(subject_, SIGKILL);
      ::waitpid(subject_, nullptr, 0);
    }
    ::munmap(counts_, sizeof(Counts));
  }

  bool all_count_on() const {
    std::array<std::uint64_t, kThreads> before{};
    std::copy_n(counts_->begin(), kThreads, before.begin());
    for (int i = 0; i < 2000; ++i) {
      if (std::equal(before.begin(), before.end(), counts_->begin(),
                     [](std::uint64_t then, const auto& now) { return now > then; })) {
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  FrozenProcess freeze() const { return test::freeze(subject_); }

  static std::vector<ScriptThread> threads_of(const FrozenProcess& frozen) {
    std::vector<ScriptThread> threads;
    for (const FrozenThread& thread : frozen.threads()) {
      threads.push_back({thread.host_id, thread.registers, thread.signal_mask});
    }
    return threads;
  }

  Counts* counts_ = nullptr;
  pid_t subject_ = 0;
};

TEST_F(ScriptGroupTest, EachThreadRunsItsOwn) {
  {
    const FrozenProcess frozen = freeze();
    const std::vector<ScriptThread> threads = threads_of(frozen);
    ASSERT_EQ(threads.size(), kThreads);
    std::vector<std::int64_t> ids(kThreads);
    std::vector<std::string> data(kThreads);
    std::vector<std::uint64_t> places(kThreads);
    const auto ran = run_scripts(
        frozen.area(), threads,
        [&](std::size_t i, Script& script) -> Result<void> {
          // Every tenth has too many calls for a slot.
          for (int call = 0; call < (i % 10 == 3 ? 100 : 1); ++call) {
            script.must("ask", SYS_gettid, {});
          }
          places[i] = script.put_string("thread " + std::to_string(i));
          return {};
        },
        [&](std::size_t i, const Script& script) {
          ids[i] = script.result(0);
          data[i] = reinterpret_cast<const char*>(script.data(places[i], 1).data());
        });
    ASSERT_TRUE(ran) << ran.error().message();
    for (std::size_t i = 0; i < kThreads; ++i) {
      EXPECT_EQ(ids[i], frozen.threads()[i].id);
      EXPECT_EQ(data[i], "thread " + std::to_string(i));
    }
  }
  EXPECT_TRUE(all_count_on());
}

TEST_F(ScriptGroupTest, OneThatFailsLeavesTheOthersWhole) {
  {
    const FrozenProcess frozen = freeze();
    std::vector<std::size_t> read;
    const auto ran = run_scripts(
        frozen.area(), threads_of(frozen),
        [&](std::size_t i, Script& script) -> Result<void> {
          script.must("work", i == 5 ? SYS_close : SYS_getpid, {9999});
          return {};
        },
        [&](std::size_t i, const Script&) { read.push_back(i); });
    ASSERT_FALSE(ran);
    EXPECT_EQ(ran.error().sys_errno, EBADF);
    EXPECT_EQ(read.size(), ScriptArea::kSlots - 1);  // No more were started.
    const auto refused = run_scripts(
        frozen.area(), threads_of(frozen), [](std::size_t i, Script& script) -> Result<void> {
          script.call(SYS_getpid, {});
          return i == 9 ? fail(make_error(ErrorCode::kRetry, "build a script")) : Result<void>();
        });
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kRetry);
  }
  EXPECT_TRUE(all_count_on());
}

TEST_F(ScriptGroupTest, ASignalForTheProcessStaysOne) {
  for (std::uint64_t round = 1; round <= 20; ++round) {
    {
      const FrozenProcess frozen = freeze();
      if (round % 2 == 0) {
        ::kill(subject_, SIGURG);
      } else {
        ::sigqueue(subject_, SIGURG, {.sival_int = 1});
      }
      const auto ran =
          run_scripts(frozen.area(), threads_of(frozen), [](std::size_t, Script& script) {
            script.call(SYS_getpid, {});
            return Result<void>();
          });
      ASSERT_TRUE(ran) << ran.error().message();
    }
    EXPECT_TRUE(all_count_on());
    EXPECT_EQ(*urgent, round);
  }
}

TEST_F(ScriptGroupTest, ThreadsEndWithoutTakingSignals) {
  FrozenProcess frozen = freeze();
  ::kill(subject_, SIGURG);
  std::vector<pid_t> others;
  for (const FrozenThread& thread : frozen.threads()) {
    if (thread.host_id != subject_) {
      others.push_back(thread.host_id);
    }
  }
  const auto ended = end_threads(frozen.area(), others);
  ASSERT_TRUE(ended) << ended.error().message();
  EXPECT_TRUE(end_threads(frozen.area(), others));  // They have ended already.
  EXPECT_TRUE(is_pending(subject_, SIGURG));
  EXPECT_EQ(list_directory("/proc/" + std::to_string(subject_) + "/task").value().size(), 1U);
}

TEST_F(ScriptGroupTest, AKilledProcessIsToldOf) {
  const FrozenProcess frozen = freeze();
  std::thread killer([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    ::kill(subject_, SIGKILL);
  });
  const auto ran = run_scripts(frozen.area(), threads_of(frozen), pause_for(300));
  killer.join();
  ASSERT_FALSE(ran);
  EXPECT_EQ(ran.error().code, ErrorCode::kNotFound) << ran.error().message();
}

// Which the kernel tells of only when all other threads have been reaped.
TEST_F(ScriptGroupTest, AProcessKilledInItsFirstThreadIsToldOf) {
  const FrozenProcess frozen = freeze();
  std::thread killer([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    ::kill(subject_, SIGKILL);
  });
  Script script(frozen.area());
  ASSERT_TRUE(pause_for(300)(0, script));
  const ScriptThread first = threads_of(frozen).front();
  const auto ran = script.run(first.thread, first.base, first.signal_mask);
  killer.join();
  ASSERT_FALSE(ran);
  EXPECT_EQ(ran.error().code, ErrorCode::kNotFound) << ran.error().message();
}

TEST_F(ScriptGroupTest, AllGoOnWithoutTheirTracer) {
  const pid_t tracer = ::fork();
  if (tracer == 0) {
    const FrozenProcess frozen = freeze();
    static_cast<void>(run_scripts(frozen.area(), threads_of(frozen), pause_for(300)));
    ::_exit(0);
  }
  const std::string path = "/proc/" + std::to_string(subject_) + "/task/";
  const auto all_in_scripts = [&] {
    const auto names = list_directory(path).value();
    const auto in_script = [&](const std::string& name) {
      const auto call = read_file((path + name).append("/syscall")).value_or("");
      return call.starts_with(std::to_string(SYS_pselect6) + " ");
    };
    return std::count_if(names.begin(), names.end(), in_script) ==
           static_cast<std::ptrdiff_t>(ScriptArea::kSlots);
  };
  for (int i = 0; i < 2000 && !all_in_scripts(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_TRUE(all_in_scripts());
  ::kill(tracer, SIGKILL);
  ::waitpid(tracer, nullptr, 0);
  EXPECT_TRUE(all_count_on());
}

}  // namespace
}  // namespace migrate
