#include "base/crash_report.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <string>

#include "base/file.h"
#include "base/thread.h"
#include "base/unique_fd.h"

namespace migrate {
namespace {

/// How a child ends that does this, and what it says on standard error.
template <class Function>
std::string report_of(Function act, int expected) {
  std::array<int, 2> ends{};
  EXPECT_EQ(pipe(ends.data()), 0);
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const pid_t child = fork();
  if (child == 0) {
    dup2(writer.get(), STDERR_FILENO);
    writer.reset();
    report_crashes("tester");
    act();
    _exit(0);
  }
  writer.reset();
  std::string text = read_all(reader.get(), "read a report").value_or("");
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == expected) << status << " " << text;
  EXPECT_NE(text.find("critical tester[" + std::to_string(child) + "] ended by signal " +
                      std::to_string(expected) + " "),
            std::string::npos)
      << text;
  return text;
}

void touch(std::uintptr_t address) {
  const volatile std::uintptr_t unknown =
      address;  // Else the compiler warns that nothing is there.
  *reinterpret_cast<volatile char*>(unknown) = 1;
}

TEST(CrashReport, OfEachFatalSignalThatIsSent) {
  for (const int signal : kFatalSignals) {
    const std::string text = report_of([signal] { kill(getpid(), signal); }, signal);
    EXPECT_NE(text.find("sent by pid"), std::string::npos) << text;
    EXPECT_NE(text.find("base_test"), std::string::npos) << text;  // A call of this program.
  }
}

TEST(CrashReport, OfAFaultTellsTheAddress) {
  const std::string text = report_of([] { touch(0x123); }, SIGSEGV);
  EXPECT_NE(text.find("address 0x123,"), std::string::npos) << text;
}

TEST(CrashReport, OfAFaultInAThreadOfOurs) {
  report_of([] { start_thread([] { touch(0x123); }).value().join(); }, SIGSEGV);
}

TEST(CrashReport, OfAnAbort) {
  report_of([] { abort(); }, SIGABRT);
}

/// Calls itself more often than a stack allows.
void overflow(volatile char* caller, std::uint64_t times) {
  std::array<volatile char, 4096> here{};
  here[0] = *caller;
  if (times > 0) {
    overflow(here.data(), times - 1);
  }
  here[1] = here[0];
}

TEST(CrashReport, OfAStackOverflow) {
  report_of(
      [] {
        volatile char top = 0;
        overflow(&top, ~std::uint64_t{0});
      },
      SIGSEGV);
}

}  // namespace
}  // namespace migrate
