#pragma once

#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/user.h>

#include <cstddef>
#include <cstdint>

namespace migrate::arch {

/// Lets the processor stop a traced thread, with SIGTRAP, before it executes what is at `address`;
/// 0: nowhere any more. Nothing of its memory changes for that. False: errno says why.
inline bool stop_thread_at(pid_t thread, std::uint64_t address) {
  constexpr std::uint64_t kFirstOfThread = 1;  // in DR7: the first address, for this thread
  constexpr std::size_t kAddress = offsetof(user, u_debugreg);
  constexpr std::size_t kControl = kAddress + 7 * sizeof(user::u_debugreg[0]);
  return ::ptrace(PTRACE_POKEUSER, thread, kAddress, address) == 0 &&
         ::ptrace(PTRACE_POKEUSER, thread, kControl, address != 0 ? kFirstOfThread : 0) == 0;
}

/// Where a stopped thread is.
inline std::uint64_t place_of(pid_t thread) {
  return static_cast<std::uint64_t>(
      ::ptrace(PTRACE_PEEKUSER, thread, offsetof(user, regs.rip), nullptr));
}

}  // namespace migrate::arch
