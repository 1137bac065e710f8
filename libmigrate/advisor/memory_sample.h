#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "libmigrate/advisor/forecast.h"
#include "pager/page_reader.h"
#include "pager/region.h"

namespace migrate {

/// How a process is looked at.
struct SampleOptions {
  std::chrono::microseconds time{200'000};  ///< Over all.
  std::size_t pages = 2048;                 ///< Read four times, at most.
  /// Waits for so long. Errors end the sample.
  std::function<Result<void>(std::chrono::microseconds)> wait;
  std::function<std::int64_t()> clock = now_us;  ///< Microseconds; only grows.
};

/// What memory of `regions` a running process has, and how much of it it writes: a part of its
/// pages, spread evenly, is read at the beginning, soon after, in the middle and at the end, and
/// compared. The process is not stopped, and nothing in its page tables changes, but that pages of
/// the sample that were swapped out come back. A page that is written with what it had counts as
/// unwritten. Errors: kNotFound (it has ended), kSystem, those of `wait`.
Result<MemoryFacts> sample_memory(PageReader& reader, const std::vector<ServedRegion>& regions,
                                  const SampleOptions& options);

}  // namespace migrate
