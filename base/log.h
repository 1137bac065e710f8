#pragma once

#include <fmt/core.h>

#include <string>

namespace migrate {

/// Sends log lines of this process to standard error, each with time, level, `program` and pid.
/// The level comes from the environment variable MIGRATE_LOG (trace, debug, info, warn, error,
/// off; default info). Call once at the start of a program.
void start_logging(const std::string& program);

/// Log lines in fmt's format, checked when compiled. From any thread; never fails.
///
/// spdlog does the work, behind a function that is compiled once: its own headers would instantiate
/// the whole of fmt in every file that logs, which took half of the time to build.
namespace log {

enum class Level { kDebug, kInfo, kWarn, kError };

void write(Level level, fmt::string_view format, fmt::format_args arguments);

template <class... Arguments>
void debug(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::kDebug, format, fmt::make_format_args(arguments...));
}

template <class... Arguments>
void info(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::kInfo, format, fmt::make_format_args(arguments...));
}

template <class... Arguments>
void warn(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::kWarn, format, fmt::make_format_args(arguments...));
}

template <class... Arguments>
void error(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::kError, format, fmt::make_format_args(arguments...));
}

}  // namespace log
}  // namespace migrate
