#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace migrate::handover_testing {

#ifdef __SANITIZE_THREAD__
inline constexpr bool kIsThreadSanitizer = true;
#elif defined(__has_feature)
inline constexpr bool kIsThreadSanitizer = __has_feature(thread_sanitizer);
#else
inline constexpr bool kIsThreadSanitizer = false;
#endif

/// What the kernel says of a process that is moved, or is not.
bool is_traced(pid_t process);
/// Its first thread stands in the script area at `area` (0: there is none), and not where the
/// program was: if its tracer lets it go, it does nothing of the program.
bool is_parked(pid_t process, std::uint64_t area);
/// The signals that its first thread blocks, in hexadecimal.
std::string blocked_signals(pid_t process);

}  // namespace migrate::handover_testing
