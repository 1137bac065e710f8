#pragma once

#include <asm/prctl.h>
#include <elf.h>
#include <sys/syscall.h>

#include <array>
#include <cstdint>
#include <string_view>

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

/// A line of /proc/PID/status about something that is not carried: refused by `code` if it has the
/// word `refused`, or, where that is empty, if it is not `common`.
struct ShownSetting {
  std::string_view line;
  std::string_view refused;
  std::string_view common;
  std::string_view code;
};
inline constexpr std::array kShownSettings{
    ShownSetting{"x86_Thread_features:", "shstk", {}, "SHADOW_STACK"},
    ShownSetting{
        "untag_mask:", {}, "0xffffffffffffffff", "UNKNOWN_ATTRIBUTE"}};  // Tagged addresses.

/// What the header of an executable says that this architecture can run.
inline constexpr unsigned char kElfClass = ELFCLASS64;
inline constexpr std::uint16_t kElfMachine = EM_X86_64;
inline constexpr const char* kElfName = "64-bit x86";

/// modify_ldt(0, buffer, length) gives the length of the local descriptor table, 0 without one.
inline constexpr std::int64_t kReadDescriptorTable = SYS_modify_ldt;

}  // namespace migrate::arch
