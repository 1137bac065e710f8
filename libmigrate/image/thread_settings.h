#pragma once

#include <linux/prctl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>

#include "libmigrate/arch/arch.h"

namespace migrate {

/// What each thread may have set for itself by a call, and gets again by one. Thread.settings is in
/// this order: those of the architecture, then what every one has.
inline constexpr std::array kThreadSettings = [] {
  std::array<arch::Setting, arch::kThreadSettings.size() + 1> all{};
  std::ranges::copy(arch::kThreadSettings, all.begin());
  all.back() = {"machine checks (PR_MCE_KILL)",
                SYS_prctl,
                PR_MCE_KILL_GET,
                PR_MCE_KILL_DEFAULT,
                arch::Setting::Answer::kResult,
                {SYS_prctl, {PR_MCE_KILL, PR_MCE_KILL_SET}, 2}};
  return all;
}();

inline constexpr std::uint64_t kSetMemoryMerge = 67;  // PR_SET_MEMORY_MERGE, Linux 6.4
inline constexpr std::uint64_t kGetMemoryMerge = 68;

}  // namespace migrate
