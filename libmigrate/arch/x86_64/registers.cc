#include "libmigrate/arch/x86_64/registers.h"

#include <elf.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace migrate::arch {
namespace {

// Kernel-internal error numbers that a tracer sees (include/linux/errno.h).
constexpr std::int64_t kRestartSys = -512;
constexpr std::int64_t kRestartNoHand = -514;
constexpr std::int64_t kRestartBlock = -516;

constexpr std::array<std::int64_t, 9> kInterruptedByStops{
    SYS_epoll_wait, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_rt_sigtimedwait, SYS_semop,
    SYS_semtimedop, SYS_msgrcv,      SYS_msgsnd,       SYS_io_getevents};

// AVX-512 and PKRU fit in 2.7 KiB; AMX tiles take 8 KiB more.
constexpr std::size_t kStateBufferBytes = 16384;

Result<std::size_t> get_set(pid_t thread, int set, void* bytes, std::size_t length) {
  iovec vector{bytes, length};
  if (::ptrace(PTRACE_GETREGSET, thread, set, &vector) != 0) {
    return fail(system_error("read registers of", "thread " + std::to_string(thread)));
  }
  return vector.iov_len;
}

Result<void> put_set(pid_t thread, int set, void* bytes, std::size_t length) {
  iovec vector{bytes, length};
  if (::ptrace(PTRACE_SETREGSET, thread, set, &vector) != 0) {
    return fail(system_error("write registers of", "thread " + std::to_string(thread)));
  }
  return {};
}

}  // namespace

Result<GeneralRegisters> read_registers(pid_t thread) {
  GeneralRegisters registers{};
  MIGRATE_TRY(get_set(thread, NT_PRSTATUS, &registers, sizeof(registers)));
  return registers;
}

Result<void> write_registers(pid_t thread, const GeneralRegisters& registers) {
  GeneralRegisters copy = registers;
  return put_set(thread, NT_PRSTATUS, &copy, sizeof(copy));
}

Result<std::string> read_extended_state(pid_t thread) {
  std::array<char, kStateBufferBytes> buffer;
  const std::size_t length =
      MIGRATE_TRY(get_set(thread, NT_X86_XSTATE, buffer.data(), buffer.size()));
  return std::string(buffer.data(), length);
}

Result<void> write_extended_state(pid_t thread, const std::string& state) {
  std::string copy = state;
  return put_set(thread, NT_X86_XSTATE, copy.data(), copy.size());
}

GeneralRegisters script_registers(const GeneralRegisters& base, std::uint64_t code,
                                  std::uint64_t argument) {
  GeneralRegisters registers = base;
  registers.rip = code;
  registers.rbx = argument;
  registers.rax = 0;
  registers.orig_rax = ~0ULL;
  registers.eflags &= ~0x500ULL;  // No single step (TF), no backward strings (DF).
  return registers;
}

GeneralRegisters system_call_registers(const GeneralRegisters& base, std::uint64_t code,
                                       std::int64_t number, const std::uint64_t (&arguments)[6]) {
  GeneralRegisters registers = script_registers(base, code, base.rbx);
  registers.rax = static_cast<std::uint64_t>(number);
  registers.rdi = arguments[0];
  registers.rsi = arguments[1];
  registers.rdx = arguments[2];
  registers.r10 = arguments[3];
  registers.r8 = arguments[4];
  registers.r9 = arguments[5];
  return registers;
}

InterruptedCall interrupted_call(const GeneralRegisters& registers) {
  InterruptedCall call;
  if (static_cast<std::int64_t>(registers.orig_rax) < 0) {
    return call;
  }
  call.number = static_cast<std::int64_t>(registers.orig_rax);
  call.restart_block = result_of(registers) == kRestartBlock;
  const std::uint64_t arguments[6] = {registers.rdi, registers.rsi, registers.rdx,
                                      registers.r10, registers.r8,  registers.r9};
  std::copy(std::begin(arguments), std::end(arguments), std::begin(call.arguments));
  return call;
}

bool is_restarted_call(const GeneralRegisters& registers) {
  return result_of(registers) == kRestartBlock &&
         static_cast<std::int64_t>(registers.orig_rax) == SYS_restart_syscall;
}

void name_restarted_call(GeneralRegisters& registers, std::span<const std::byte> before) {
  constexpr std::byte kMoveToEax{0xb8};  // mov $number, %eax
  constexpr std::array<std::uint32_t, 4> kRestartable{SYS_nanosleep, SYS_clock_nanosleep, SYS_futex,
                                                      SYS_poll};
  for (std::size_t end = before.size(); end >= 5; --end) {
    std::uint32_t number = 0;
    std::memcpy(&number, &before[end - 4], sizeof(number));
    if (before[end - 5] == kMoveToEax &&
        std::find(kRestartable.begin(), kRestartable.end(), number) != kRestartable.end()) {
      registers.orig_rax = number;
      return;
    }
  }
  complete_call(registers, -EINTR);
}

void name_restarted_call(GeneralRegisters& registers, std::int64_t number) {
  registers.orig_rax = static_cast<std::uint64_t>(number);
}

void forgive_stop(GeneralRegisters& registers) {
  const auto number = static_cast<std::int64_t>(registers.orig_rax);
  if (result_of(registers) == -EINTR &&
      std::find(kInterruptedByStops.begin(), kInterruptedByStops.end(), number) !=
          kInterruptedByStops.end()) {
    repeat_call(registers);
  }
}

void repeat_call(GeneralRegisters& registers) {
  registers.rax = static_cast<std::uint64_t>(kRestartNoHand);
}

bool is_repeated(const GeneralRegisters& registers) {
  return result_of(registers) == kRestartNoHand;
}

GeneralRegisters restarted(const GeneralRegisters& registers) {
  constexpr std::uint64_t kInstructionBytes = 2;
  GeneralRegisters back = registers;
  const std::int64_t result = result_of(registers);
  if (static_cast<std::int64_t>(registers.orig_rax) < 0) {
    return back;
  }
  if (result == kRestartBlock) {
    back.rax = SYS_restart_syscall;
    back.rip -= kInstructionBytes;
  } else if (result <= kRestartSys && result >= kRestartNoHand) {
    back.rax = registers.orig_rax;
    back.rip -= kInstructionBytes;
  }
  return back;
}

void jump_to(GeneralRegisters& registers, std::uint64_t place) {
  registers.rip = place;
  registers.orig_rax = ~0ULL;
}

bool can_continue(const GeneralRegisters& registers, std::int64_t number) {
  return result_of(registers) == kRestartBlock &&
         static_cast<std::int64_t>(registers.orig_rax) == number;
}

bool is_in_loop(const GeneralRegisters& registers, std::uint64_t first, std::uint64_t end,
                std::uint64_t argument) {
  return registers.rip >= first && registers.rip < end && registers.rbx == argument;
}

void complete_call(GeneralRegisters& registers, std::int64_t result) {
  registers.rax = static_cast<std::uint64_t>(result);
  registers.orig_rax = ~0ULL;
}

}  // namespace migrate::arch
