// A thread that is stopped: its registers, and the interpreter's code run by it.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>

#include "libmigrate/arch/arch.h"

namespace migrate::arch {
namespace {

constexpr std::int64_t kRepeated = -514;
constexpr std::size_t kAreaBytes = 4096;

/// A child that does nothing but pause(2), stopped in it, and a page that it may execute.
class StoppedThread : public testing::Test {
 protected:
  void SetUp() override {
    void* const area = ::mmap(nullptr, kAreaBytes, PROT_READ | PROT_WRITE | PROT_EXEC,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(area, MAP_FAILED);
    area_ = static_cast<std::byte*>(area);
    thread_ = ::fork();
    if (thread_ == 0) {
      for (;;) {
        ::syscall(SYS_pause);
      }
    }
    ASSERT_GT(thread_, 0);
    ASSERT_EQ(::ptrace(PTRACE_SEIZE, thread_, nullptr, nullptr), 0);
    stop_in_pause();
  }
  void TearDown() override {
    if (thread_ > 0) {
      ::kill(thread_, SIGKILL);
      ::waitpid(thread_, nullptr, 0);
    }
    ::munmap(area_, kAreaBytes);
  }

  /// Stops it again and again, until it is in the call.
  void stop_in_pause() {
    for (;;) {
      ASSERT_EQ(::ptrace(PTRACE_INTERRUPT, thread_, nullptr, nullptr), 0);
      int status = 0;
      ASSERT_EQ(::waitpid(thread_, &status, 0), thread_);
      ASSERT_TRUE(WIFSTOPPED(status));
      const GeneralRegisters registers = read_registers(thread_).value();
      if (interrupted_call(registers).number == SYS_pause && is_repeated(registers)) {
        return;
      }
      ASSERT_EQ(::ptrace(PTRACE_CONT, thread_, nullptr, nullptr), 0);
      ::usleep(1000);
    }
  }
  /// Lets it go on until the next signal that its tracer hears of.
  int go_on(__ptrace_request how) const {
    int status = 0;
    EXPECT_EQ(::ptrace(how, thread_, nullptr, nullptr), 0);
    EXPECT_EQ(::waitpid(thread_, &status, 0), thread_);
    return WIFSTOPPED(status) ? WSTOPSIG(status) : 0;
  }
  std::uint64_t address(std::size_t offset) const {
    return reinterpret_cast<std::uint64_t>(area_) + offset;
  }

  std::byte* area_ = nullptr;
  pid_t thread_ = -1;
};

TEST_F(StoppedThread, IsInItsCallWhichTheKernelWouldRestart) {
  const GeneralRegisters registers = read_registers(thread_).value();
  EXPECT_EQ(result_of(registers), kRepeated);
  EXPECT_TRUE(is_repeated(registers));
  EXPECT_FALSE(is_restarted_call(registers));
  EXPECT_EQ(restarted(registers).rax, static_cast<std::uint64_t>(SYS_pause));
  EXPECT_EQ(place_of(thread_), instruction_pointer(registers));
}

TEST_F(StoppedThread, ItsRegistersAreWhatIsWritten) {
  GeneralRegisters registers = read_registers(thread_).value();
  registers.rbx = 0x1122334455667788;
  registers.r15 = 7;
  complete_call(registers, -EINTR);
  ASSERT_TRUE(write_registers(thread_, registers));
  const GeneralRegisters now = read_registers(thread_).value();
  EXPECT_EQ(std::memcmp(&now, &registers, sizeof now), 0);
}

TEST_F(StoppedThread, ItsExtendedStateComesBackAsItWas) {
  constexpr std::size_t kFirstVectorRegister = 160;  // XMM0, in the area's old part
  constexpr std::size_t kComponents = 512;           // XSTATE_BV
  std::string state = read_extended_state(thread_).value();
  ASSERT_GT(state.size(), kComponents + 64);
  state.replace(kFirstVectorRegister, 16, "sixteen letters!");
  state[kComponents] = static_cast<char>(state[kComponents] | 2);
  ASSERT_TRUE(write_extended_state(thread_, state));
  EXPECT_EQ(read_extended_state(thread_).value(), state);
  const auto known = decode_processor_state(processor_state());
  ASSERT_TRUE(known);
  EXPECT_LE(known->area_bytes, state.size());
}

TEST_F(StoppedThread, AStateThatItsProcessorDoesNotKnowIsAnError) {
  constexpr std::size_t kComponents = 512;
  const std::string state = read_extended_state(thread_).value();
  std::string other = state;
  other.replace(kComponents, 8, 8, '\x7f');  // Components of processors to come.
  EXPECT_FALSE(write_extended_state(thread_, other));
  EXPECT_FALSE(write_extended_state(thread_, "short"));
  EXPECT_EQ(read_extended_state(thread_).value(), state);
}

TEST_F(StoppedThread, MakesOneCallAndGoesOn) {
  const GeneralRegisters before = read_registers(thread_).value();
  const std::uint64_t call = restarted(before).rip;  // Its own system call instruction.
  ASSERT_TRUE(write_registers(
      thread_, system_call_registers(before, call, SYS_getppid, {1, 2, 3, 4, 5, 6})));
  ASSERT_EQ(go_on(PTRACE_SINGLESTEP), SIGTRAP);
  EXPECT_EQ(result_of(read_registers(thread_).value()), ::getpid());
  ASSERT_TRUE(write_registers(thread_, restarted(before)));
  ASSERT_EQ(::ptrace(PTRACE_CONT, thread_, nullptr, nullptr), 0);
  stop_in_pause();
  EXPECT_EQ(read_registers(thread_)->rip, before.rip);
}

TEST_F(StoppedThread, RunsAScriptAndGoesItsWayBack) {
  const InterpreterCode code = interpreter_code();
  std::memcpy(area_, code.bytes.data(), code.bytes.size());
  const GeneralRegisters before = read_registers(thread_).value();
  auto* const way = new (area_ + kWayBackOffset) WayBack(way_back(before, 0));
  auto* const script = new (way + 1) ScriptEntry[4];
  script[0] = {.number = SYS_getpid};
  script[1] = {.number = SYS_dup2, .arguments = {0, 77}};
  script[2] = {.number = SYS_close, .arguments = {12'345}};
  ASSERT_TRUE(
      write_registers(thread_, script_registers(before, address(code.run_offset),
                                                reinterpret_cast<std::uint64_t>(&script[0]))));
  ASSERT_EQ(go_on(PTRACE_CONT), kScriptSignal);
  siginfo_t told{};
  ASSERT_EQ(::ptrace(PTRACE_GETSIGINFO, thread_, nullptr, &told), 0);
  EXPECT_TRUE(is_script_signal(told));
  EXPECT_EQ(instruction_pointer(read_registers(thread_).value()), address(code.end_offset));
  EXPECT_EQ(script[0].result, thread_);
  EXPECT_EQ(script[1].result, 77);
  EXPECT_EQ(script[2].result, -EBADF);
  ASSERT_EQ(::ptrace(PTRACE_CONT, thread_, nullptr, nullptr), 0);
  stop_in_pause();
  const GeneralRegisters after = read_registers(thread_).value();
  EXPECT_EQ(after.rip, before.rip);
  EXPECT_EQ(after.rsp, before.rsp);
  EXPECT_EQ(after.rbx, before.rbx);
  EXPECT_EQ(after.r12, before.r12);
  EXPECT_EQ(after.rbp, before.rbp);
}

TEST(Thread, OneThatNobodyTracesIsAnError) {
  EXPECT_EQ(read_registers(::getpid()).error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(write_registers(::getpid(), {}));
  EXPECT_FALSE(read_extended_state(::getpid()));
  EXPECT_FALSE(write_extended_state(::getpid(), std::string(576, '\0')));
}

TEST(Parking, ASignalIsCarriedFromTheWaitToTheEndOfItsWriting) {
  constexpr std::uint64_t kCode = 0x9000;
  const InterpreterCode code = interpreter_code();
  const auto carries = [&](std::size_t offset, std::int64_t result) {
    GeneralRegisters registers{};
    registers.rip = kCode + offset;
    registers.rax = static_cast<std::uint64_t>(result);
    return carries_signal(registers, kCode);
  };
  EXPECT_TRUE(carries(code.taken_offset, SIGUSR1));
  EXPECT_FALSE(carries(code.taken_offset, -EINTR));
  EXPECT_FALSE(carries(code.taken_offset, kRepeated));
  EXPECT_TRUE(carries(code.written_offset - 2, SYS_write));  // About to make the call.
  for (const std::int64_t again :
       {std::int64_t{-EINTR}, std::int64_t{-512}, kRepeated, std::int64_t{-516}}) {
    EXPECT_TRUE(carries(code.written_offset, again)) << again;
  }
  EXPECT_FALSE(carries(code.written_offset, 128));
  EXPECT_FALSE(carries(code.written_offset, -EPIPE));
  EXPECT_FALSE(carries(code.park_offset, SIGUSR1));  // Before the wait.
  EXPECT_FALSE(carries(code.idle_offset, SIGUSR1));
}

TEST(WayBack, HasEachRegisterInItsPlace) {
  GeneralRegisters registers{};
  unsigned long long next = 1;
  for (auto* const each :
       {&registers.rax, &registers.rbx, &registers.rcx, &registers.rdx, &registers.rsi,
        &registers.rdi, &registers.rbp, &registers.r8, &registers.r9, &registers.r10,
        &registers.r11, &registers.r12, &registers.r13, &registers.r14, &registers.r15}) {
    *each = next++;
  }
  registers.orig_rax = ~0ULL;
  registers.eflags = 0x346;  // With TF: the thread was stepped, and need not be.
  const WayBack back = way_back(registers, 0);
  EXPECT_EQ(back.flags, 0x246U);
  next = 1;
  for (const std::uint64_t each :
       {back.rax, back.rbx, back.rcx, back.rdx, back.rsi, back.rdi, back.rbp, back.r8, back.r9,
        back.r10, back.r11, back.r12, back.r13, back.r14, back.r15}) {
    EXPECT_EQ(each, next++);
  }
}

}  // namespace
}  // namespace migrate::arch
