#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "base/printable.h"

namespace migrate {
namespace {

spdlog::level::level_enum spdlog_level(log::Level level) {
  switch (level) {
    case log::Level::kDebug:
      return spdlog::level::debug;
    case log::Level::kInfo:
      return spdlog::level::info;
    case log::Level::kWarn:
      return spdlog::level::warn;
    case log::Level::kError:
      break;
  }
  return spdlog::level::err;
}

}  // namespace

void start_logging(const std::string& program) {
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  auto logger = std::make_shared<spdlog::logger>(program, std::move(sink));
  logger->set_pattern("%Y-%m-%d %H:%M:%S.%f %l %n[%P] %v");
  logger->flush_on(spdlog::level::trace);
  const char* level = std::getenv("MIGRATE_LOG");
  logger->set_level(level != nullptr ? spdlog::level::from_str(level) : spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

void log::write(Level level, fmt::string_view format, fmt::format_args arguments) {
  spdlog::logger* const logger = spdlog::default_logger_raw();
  const auto wanted = spdlog_level(level);
  if (logger->should_log(wanted)) {
    // Names that others chose may be in it: one message is one line, and says nothing to a
    // terminal.
    logger->log(wanted, printable(fmt::vformat(format, arguments)));
  }
}

}  // namespace migrate
