#pragma once

#include <array>
#include <csignal>

namespace migrate {

/// Signals that report a program's own mistakes.
inline constexpr std::array kFatalSignals{SIGSEGV, SIGBUS, SIGFPE, SIGILL,
                                          SIGABRT, SIGSYS, SIGTRAP};

/// From here on a fatal signal (a fault, abort()) leaves a last line and the calls that led to it
/// on standard error, the log; then the process ends by it as it would have. `program` is to be a
/// string literal. Forked children report in the same way until they reset their signals. A new
/// program does not. Threads that overflow their stack are reported if they are the caller's. Call
/// again to change the name.
void report_crashes(const char* program);

}  // namespace migrate
