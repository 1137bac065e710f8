#pragma once

#include <fmt/core.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>

#include "base/log.h"
#include "base/mapping.h"
#include "base/result.h"

namespace migrate {

/// How many log lines of one kind may be written, however often strangers cause them: ten at once,
/// then one every two seconds. Shared with the children that are forked later. Thread-safe.
class LogQuota {
 public:
  /// Errors: kSystem (no memory).
  static Result<LogQuota> create();

  LogQuota(LogQuota&&) noexcept = default;
  LogQuota& operator=(LogQuota&&) noexcept = default;

  /// What to add to the line if it may be written: "" or how many of its kind were left out since
  /// the last one. Nothing if this one is to be left out.
  std::optional<std::string> take() const;

 private:
  struct Words {
    std::atomic<std::int64_t> paid_until_ns;  ///< Lines written have used up the time until then.
    std::atomic<std::uint64_t> left_out;
  };

  explicit LogQuota(Mapping memory) : memory_(std::move(memory)) {}

  Mapping memory_;
};

namespace log {

/// log::warn(), within the quota.
template <class... Arguments>
void warn(const LogQuota& quota, fmt::format_string<Arguments...> format,
          Arguments&&... arguments) {
  if (const auto left_out = quota.take()) {
    warn("{}{}", fmt::vformat(format, fmt::make_format_args(arguments...)), *left_out);
  }
}

}  // namespace log

}  // namespace migrate
