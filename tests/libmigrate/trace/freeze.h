#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "libmigrate/capture/frozen_process.h"
#include "libmigrate/image/address_space.h"

namespace migrate::test {

/// The process, frozen, with a script area.
inline FrozenProcess freeze(pid_t process) {
  std::uint64_t instruction = 0;
  const std::vector<NamedRange> mappings = read_mappings(process).value();
  for (const NamedRange& range : mappings) {
    if (range.name == "[vdso]") {
      instruction = find_system_call_in(process, range.start, range.end).value();
    }
  }
  FrozenProcess frozen = FrozenProcess::freeze(process, instruction, {}).value();
  EXPECT_TRUE(frozen.open_area(4096));
  return frozen;
}

}  // namespace migrate::test
