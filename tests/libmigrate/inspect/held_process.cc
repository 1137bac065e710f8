#include "tests/libmigrate/inspect/held_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>

#include "base/file.h"
#include "libmigrate/image/only_process.h"

namespace migrate::test {
namespace {

[[noreturn]] void become_held(const std::function<void()>& prepare, int ready) {
  constexpr int kKept = 1000;  // out of the way of what `prepare` opens
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::dup2(ready, kKept);
  const int null = ::open("/dev/null", O_RDWR);
  for (const int standard : {0, 1, 2}) {
    ::dup2(null, standard);
  }
  ::syscall(SYS_close_range, 3, kKept - 1, 0);
  ::syscall(SYS_close_range, kKept + 1, ~0U, 0);
  prepare();
  const char done = 1;
  if (::write(kKept, &done, 1) != 1) {
    ::_exit(1);
  }
  ::close(kKept);
  for (;;) {
    ::pause();
  }
}

}  // namespace

HeldProcess::HeldProcess(const std::function<void()>& prepare) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    ADD_FAILURE() << "pipe";
    std::abort();  // Whoever sends a signal to process -1 sends it to all that there are.
  }
  pid_ = ::fork();
  if (pid_ < 0) {
    std::abort();
  }
  if (pid_ == 0) {
    ::close(ends[0]);
    become_held(prepare, ends[1]);
  }
  ::close(ends[1]);
  char done = 0;
  EXPECT_EQ(::read(ends[0], &done, 1), 1) << "the process did not get ready";
  // End of file: it has closed its end, which would be seen in the refusals.
  EXPECT_EQ(::read(ends[0], &done, 1), 0);
  ::close(ends[0]);
}

HeldProcess::~HeldProcess() {
  // One that its test has reaped is no child of ours any more: its number may be another's.
  siginfo_t told{};
  const auto id = static_cast<id_t>(pid_);
  if (pid_ > 0 && ::waitid(P_PID, id, &told, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0) {
    ::kill(pid_, SIGKILL);
    // Traced threads must be reaped one by one before the process itself can be.
    pid_t reaped = 0;
    do {
      reaped = ::waitpid(-1, nullptr, __WALL);
    } while (reaped != pid_ && (reaped > 0 || errno == EINTR));
  }
}

void HeldProcess::freeze() const {
  const auto threads = list_directory("/proc/" + std::to_string(pid_) + "/task");
  ASSERT_TRUE(threads);
  for (const std::string& name : *threads) {
    const pid_t tid = std::stoi(name);
    ASSERT_EQ(::ptrace(PTRACE_SEIZE, tid, nullptr, nullptr), 0);
    ASSERT_EQ(::ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(tid, &status, __WALL), tid);
  }
}

Inspection inspect(pid_t pid, KnownObjects known) {
  auto inspector = ProcessInspector::create(pid, std::move(known));
  if (!inspector) {
    ADD_FAILURE() << inspector.error().message();
    return {};
  }
  auto inspection = inspector->inspect_running();
  if (!inspection) {
    ADD_FAILURE() << inspection.error().message();
    return {};
  }
  return std::move(*inspection);
}

std::set<std::string> codes(const std::vector<wire::Refusal>& refusals) {
  std::set<std::string> result;
  for (const wire::Refusal& refusal : refusals) {
    result.insert(refusal.code());
  }
  return result;
}

std::string text(const std::vector<wire::Refusal>& refusals) {
  std::string result;
  for (const wire::Refusal& refusal : refusals) {
    result += refusal.code() + " " + refusal.object() + ": " + refusal.reason() + "\n";
  }
  return result;
}

wire::OpenFile open_file_of(const wire::Image& image, std::uint32_t number) {
  for (const wire::Descriptor& descriptor : only_process(image).descriptors()) {
    if (descriptor.number() == number) {
      return image.objects().files(static_cast<int>(descriptor.file()));
    }
  }
  ADD_FAILURE() << "no descriptor " << number;
  return {};
}

wire::Mapping mapping_at(const wire::Image& image, const void* address) {
  const auto value = reinterpret_cast<std::uintptr_t>(address);
  for (const wire::Mapping& mapping : only_process(image).mappings()) {
    if (mapping.start() <= value && value < mapping.end()) {
      return mapping;
    }
  }
  ADD_FAILURE() << "no mapping at " << address;
  return {};
}

}  // namespace migrate::test
