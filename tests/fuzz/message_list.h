#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace migrate::fuzz {

/// Cuts an input into messages, each after its length (16 bits, little endian); the last is what is
/// left.
inline std::vector<std::span<const std::byte>> messages_of(std::span<const std::byte> input) {
  std::vector<std::span<const std::byte>> messages;
  while (input.size() > sizeof(std::uint16_t)) {
    std::uint16_t length = 0;
    std::memcpy(&length, input.data(), sizeof(length));
    input = input.subspan(sizeof(length));
    const std::size_t taken = length < input.size() ? length : input.size();
    messages.push_back(input.first(taken));
    input = input.subspan(taken);
  }
  return messages;
}

}  // namespace migrate::fuzz
