#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "libmigrate/balance/job.h"

namespace migrate::balance {

struct Size {
  std::uint32_t ranks = 64;
  std::uint32_t hosts = 8;
};

/// A job and what happens to it.
struct Scenario {
  Job job;
  /// What the job is at a time between 0 (its start) and 1 (its end): sets works and hosts, and
  /// leaves ranks where they are.
  std::function<void(double when, Job& job)> at = [](double, Job&) {};
  double noise = 0;  ///< Of measurements: relative standard deviation.
};

struct MadeUp {
  std::string_view word;
  std::string_view what;
  Scenario (*make)(const Size& size, std::uint64_t seed);
};
std::span<const MadeUp> made_up();

/// A job that was recorded: a JSON object with "hosts" (processors, speed), "ranks" (host,
/// memory_bytes), "traffic" ([rank, rank, bytes, messages]) and "work_s" (of each measurement, that
/// of each rank). Errors: kInvalid (not such an object).
Result<Scenario> recorded(const std::string& text);

}  // namespace migrate::balance
