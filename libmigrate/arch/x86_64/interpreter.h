#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace migrate::arch {

/// One system call of a script: number, six arguments, and the place for its result.
struct ScriptEntry {
  std::int64_t number = -1;  ///< Negative ends the script.
  std::uint64_t arguments[6] = {};
  std::int64_t result = 0;  ///< Return value, or -errno.
};
static_assert(sizeof(ScriptEntry) == 64);

/// What the parked leader's loop uses; lives in the process, in the script area's first data page.
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
/// registers.h:script_registers() sets; it ends with a breakpoint. The parking loop takes the
/// address of ParkingData: it waits for signals and writes each one's siginfo to the pipe, for
/// ever. The idle loop only pauses; it is for the parked threads that are not the leader.
struct InterpreterCode {
  std::span<const std::byte> bytes;
  std::size_t run_offset;
  std::size_t system_call_offset;  ///< Of a bare system call instruction.
  std::size_t park_offset;
  std::size_t idle_offset;
};
InterpreterCode interpreter_code();

/// Offset of a system call instruction in `code`, or -1.
std::ptrdiff_t find_system_call(std::span<const std::byte> code);

}  // namespace migrate::arch
