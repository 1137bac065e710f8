#pragma once

#include <signal.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "libmigrate/arch/x86_64/registers.h"

namespace migrate::arch {

/// One system call of a script: number, six arguments, and the place for its result.
struct ScriptEntry {
  std::int64_t number = -1;  ///< Negative ends the script.
  std::uint64_t arguments[6] = {};
  std::int64_t result = 0;  ///< Return value, or -errno.
};
static_assert(sizeof(ScriptEntry) == 64);

/// The signal that a thread sends itself at the end of a script: its tracer is told, and without
/// one nothing happens, since it is ignored unless the program handles it. SIGURG is the one that
/// programs must expect at any time.
inline constexpr int kScriptSignal = SIGURG;

/// How a thread goes on by itself when its script is over and nobody traces it any more. Lives in
/// the process, in front of the script's entries.
struct WayBack {
  std::uint64_t all_signals = ~0ULL;  ///< Blocked while the thread has no stack.
  std::uint64_t signal_mask = 0;
  std::byte signal_information[128] = {};  ///< Of kScriptSignal.
  std::uint64_t flags = 0;
  std::uint64_t rsp = 0;
  std::uint64_t rip = 0;
  std::uint64_t rax = 0, rbx = 0, rcx = 0, rdx = 0, rsi = 0, rdi = 0, rbp = 0;
  std::uint64_t r8 = 0, r9 = 0, r10 = 0, r11 = 0, r12 = 0, r13 = 0, r14 = 0, r15 = 0;
  std::uint64_t reserved[4] = {};
};
static_assert(offsetof(WayBack, signal_mask) == 8 && offsetof(WayBack, signal_information) == 16 &&
              offsetof(WayBack, flags) == 144 && offsetof(WayBack, rax) == 168 &&
              offsetof(WayBack, r8) == 224 && offsetof(WayBack, r15) == 280);
static_assert(sizeof(WayBack) == 5 * sizeof(ScriptEntry));
inline constexpr std::size_t kWayBackOffset = 512;  ///< From the start of the code.

/// The way back to where a thread was stopped with `registers`. A system call that was interrupted
/// there is restarted, as the kernel would.
WayBack way_back(const GeneralRegisters& registers, std::uint64_t signal_mask);

/// False when a kScriptSignal was sent by someone else. (The kernel drops all but the number where
/// the user's queue is full.)
bool is_script_signal(const siginfo_t& information);

/// What the parked leader's loop uses; lives in the process, in the script area's parking page.
struct ParkingData {
  std::uint64_t all_signals = ~0ULL;  ///< The set that it waits for.
  std::uint64_t pipe_descriptor = 0;  ///< Where siginfo records go, 128 bytes each.
  std::byte signal_information[128] = {};
};
inline constexpr std::size_t kSignalSetOffset = 0;
inline constexpr std::size_t kPipeDescriptorOffset = 8;
inline constexpr std::size_t kSignalInformationOffset = 16;
static_assert(offsetof(ParkingData, all_signals) == kSignalSetOffset);
static_assert(offsetof(ParkingData, pipe_descriptor) == kPipeDescriptorOffset);
static_assert(offsetof(ParkingData, signal_information) == kSignalInformationOffset);

/// Position-independent code for the script area, and where its entry points lie in it.
/// The interpreter takes the first entry's address in the register that
/// registers.h:script_registers() sets; it ends with kScriptSignal, and after that goes the way
/// back, which it finds kWayBackOffset bytes after the code's start. The parking loop takes the
/// address of ParkingData: it waits for signals and writes each one's siginfo to the pipe, for
/// ever. The idle loop only pauses; it is for the parked threads that are not the leader.
struct InterpreterCode {
  std::span<const std::byte> bytes;
  std::size_t run_offset;
  std::size_t system_call_offset;  ///< Of a bare system call instruction.
  std::size_t end_offset;          ///< Where a script is over and its thread has told so.
  std::size_t park_offset;
  std::size_t taken_offset;    ///< In the parking loop: behind the wait for a signal.
  std::size_t written_offset;  ///< In the parking loop: behind the call that writes it.
  std::size_t idle_offset;
};
InterpreterCode interpreter_code();

/// Whether a thread that was stopped in the parking loop, whose code begins at `code`, has taken a
/// signal that it has not written yet: that stands in its ParkingData.
bool carries_signal(const GeneralRegisters& registers, std::uint64_t code);

inline constexpr std::size_t kSystemCallBytes = 2;  ///< Of a system call instruction.
/// Offset of a system call instruction in `code`, or -1.
std::ptrdiff_t find_system_call(std::span<const std::byte> code);

}  // namespace migrate::arch
