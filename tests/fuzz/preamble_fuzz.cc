// The preamble: what is accepted is written back the same.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "transport/preamble.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::array<std::byte, migrate::kPreambleBytes> bytes{};
  std::memcpy(bytes.data(), data, std::min(size, bytes.size()));
  const auto preamble = migrate::decode_preamble(bytes);
  if (preamble && migrate::encode(*preamble) != bytes) {
    std::abort();
  }
  return 0;
}
