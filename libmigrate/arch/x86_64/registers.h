#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"

namespace migrate::arch {

/// General registers of one stopped thread.
using GeneralRegisters = user_regs_struct;

/// Signals 1 to 64, each with an action as the kernel has it (its struct sigaction).
inline constexpr std::size_t kSignals = 64;
inline constexpr std::size_t kSignalActionBytes = 32;

/// Reads and writes the general registers of a ptrace-stopped thread. Thread: its tracer.
Result<GeneralRegisters> read_registers(pid_t thread);
Result<void> write_registers(pid_t thread, const GeneralRegisters& registers);

/// The XSAVE area (x87, SSE, AVX, AVX-512, PKRU, whatever this CPU has). Thread: the tracer.
Result<std::string> read_extended_state(pid_t thread);
Result<void> write_extended_state(pid_t thread, const std::string& state);

/// Registers that run a script: `code` is the interpreter's entry, `argument` the address that it
/// takes. Marks the thread as outside any system call, so that the kernel restarts none.
GeneralRegisters script_registers(const GeneralRegisters& base, std::uint64_t code,
                                  std::uint64_t argument);

/// Registers that execute the one system call instruction at `code`.
GeneralRegisters system_call_registers(const GeneralRegisters& base, std::uint64_t code,
                                       std::int64_t number, const std::uint64_t (&arguments)[6]);

inline std::int64_t result_of(const GeneralRegisters& registers) {
  return static_cast<std::int64_t>(registers.rax);
}
inline std::uint64_t instruction_pointer(const GeneralRegisters& registers) {
  return registers.rip;
}
inline std::uint64_t stack_pointer(const GeneralRegisters& registers) {
  return registers.rsp;
}

/// What a freeze interrupted.
struct InterruptedCall {
  bool restart_block = false;  ///< The kernel kept how to restart it in the old thread: lost here.
  std::int64_t number = -1;
  std::uint64_t arguments[6] = {};
};
InterruptedCall interrupted_call(const GeneralRegisters& registers);

/// A call that the kernel restarts by its restart block goes by the number of restart_syscall.
/// Finds the number that the program used in the code before its system call instruction (`before`
/// ends with that instruction), and puts it into the registers; where it cannot be told, makes the
/// call return EINTR.
void name_restarted_call(GeneralRegisters& registers, std::span<const std::byte> before);
/// The same, when the number is known.
void name_restarted_call(GeneralRegisters& registers, std::int64_t number);
bool is_restarted_call(const GeneralRegisters& registers);

/// Some calls (epoll_wait, rt_sigtimedwait, semop and kin; signal(7) lists them) fail with EINTR
/// when their thread is merely stopped. Turns that into a repetition, which a handler that runs
/// first still makes EINTR.
void forgive_stop(GeneralRegisters& registers);

/// Makes the kernel repeat the interrupted call from its beginning when the thread goes on, unless
/// a signal handler runs first, which then sees EINTR. The other interrupted calls need nothing:
/// the kernel restarts them from the very registers.
void repeat_call(GeneralRegisters& registers);
bool is_repeated(const GeneralRegisters& registers);

/// The registers with which a thread goes on whose interrupted call the kernel restarts.
GeneralRegisters restarted(const GeneralRegisters& registers);

/// The thread goes on at `place`, whatever system call it was stopped in.
void jump_to(GeneralRegisters& registers, std::uint64_t place);

/// True when a thread is stopped inside call `number` and the kernel holds how to continue it.
bool can_continue(const GeneralRegisters& registers, std::int64_t number);

/// True for a thread whose code is in [first, end) with `argument` where script_registers() puts
/// it.
bool is_in_loop(const GeneralRegisters& registers, std::uint64_t first, std::uint64_t end,
                std::uint64_t argument);

/// Makes the interrupted call return `result`, as if it had ended.
void complete_call(GeneralRegisters& registers, std::int64_t result);

}  // namespace migrate::arch
