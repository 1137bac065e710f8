#include "libmigrate/arch/x86_64/interpreter.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

// NOLINTBEGIN(readability-identifier-naming): labels of interpreter_code.S.
extern "C" {
extern const std::byte migrate_script_start[];
extern const std::byte migrate_script_call[];
extern const std::byte migrate_script_told[];
extern const std::byte migrate_script_park[];
extern const std::byte migrate_script_taken[];
extern const std::byte migrate_script_written[];
extern const std::byte migrate_script_idle[];
extern const std::byte migrate_script_end[];
}
// NOLINTEND(readability-identifier-naming)

namespace migrate::arch {
namespace {

static_assert(kScriptSignal == 23 && kWayBackOffset == 512);  // In the code above.

constexpr std::uint64_t kTrapFlag = 0x100;
constexpr int kScriptMark = 0x4c4d5343;

}  // namespace

WayBack way_back(const GeneralRegisters& registers, std::uint64_t signal_mask) {
  const GeneralRegisters back = restarted(registers);
  WayBack way;
  way.signal_mask = signal_mask;
  siginfo_t information{};
  information.si_signo = kScriptSignal;
  information.si_code = SI_QUEUE;
  information.si_value.sival_int = kScriptMark;
  std::memcpy(way.signal_information, &information, sizeof(way.signal_information));
  way.flags = back.eflags & ~kTrapFlag;
  way.rsp = back.rsp;
  way.rip = back.rip;
  way.rax = back.rax;
  way.rbx = back.rbx;
  way.rcx = back.rcx;
  way.rdx = back.rdx;
  way.rsi = back.rsi;
  way.rdi = back.rdi;
  way.rbp = back.rbp;
  way.r8 = back.r8;
  way.r9 = back.r9;
  way.r10 = back.r10;
  way.r11 = back.r11;
  way.r12 = back.r12;
  way.r13 = back.r13;
  way.r14 = back.r14;
  way.r15 = back.r15;
  return way;
}

InterpreterCode interpreter_code() {
  const std::byte* start = migrate_script_start;
  return {.bytes = {start, migrate_script_end},
          .run_offset = 0,
          .system_call_offset = static_cast<std::size_t>(migrate_script_call - start),
          .end_offset = static_cast<std::size_t>(migrate_script_told - start),
          .park_offset = static_cast<std::size_t>(migrate_script_park - start),
          .taken_offset = static_cast<std::size_t>(migrate_script_taken - start),
          .written_offset = static_cast<std::size_t>(migrate_script_written - start),
          .idle_offset = static_cast<std::size_t>(migrate_script_idle - start)};
}

bool carries_signal(const GeneralRegisters& registers, std::uint64_t code) {
  const InterpreterCode loop = interpreter_code();
  const std::uint64_t at = registers.rip - code;
  const std::int64_t result = result_of(registers);
  if (at >= loop.taken_offset && at < loop.written_offset) {
    // Of the wait, until the call's number takes its place: an error, or above zero.
    return static_cast<std::int32_t>(result) > 0;
  }
  // Of the call that writes: one that a signal or its tracer has interrupted is made again.
  constexpr std::int64_t kFirstRestart = -516;
  constexpr std::int64_t kLastRestart = -512;
  return at >= loop.written_offset && at < loop.idle_offset &&
         (result == -EINTR || (result >= kFirstRestart && result <= kLastRestart));
}

bool is_script_signal(const siginfo_t& information) {
  return information.si_code == SI_QUEUE
             ? information.si_value.sival_int == kScriptMark
             : information.si_code == SI_USER && information.si_pid == 0;
}

std::ptrdiff_t find_system_call(std::span<const std::byte> code) {
  constexpr std::array<std::byte, kSystemCallBytes> kInstruction{std::byte{0x0f}, std::byte{0x05}};
  const auto found =
      std::search(code.begin(), code.end(), kInstruction.begin(), kInstruction.end());
  return found == code.end() ? -1 : found - code.begin();
}

}  // namespace migrate::arch
