#pragma once

#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>

#include "base/unique_fd.h"

namespace migrate::test {

/// All that a worker answers to `client`, until it hangs up.
inline std::string read_all(const UniqueFd& client) {
  std::string text;
  std::array<char, 1000> part{};
  for (ssize_t count = 1; count > 0;) {
    count = ::read(client.get(), part.data(), part.size());
    text.append(part.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  }
  return text;
}

}  // namespace migrate::test
