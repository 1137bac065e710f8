#include "tests/libmigrate/park/park_world.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>
#include <vector>

#include "base/file.h"
#include "libmigrate/trace/tracee.h"

namespace migrate::test {
namespace {

std::string folder_of(pid_t process) {
  return "/proc/" + std::to_string(process);
}

/// The lines of a status that do not change by themselves.
std::string status_lines(const std::string& path) {
  std::istringstream lines(read_file(path).value());
  std::string told;
  for (std::string line; std::getline(lines, line);) {
    for (const char* key :
         {"Name:",   "Umask:",   "Uid:",    "Gid:",    "Groups:", "FDSize:",     "VmSize:",
          "VmLck:",  "Threads:", "SigPnd:", "ShdPnd:", "SigBlk:", "SigIgn:",     "SigCgt:",
          "CapInh:", "CapPrm:",  "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:"}) {
      told += line.starts_with(key) ? line + "\n" : "";
    }
  }
  return told;
}

}  // namespace

void ParkTest::SetUp() {
  if (kOfThreadSanitizer) {
    GTEST_SKIP() << "of ThreadSanitizer's own, a process is refused";
  }
  session_.fill(std::byte{9});
}

void ParkTest::start(const std::function<void()>& prepare) {
  process_.emplace([&] {
    count({SIGUSR1, SIGUSR2});
    prepare();
  });
}

void ParkTest::capture() {
  captured_.emplace(pid());
  ASSERT_TRUE(captured_->valid());
}

Result<void> ParkTest::write_record() {
  if (!captured_ || !captured_->valid()) {
    return fail(make_error(ErrorCode::kInvalid, "park", "what was not captured"));
  }
  return ParkedProcess::write_record(captured_->frozen(), captured_->image().SerializeAsString(),
                                     session_, session_);
}

Result<void> ParkTest::park() {
  MIGRATE_TRY(write_record());
  parked_.emplace(MIGRATE_TRY(ParkedProcess::park(captured_->frozen(), captured_->process())));
  return {};
}

void ParkTest::capture_and_park() {
  capture();
  const auto parked = park();
  ASSERT_TRUE(parked) << parked.error().message();
}

void ParkTest::let_it_loop() {
  ASSERT_TRUE(parked_->close({}));
}

void ParkTest::expect_answer() {
  const int before = handled(SIGUSR1);
  ::kill(pid(), SIGUSR1);
  EXPECT_TRUE(comes_true([&] { return handled(SIGUSR1) > before; })) << "it does not run";
}

void ParkTest::expect_rest() const {
  const std::string threads = folder_of(pid()) + "/task/";
  EXPECT_TRUE(comes_true([&] {
    const std::vector<std::string> names = list_directory(threads).value();
    return std::ranges::all_of(names, [&](const std::string& name) {
      const std::string call = read_file((threads + name).append("/syscall")).value_or("");
      return call.starts_with(std::to_string(SYS_pause) + " ");
    });
  })) << "it does not come to rest";
}

siginfo_t ParkTest::next_signal() const {
  constexpr int kTimeoutMs = 5000;
  siginfo_t signal{};
  pollfd polled{parked_->signal_pipe(), POLLIN, 0};
  if (::poll(&polled, 1, kTimeoutMs) == 1) {
    EXPECT_EQ(::read(polled.fd, &signal, sizeof(signal)), static_cast<ssize_t>(sizeof(signal)));
  }
  return signal;
}

void ParkTest::ask_leader(const std::function<void(Script&)>& build,
                          const std::function<void(const Script&)>& read) {
  ASSERT_TRUE(interrupt(pid()));
  ASSERT_TRUE(wait_stop(pid()));
  const arch::GeneralRegisters registers = arch::read_registers(pid()).value();
  Script script(captured_->frozen().area());
  build(script);
  if (read == nullptr) {  // It does not come back.
    ASSERT_TRUE(script.load(pid(), registers, kAllSignals));
  } else {
    ASSERT_TRUE(script.run(pid(), registers, kAllSignals));
    read(script);
  }
  ASSERT_TRUE(resume(pid()));
}

std::string ParkTest::facts() const {
  const std::string folder = folder_of(pid());
  std::string told = read_file(folder + "/maps").value() + status_lines(folder + "/status") +
                     read_link(folder + "/cwd").value() + "\n";
  std::vector<std::string> threads = list_directory(folder + "/task").value();
  std::ranges::sort(threads);
  for (const std::string& thread : threads) {
    told += status_lines(folder + "/task/" + thread + "/status");
  }
  for (const std::uint32_t number : descriptors(pid())) {
    const std::string name = std::to_string(number);
    told += name + " " + read_link(folder + "/fd/" + name).value() + "\n" +
            read_file(folder + "/fdinfo/" + name).value();
  }
  return told;
}

std::set<std::uint32_t> ParkTest::descriptors(pid_t of) const {
  std::set<std::uint32_t> numbers;
  const std::vector<std::string> names = list_directory(folder_of(of) + "/fd").value();
  for (const std::string& name : names) {
    numbers.insert(static_cast<std::uint32_t>(std::stoul(name)));
  }
  return numbers;
}

bool ParkTest::is_traced() const {
  return read_file(folder_of(pid()) + "/status").value().find("TracerPid:\t0\n") ==
         std::string::npos;
}

bool ParkTest::is_stopped() const {
  return read_file(folder_of(pid()) + "/status").value().find("State:\tT") != std::string::npos;
}

int ParkTest::byte_at(pid_t of, const void* place) const {
  std::byte byte{};
  return read_memory(of, reinterpret_cast<std::uint64_t>(place), std::span(&byte, 1))
             ? std::to_integer<int>(byte)
             : -1;
}

}  // namespace migrate::test
