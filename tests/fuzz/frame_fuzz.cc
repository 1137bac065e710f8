// FrameReader: whatever the pieces in which bytes arrive, the messages are those that a plain
// reading of the stream gives.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "transport/channel.h"
#include "transport/frame.h"

namespace migrate {
namespace {

class Pieces final : public ByteSource {
 public:
  Pieces(std::span<const std::byte> stream, FuzzedDataProvider& sizes)
      : stream_(stream), sizes_(sizes) {}

  Result<std::size_t> read_some(std::span<std::byte> buffer) override {
    if (stream_.empty()) {
      return fail(make_error(ErrorCode::kPeerLost, "read"));
    }
    const std::size_t most = std::min(buffer.size(), stream_.size());
    const std::size_t count = sizes_.ConsumeIntegralInRange<std::size_t>(0, 300) % (most + 1);
    const std::size_t taken = sizes_.remaining_bytes() == 0 ? most : count;
    std::memcpy(buffer.data(), stream_.data(), taken);
    stream_ = stream_.subspan(taken);
    return taken;
  }

 private:
  std::span<const std::byte> stream_;
  FuzzedDataProvider& sizes_;
};

// The next message of a plain reading; nothing if it is not whole or its length cannot be.
std::optional<std::span<const std::byte>> plain_next(std::span<const std::byte>& stream) {
  std::uint32_t length = 0;
  if (stream.size() < sizeof(length)) {
    return std::nullopt;
  }
  std::memcpy(&length, stream.data(), sizeof(length));
  if (length == 0 || length > kMaxMessageBytes || length > stream.size() - sizeof(length)) {
    return std::nullopt;
  }
  const auto message = stream.subspan(sizeof(length), length);
  stream = stream.subspan(sizeof(length) + length);
  return message;
}

void fuzz(FuzzedDataProvider& input) {
  const auto text = input.ConsumeBytesAsString(input.ConsumeIntegralInRange<std::size_t>(0, 60000));
  std::span<const std::byte> stream = std::as_bytes(std::span(text));
  Pieces pieces(stream, input);
  auto reader = FrameReader::create();
  for (;;) {
    const auto message = reader->next(pieces);
    if (message && !*message) {
      continue;
    }
    const auto expected = plain_next(stream);
    if (message.has_value() != expected.has_value()) {
      std::abort();
    }
    if (!message) {
      return;
    }
    if (!std::ranges::equal(**message, *expected)) {
      std::abort();
    }
  }
}

}  // namespace
}  // namespace migrate

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  migrate::fuzz(input);
  return 0;
}
