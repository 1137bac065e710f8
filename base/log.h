#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace migrate {

/// Sends log lines of this process to standard error, each with time, level, `program` and pid.
/// The level comes from the environment variable MIGRATE_LOG (trace, debug, info, warn, error,
/// off; default info). Call once at the start of a program; spdlog::info() and kin log.
void start_logging(const std::string& program);

}  // namespace migrate
