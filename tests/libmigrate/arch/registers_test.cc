// What the registers of a stopped thread say of its system call, and how it goes on.
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "libmigrate/arch/arch.h"

namespace migrate::arch {
namespace {

// As a tracer sees them (include/linux/errno.h).
constexpr std::int64_t kRestartSys = -512;
constexpr std::int64_t kRestartNoIntr = -513;
constexpr std::int64_t kRestartNoHand = -514;
constexpr std::int64_t kRestartBlock = -516;
constexpr std::uint64_t kPlace = 0x400002;  // behind the two bytes of a system call

/// Of a thread that was stopped in call `number`, which gave `result`.
GeneralRegisters in_call(std::int64_t number, std::int64_t result) {
  GeneralRegisters registers{};
  registers.orig_rax = static_cast<std::uint64_t>(number);
  registers.rax = static_cast<std::uint64_t>(result);
  registers.rip = kPlace;
  registers.rsp = 0x7000;
  registers.rdi = 1;
  registers.rsi = 2;
  registers.rdx = 3;
  registers.r10 = 4;
  registers.r8 = 5;
  registers.r9 = 6;
  return registers;
}
/// Of one that was stopped in its own code.
GeneralRegisters outside() {
  return in_call(-1, 42);
}

TEST(Registers, TellWhichCallWasInterrupted) {
  const InterruptedCall call = interrupted_call(in_call(SYS_nanosleep, kRestartBlock));
  EXPECT_EQ(call.number, SYS_nanosleep);
  EXPECT_TRUE(call.restart_block);
  for (std::uint64_t i = 0; i < 6; ++i) {
    EXPECT_EQ(call.arguments[i], i + 1);
  }
  EXPECT_FALSE(interrupted_call(in_call(SYS_read, kRestartSys)).restart_block);
  EXPECT_EQ(interrupted_call(outside()).number, -1);
}

TEST(Registers, OfAScriptAreInNoCall) {
  GeneralRegisters base = in_call(SYS_read, kRestartSys);
  base.eflags = 0x746;  // with TF and DF
  const GeneralRegisters script = script_registers(base, 0x9000, 0xa000);
  EXPECT_EQ(instruction_pointer(script), 0x9000U);
  EXPECT_EQ(script.rbx, 0xa000U);
  EXPECT_EQ(script.eflags, 0x246U);
  EXPECT_EQ(interrupted_call(script).number, -1) << "the kernel would restart it";
  EXPECT_EQ(stack_pointer(script), stack_pointer(base));
}

TEST(Registers, OfOneCallHaveItsNumberAndArguments) {
  const GeneralRegisters call =
      system_call_registers(outside(), 0x9000, SYS_mmap, {11, 12, 13, 14, 15, 16});
  EXPECT_EQ(instruction_pointer(call), 0x9000U);
  EXPECT_EQ(call.rax, static_cast<std::uint64_t>(SYS_mmap));
  const std::array<std::uint64_t, 6> arguments{call.rdi, call.rsi, call.rdx,
                                               call.r10, call.r8,  call.r9};
  EXPECT_EQ(arguments, (std::array<std::uint64_t, 6>{11, 12, 13, 14, 15, 16}));
}

TEST(Registers, ACallThatIsRestartedBeginsAtItsInstruction) {
  for (const std::int64_t result : {kRestartSys, kRestartNoIntr, kRestartNoHand}) {
    const GeneralRegisters again = restarted(in_call(SYS_read, result));
    EXPECT_EQ(again.rip, kPlace - 2);
    EXPECT_EQ(again.rax, static_cast<std::uint64_t>(SYS_read));
  }
  const GeneralRegisters block = restarted(in_call(SYS_nanosleep, kRestartBlock));
  EXPECT_EQ(block.rip, kPlace - 2);
  EXPECT_EQ(block.rax, static_cast<std::uint64_t>(SYS_restart_syscall));
}

TEST(Registers, WhatIsOverIsNotRestarted) {
  for (const GeneralRegisters& registers :
       {in_call(SYS_read, 7), in_call(SYS_read, -EINTR), in_call(SYS_read, -515), outside()}) {
    const GeneralRegisters same = restarted(registers);
    EXPECT_EQ(same.rip, registers.rip);
    EXPECT_EQ(same.rax, registers.rax);
  }
  // A program may have any number in that register.
  EXPECT_EQ(restarted(in_call(-1, kRestartSys)).rip, kPlace);
}

// To be stopped is no reason for a program to see EINTR.
TEST(Registers, AStopIsForgivenWhereTheKernelDoesNot) {
  for (const std::int64_t number : {SYS_epoll_wait, SYS_epoll_pwait, SYS_rt_sigtimedwait, SYS_semop,
                                    SYS_msgrcv, SYS_msgsnd, SYS_io_getevents}) {
    GeneralRegisters registers = in_call(number, -EINTR);
    forgive_stop(registers);
    EXPECT_TRUE(is_repeated(registers)) << number;
    EXPECT_EQ(restarted(registers).rax, static_cast<std::uint64_t>(number));
  }
  for (const GeneralRegisters& other :
       {in_call(SYS_read, -EINTR), in_call(SYS_semop, -EAGAIN), in_call(SYS_semop, 0)}) {
    GeneralRegisters registers = other;
    forgive_stop(registers);
    EXPECT_FALSE(is_repeated(registers));
  }
}

TEST(Registers, ARestartedCallIsNamedByTheCodeInFrontOfIt) {
  // mov $NUMBER, %eax; xor %edi, %edi; syscall
  std::vector<std::byte> code{
      std::byte{0xb8}, {}, {}, {}, {}, std::byte{0x31}, std::byte{0xff}, std::byte{0x0f},
      std::byte{0x05}};
  const auto put = [&](std::uint32_t number) { std::memcpy(&code[1], &number, sizeof number); };
  GeneralRegisters registers = in_call(SYS_restart_syscall, kRestartBlock);
  ASSERT_TRUE(is_restarted_call(registers));
  put(SYS_futex);
  name_restarted_call(registers, code);
  EXPECT_EQ(interrupted_call(registers).number, SYS_futex);
  EXPECT_FALSE(is_restarted_call(registers));
}

// No number that could be one of those calls: it gives EINTR, which programs must expect.
TEST(Registers, ARestartedCallThatCannotBeNamedIsInterrupted) {
  const std::uint32_t number = SYS_read;
  std::vector<std::byte> code(5, std::byte{0xb8});
  std::memcpy(&code[1], &number, sizeof number);
  for (const std::vector<std::byte>& before :
       {code, std::vector<std::byte>(), std::vector<std::byte>(4, std::byte{0xb8})}) {
    GeneralRegisters registers = in_call(SYS_restart_syscall, kRestartBlock);
    name_restarted_call(registers, before);
    EXPECT_EQ(result_of(registers), -EINTR);
    EXPECT_EQ(interrupted_call(registers).number, -1);
  }
}

TEST(Registers, OnlyTheVeryCallIsContinued) {
  EXPECT_TRUE(can_continue(in_call(SYS_clock_nanosleep, kRestartBlock), SYS_clock_nanosleep));
  EXPECT_FALSE(can_continue(in_call(SYS_clock_nanosleep, kRestartBlock), SYS_nanosleep));
  EXPECT_FALSE(can_continue(in_call(SYS_clock_nanosleep, kRestartSys), SYS_clock_nanosleep));
}

TEST(Registers, AThreadIsInItsLoopWithItsOwnArgumentOnly) {
  const GeneralRegisters registers = script_registers(outside(), 0x9008, 0xa000);
  EXPECT_TRUE(is_in_loop(registers, 0x9008, 0x9010, 0xa000));
  EXPECT_FALSE(is_in_loop(registers, 0x9000, 0x9008, 0xa000));
  EXPECT_FALSE(is_in_loop(registers, 0x9000, 0x9010, 0xa001));
}

TEST(Registers, AThreadThatIsSentElsewhereRestartsNothing) {
  GeneralRegisters registers = in_call(SYS_read, kRestartSys);
  jump_to(registers, 0x5000);
  EXPECT_EQ(restarted(registers).rip, 0x5000U);
  registers = in_call(SYS_read, kRestartSys);
  complete_call(registers, 9);
  EXPECT_EQ(result_of(restarted(registers)), 9);
  EXPECT_EQ(restarted(registers).rip, kPlace);
}

TEST(WayBack, LeadsToWhereTheThreadWas) {
  const WayBack back = way_back(in_call(SYS_read, kRestartSys), 0xf0);
  EXPECT_EQ(back.signal_mask, 0xf0U);
  EXPECT_EQ(back.rip, kPlace - 2) << "the call is restarted";
  EXPECT_EQ(back.rax, static_cast<std::uint64_t>(SYS_read));
  EXPECT_EQ(back.rsp, 0x7000U);
  EXPECT_EQ(back.rdi, 1U);
  EXPECT_EQ(back.r10, 4U);
  EXPECT_EQ(way_back(outside(), 0).rip, kPlace);
}

TEST(Interpreter, ItsCodeHasItsEntries) {
  const InterpreterCode code = interpreter_code();
  for (const std::size_t offset : {code.run_offset, code.system_call_offset, code.end_offset,
                                   code.park_offset, code.idle_offset}) {
    EXPECT_LT(offset, code.bytes.size());
  }
  EXPECT_LE(code.bytes.size(), kWayBackOffset) << "what it goes back by is behind it";
  EXPECT_EQ(find_system_call(code.bytes.subspan(code.system_call_offset)), 0);
}

TEST(Interpreter, ASystemCallIsFoundWhereverItIs) {
  std::vector<std::byte> code(16, std::byte{0x90});
  EXPECT_EQ(find_system_call(code), -1);
  EXPECT_EQ(find_system_call({}), -1);
  code[15] = std::byte{0x0f};
  EXPECT_EQ(find_system_call(code), -1) << "half of one";
  code[14] = std::byte{0x0f};
  code[15] = std::byte{0x05};
  EXPECT_EQ(find_system_call(code), 14);
}

TEST(ScriptSignal, IsToldFromThatOfSomeoneElse) {
  siginfo_t others{};
  others.si_signo = kScriptSignal;
  others.si_code = SI_USER;
  others.si_pid = 4711;
  EXPECT_FALSE(is_script_signal(others));
  const WayBack back = way_back(outside(), 0);
  siginfo_t own{};
  std::memcpy(&own, back.signal_information, sizeof own);
  EXPECT_EQ(own.si_signo, kScriptSignal);
  EXPECT_TRUE(is_script_signal(own));
}

}  // namespace
}  // namespace migrate::arch
