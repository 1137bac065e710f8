#include "transport/frame.h"

#include <cstring>

#include "transport/channel.h"
#include "transport/preamble.h"

namespace migrate {
namespace {

// Holds four pages with their headers; what is copied out of it when a large message starts
// (at most this much) is little beside the message.
constexpr std::size_t kAheadBytes = std::size_t{20} * 1024;

bool valid_length(std::size_t length) {
  return length > 0 && length <= kMaxMessageBytes;
}

}  // namespace

Result<std::array<std::byte, kFrameHeaderBytes>> frame_header(
    std::span<const std::span<const std::byte>> parts) {
  if (parts.size() > kMaxMessageParts) {
    return fail(make_error(ErrorCode::kInvalid, "send", "message of too many parts"));
  }
  std::size_t length = 0;
  for (const auto& part : parts) {
    if (part.size() > kMaxMessageBytes) {
      length = kMaxMessageBytes + 1;
      break;
    }
    length += part.size();
  }
  if (!valid_length(length)) {
    return fail(make_error(ErrorCode::kInvalid, "send",
                           "message of " + std::to_string(length) + " bytes",
                           "a message has 1 to " + std::to_string(kMaxMessageBytes) + " bytes"));
  }
  std::array<std::byte, kFrameHeaderBytes> header;
  for (std::size_t i = 0; i < header.size(); ++i) {
    header[i] = static_cast<std::byte>(length >> (8 * i));
  }
  return header;
}

Result<FrameReader> FrameReader::create() {
  return FrameReader(MIGRATE_TRY(Mapping::create(kAheadBytes)));
}

std::optional<std::uint32_t> FrameReader::announced_length() const {
  if (end_ - begin_ < kFrameHeaderBytes) {
    return std::nullopt;
  }
  std::uint32_t length = 0;
  for (std::size_t i = 0; i < kFrameHeaderBytes; ++i) {
    length |= std::to_integer<std::uint32_t>(ahead_.bytes()[begin_ + i]) << (8 * i);
  }
  return length;
}

bool FrameReader::has_message() const {
  const auto length = announced_length();
  return large_length_ == 0 && length &&
         (!valid_length(*length) || end_ - begin_ - kFrameHeaderBytes >= *length);
}

Result<void> FrameReader::start_large(std::size_t length) {
  if (large_.bytes().empty()) {
    large_ = MIGRATE_TRY(Mapping::create(kMaxMessageBytes));
  }
  const auto start =
      ahead_.bytes().subspan(begin_ + kFrameHeaderBytes, end_ - begin_ - kFrameHeaderBytes);
  std::memcpy(large_.bytes().data(), start.data(), start.size());
  large_filled_ = start.size();
  large_length_ = length;
  begin_ = end_ = 0;
  return {};
}

Result<std::optional<std::span<const std::byte>>> FrameReader::next(ByteSource& source) {
  for (;;) {
    if (large_length_ != 0) {
      const std::size_t count = MIGRATE_TRY(
          source.read_some(large_.bytes().subspan(large_filled_, large_length_ - large_filled_)));
      if (count == 0) {
        return std::nullopt;
      }
      large_filled_ += count;
      if (large_filled_ == large_length_) {
        return large_.bytes().first(std::exchange(large_length_, 0));
      }
      continue;
    }
    if (const auto length = announced_length()) {
      if (!valid_length(*length)) {
        if (auto refused = refusal_in(ahead_.bytes().subspan(begin_, end_ - begin_))) {
          return fail(std::move(*refused));
        }
        return fail(make_error(ErrorCode::kCorrupt, "receive",
                               "message of " + std::to_string(*length) + " bytes",
                               "the peer is not a libmigrate of this version"));
      }
      const std::size_t frame_length = kFrameHeaderBytes + *length;
      if (end_ - begin_ >= frame_length) {
        const std::size_t start = std::exchange(begin_, begin_ + frame_length);
        return ahead_.bytes().subspan(start + kFrameHeaderBytes, *length);
      }
      if (frame_length > kAheadBytes) {
        MIGRATE_TRY(start_large(*length));
        continue;
      }
    }
    // Only the start of a small message is left over: moving it to the front is cheap.
    if (begin_ != 0) {
      std::memmove(ahead_.bytes().data(), ahead_.bytes().data() + begin_, end_ - begin_);
      end_ -= std::exchange(begin_, 0);
    }
    const std::size_t count =
        MIGRATE_TRY(source.read_some(ahead_.bytes().first(kAheadBytes).subspan(end_)));
    if (count == 0) {
      return std::nullopt;
    }
    end_ += count;
  }
}

}  // namespace migrate
