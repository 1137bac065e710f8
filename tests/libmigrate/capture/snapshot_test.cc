// Copies of a process that was frozen: what they have, where they go on, and whose they are.
#include "libmigrate/capture/snapshot.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "libmigrate/image/address_space.h"
#include "tests/libmigrate/capture/captured_process.h"
#include "tests/libmigrate/capture/dying_worker.h"
#include "tests/libmigrate/inspect/held_process.h"

namespace migrate {
namespace {

constexpr std::size_t kStackBytes = 65536;
std::array<char, kStackBytes> other_stack;

/// What a process of these tests says of itself, in its memory.
struct Said {
  int number = 1;
  pid_t pid = 0;
  pid_t mutex_owner = 0;  // The id of its thread, as the C library has it.
  bool is_on_other_stack = false;
};
Said said;

void say(int /*signal*/) {
  char here = 0;
  const auto place = reinterpret_cast<std::uintptr_t>(&here);
  const auto start = reinterpret_cast<std::uintptr_t>(other_stack.data());
  said.is_on_other_stack = place >= start && place < start + kStackBytes;
  pthread_mutex_t mutex = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
  ::pthread_mutex_lock(&mutex);
  said.mutex_owner = mutex.__data.__owner;
  said.pid = static_cast<pid_t>(::syscall(SYS_getpid));
}

void prepare() {
  const stack_t other{.ss_sp = other_stack.data(), .ss_flags = 0, .ss_size = kStackBytes};
  ::sigaltstack(&other, nullptr);
  struct sigaction action {};
  action.sa_flags = SA_ONSTACK;
  action.sa_handler = say;
  ::sigaction(SIGUSR1, &action, nullptr);
}

std::string text_of(pid_t process, const std::string& file) {
  return read_file("/proc/" + std::to_string(process) + "/" + file).value_or("");
}
bool is_there(pid_t process) {
  const std::string status = text_of(process, "status");
  return !status.empty() && status.find("State:\tZ") == std::string::npos;
}
bool has_children(pid_t process) {
  return !text_of(process, "task/" + std::to_string(process) + "/children").empty();
}
Said said_by(pid_t process) {
  Said read;
  EXPECT_TRUE(read_memory(process, reinterpret_cast<std::uint64_t>(&said),
                          std::as_writable_bytes(std::span(&read, 1))));
  return read;
}
void write_number(pid_t process, int number) {
  EXPECT_TRUE(write_memory(process, reinterpret_cast<std::uint64_t>(&said.number),
                           std::as_bytes(std::span(&number, 1))));
}
bool answers(pid_t process) {
  ::kill(process, SIGUSR1);
  return test::comes_true([process] { return said_by(process).pid == process; });
}
std::uint64_t robust_list(pid_t process) {
  std::uint64_t head = 0;
  std::size_t bytes = 0;
  EXPECT_EQ(::syscall(SYS_get_robust_list, process, &head, &bytes), 0);
  return head;
}

Result<Snapshot> take(pid_t process) {
  std::uint64_t system_call = 0;
  const std::vector<NamedRange> ranges = MIGRATE_TRY(read_mappings(process));
  for (const NamedRange& range : ranges) {
    if (range.name == "[vdso]") {
      system_call = find_system_call_in(process, range.start, range.end).value();
    }
  }
  FrozenProcess frozen = MIGRATE_TRY(FrozenProcess::freeze(process, system_call, {}));
  MIGRATE_TRY(frozen.open_area(kPageBytes));
  auto taken = Snapshot::take(frozen);
  MIGRATE_TRY(frozen.thaw());
  return taken;
}

/// A copy that was let go; killed at the end of its life.
class Loose {
 public:
  Loose(Snapshot& snapshot, pid_t process) : process_(process) {
    const auto gone = snapshot.let_go(process);
    EXPECT_TRUE(gone) << gone.error().message();
  }
  Loose(const Loose&) = delete;
  Loose& operator=(const Loose&) = delete;
  ~Loose() { ::kill(process_, SIGKILL); }
  pid_t process() const { return process_; }

 private:
  pid_t process_;
};

TEST(Snapshot, ACopyIsWhatTheProcessWasThen) {
  const test::HeldProcess process(prepare);
  auto snapshot = take(process.pid());
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  write_number(process.pid(), 2);
  const pid_t first = snapshot->copy().value();
  const pid_t second = snapshot->copy().value();
  write_number(first, 3);
  EXPECT_EQ(said_by(second).number, 1);
  EXPECT_EQ(said_by(process.pid()).number, 2);
  EXPECT_EQ(text_of(first, "cmdline"), text_of(process.pid(), "cmdline"));
}

TEST(Snapshot, ACopyGoesOnAsAChildOfForkWould) {
  const test::HeldProcess process(prepare);
  auto snapshot = take(process.pid());
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  const pid_t made = snapshot->copy().value();
  const Loose copy(*snapshot, made);
  EXPECT_EQ(said_by(made).pid, 0);
  EXPECT_EQ(robust_list(made), robust_list(process.pid()));
  EXPECT_EQ(text_of(made, "maps"), text_of(process.pid(), "maps"));
  ::kill(made, SIGCONT);
  ASSERT_TRUE(answers(made));
  EXPECT_EQ(said_by(made).mutex_owner, made);
  EXPECT_TRUE(said_by(made).is_on_other_stack);
  ASSERT_TRUE(answers(process.pid()));
  EXPECT_EQ(said_by(process.pid()).mutex_owner, process.pid());
  EXPECT_EQ(said_by(made).pid, made);
}

// While the process stands still, who makes it hurries.
TEST(Snapshot, ACopyIsScheduledAsTheProcessIs) {
  const test::HeldProcess process([] {
    prepare();
    const sched_param none{};
    ::sched_setscheduler(0, SCHED_BATCH, &none);
    ::setpriority(PRIO_PROCESS, 0, 7);
  });
  auto snapshot = take(process.pid());
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  const pid_t copy = snapshot->copy().value();
  EXPECT_EQ(::sched_getscheduler(copy), SCHED_BATCH);
  EXPECT_EQ(::getpriority(PRIO_PROCESS, static_cast<id_t>(copy)), 7);
  EXPECT_EQ(text_of(copy, "timerslack_ns"), text_of(process.pid(), "timerslack_ns"));
  EXPECT_EQ(::sched_getscheduler(process.pid()), SCHED_BATCH);
}

TEST(Snapshot, TheProcessHasNoChildMore) {
  const test::HeldProcess process(prepare);
  auto snapshot = take(process.pid());
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  const pid_t copy = snapshot->copy().value();
  EXPECT_FALSE(has_children(process.pid()));
  EXPECT_TRUE(answers(process.pid()));
  EXPECT_EQ(text_of(process.pid(), "status").find("TracerPid:\t0") != std::string::npos, true);
  EXPECT_TRUE(is_there(copy));
}

TEST(Snapshot, WhatIsNotLetGoEndsWithIt) {
  const test::HeldProcess process(prepare);
  pid_t kept = 0;
  {
    auto snapshot = take(process.pid());
    ASSERT_TRUE(snapshot) << snapshot.error().message();
    kept = snapshot->copy().value();
    EXPECT_TRUE(is_there(kept));
  }
  EXPECT_TRUE(test::comes_true([kept] { return !is_there(kept); }));
  EXPECT_TRUE(answers(process.pid()));
}

TEST(Snapshot, AndWithWhoeverMadeIt) {
  const test::HeldProcess process(prepare);
  test::DyingWorker worker([&process] {
    static auto snapshot = take(process.pid());
    return test::LastWords{.area = 0, .process = snapshot->copy().value(), .init = 0};
  });
  EXPECT_TRUE(is_there(worker.words().process));
  worker.die();
  EXPECT_TRUE(test::comes_true([&worker] { return !is_there(worker.words().process); }));
  EXPECT_TRUE(answers(process.pid()));
  EXPECT_FALSE(has_children(process.pid()));
}

TEST(Snapshot, OfAProcessWithThreadsThereIsNone) {
  const test::HeldProcess process([] {
    prepare();
    std::thread([] {
      for (;;) {
        ::pause();
      }
    }).detach();
  });
  const auto snapshot = take(process.pid());
  ASSERT_FALSE(snapshot);
  EXPECT_EQ(snapshot.error().code, ErrorCode::kRefused);
}

}  // namespace
}  // namespace migrate
