#pragma once

#include <asm/prctl.h>
#include <elf.h>
#include <linux/prctl.h>
#include <sys/syscall.h>

#include <array>
#include <cstdint>
#include <string_view>

namespace migrate::arch {

/// Something that a thread or process can set for itself: the call that reads it, what that gives
/// where nothing was set, and the call that sets it. A kernel without it gives an error.
struct Setting {
  enum class Answer : std::uint8_t {
    kResult,  ///< The call gives it.
    kWord,    ///< The call puts it, 32 bits, where its second argument points.
    kLength,  ///< The call fills a buffer, by address and length, and gives the bytes of that.
  };
  const char* name = "";
  std::int64_t call = -1;
  std::uint64_t first_argument = 0;
  std::int64_t common_result = 0;
  Answer answer = Answer::kResult;
  /// Sets it, with its value as the last argument. None: a process that has it is refused.
  struct Setter {
    std::int64_t call = -1;
    std::uint64_t arguments[2] = {};  ///< Before the value.
    std::size_t argument_count = 0;
  } setter = {};
};

/// Of each thread, all with a setter. (ARCH_GET_CPUID: arch_prctl(2).)
inline constexpr std::array kThreadSettings{Setting{"CPUID faults (ARCH_SET_CPUID)",
                                                    SYS_arch_prctl,
                                                    ARCH_GET_CPUID,
                                                    1,
                                                    Setting::Answer::kResult,
                                                    {SYS_arch_prctl, {ARCH_SET_CPUID}, 1}},
                                            Setting{"time stamps (PR_SET_TSC)",
                                                    SYS_prctl,
                                                    PR_GET_TSC,
                                                    PR_TSC_ENABLE,
                                                    Setting::Answer::kWord,
                                                    {SYS_prctl, {PR_SET_TSC}, 1}}};
/// Of a process, without one.
inline constexpr std::array kProcessSettings{
    Setting{"local descriptor table (modify_ldt)", SYS_modify_ldt, 0, 0, Setting::Answer::kLength}};

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

/// A page of the kernel's that /proc/PID/maps shows in every process, at the same address.
inline constexpr std::string_view kKernelPage = "[vsyscall]";

}  // namespace migrate::arch
