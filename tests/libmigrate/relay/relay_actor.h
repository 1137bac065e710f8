#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <string>

#include "base/unique_fd.h"
#include "tests/libmigrate/relay/cuttable_channel.h"

namespace migrate::relay_testing {

/// The byte at `offset` of a stream that anybody can check from any point on.
inline char pattern(std::uint64_t offset) {
  return static_cast<char>((offset * 2654435761U) >> 11U ^ (offset >> 16U));
}

/// Writes and checks pattern bytes on a descriptor, which it makes non-blocking.
struct Actor {
  std::uint64_t written = 0;
  std::uint64_t read = 0;
  bool eof = false;

  void write_some(int fd, std::uint64_t limit, std::size_t most = 10000) {
    std::string bytes;
    while (bytes.size() < most && written + bytes.size() < limit) {
      bytes.push_back(pattern(written + bytes.size()));
    }
    const ssize_t count = bytes.empty() ? 0 : ::write(fd, bytes.data(), bytes.size());
    written += count > 0 ? static_cast<std::uint64_t>(count) : 0;
  }
  void read_some(int fd, std::size_t most = 10000) {
    std::string bytes(most, '\0');
    const ssize_t count = ::read(fd, bytes.data(), bytes.size());
    eof = eof || count == 0;
    for (ssize_t i = 0; i < count; ++i) {
      ASSERT_EQ(bytes[static_cast<std::size_t>(i)], pattern(read)) << "at offset " << read;
      ++read;
    }
  }
};

}  // namespace migrate::relay_testing
