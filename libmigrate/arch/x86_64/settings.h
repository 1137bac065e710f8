#pragma once

#include <asm/prctl.h>
#include <sys/syscall.h>

#include <array>
#include <cstdint>

namespace migrate::arch {

/// Something that a thread or process can set for itself, and that is not carried: the call that
/// reads it, and what that gives where nothing was set. A kernel without it gives an error.
struct Setting {
  const char* name;
  std::int64_t call;
  std::uint64_t first_argument;
  std::int64_t common_result;
};

/// Of each thread. (ARCH_GET_CPUID: arch_prctl(2).)
inline constexpr std::array kThreadSettings{
    Setting{"CPUID faults (ARCH_SET_CPUID)", SYS_arch_prctl, ARCH_GET_CPUID, 1}};

/// modify_ldt(0, buffer, length) gives the length of the local descriptor table, 0 without one.
inline constexpr std::int64_t kReadDescriptorTable = SYS_modify_ldt;

}  // namespace migrate::arch
