#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/mapping.h"
#include "base/result.h"

namespace migrate {

/// A frame on a byte stream is a length (32 bits, little endian, 1 to kMaxMessageBytes) and that
/// many bytes of message.
inline constexpr std::size_t kFrameHeaderBytes = 4;

/// The header of a frame whose message is `parts`. Errors: kInvalid (empty, too long, too many
/// parts).
Result<std::array<std::byte, kFrameHeaderBytes>> frame_header(
    std::span<const std::span<const std::byte>> parts);

/// Most parts that one message may be made of.
inline constexpr std::size_t kMaxMessageParts = 8;

/// Where a FrameReader gets its bytes from.
class ByteSource {
 public:
  ByteSource() = default;
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;
  virtual ~ByteSource() = default;

  /// Reads up to buffer.size() bytes (> 0); 0 means that nothing is there now. Never blocks.
  /// Errors: kPeerLost at the end of the stream or when it breaks.
  virtual Result<std::size_t> read_some(std::span<std::byte> buffer) = 0;
};

/// Cuts a byte stream into messages. A small message and its header cost one read; of a large one
/// all but the first few KiB are read straight into the buffer that the caller is handed.
/// Owned by the receiving thread.
class FrameReader {
 public:
  /// Errors: kSystem (no memory).
  static Result<FrameReader> create();

  /// The next message, or nothing after `source` said that nothing is there. The bytes are valid
  /// until the next call. Errors: as the source's; kCorrupt for a length that cannot be.
  Result<std::optional<std::span<const std::byte>>> next(ByteSource& source);

  /// Whether next() would return (a message or an error) without reading.
  bool has_message() const;

 private:
  explicit FrameReader(Mapping ahead) : ahead_(std::move(ahead)) {}

  std::optional<std::uint32_t> announced_length() const;
  Result<void> start_large(std::size_t length);

  Mapping ahead_;  // [begin_, end_) holds bytes read but not yet handed out
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  Mapping large_;                 // made when first needed
  std::size_t large_length_ = 0;  // of the large message being read; 0 if none
  std::size_t large_filled_ = 0;
};

}  // namespace migrate
