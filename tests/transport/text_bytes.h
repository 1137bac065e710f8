#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace migrate::test {

/// Text as a message; borrowed.
inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

/// A message as text.
inline std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace migrate::test
