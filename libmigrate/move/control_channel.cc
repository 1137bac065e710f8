#include "libmigrate/move/control_channel.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <span>
#include <utility>

namespace migrate {
namespace {

constexpr std::size_t kPieceBytes = 1U << 20U;
constexpr std::byte kMoreFollow{1};
constexpr std::byte kLastPiece{0};

// The beginning of a field of bytes, or of a message, as protobuf has it on the wire: what follows
// are `bytes` bytes.
std::string field_head(int number, std::size_t bytes) {
  constexpr std::uint32_t kLengthDelimited = 2;
  std::string head;
  google::protobuf::io::StringOutputStream stream(&head);
  google::protobuf::io::CodedOutputStream out(&stream);
  out.WriteVarint32(static_cast<std::uint32_t>(number) << 3U | kLengthDelimited);
  out.WriteVarint64(bytes);
  out.Trim();
  return head;
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

}  // namespace

Result<void> ControlChannel::send(const wire::ControlMessage& message) {
  return send_text(message.SerializeAsString());
}

// A message that stands twice is read as one that has the fields of both. So the relay comes first,
// and the image, as the last field of a second Final, need not be copied into a message.
Result<void> ControlChannel::send_final(wire::RelayState relay, std::string_view image) {
  wire::ControlMessage message;
  *message.mutable_final()->mutable_relay() = std::move(relay);
  const std::string image_head = field_head(wire::Final::kImageFieldNumber, image.size());
  return send_text(
      message.SerializeAsString() +
          field_head(wire::ControlMessage::kFinalFieldNumber, image_head.size() + image.size()) +
          image_head,
      image);
}

// Sends a message, which is `head` and `rest` after it.
Result<void> ControlChannel::send_text(std::string_view head, std::string_view rest) {
  for (bool more = true; more;) {
    const std::string_view first = head.substr(0, kPieceBytes);
    const std::string_view second = rest.substr(0, kPieceBytes - first.size());
    head.remove_prefix(first.size());
    rest.remove_prefix(second.size());
    more = !head.empty() || !rest.empty();
    const std::byte mark = more ? kMoreFollow : kLastPiece;
    const std::span<const std::byte> parts[] = {std::span(&mark, 1), bytes_of(first),
                                                bytes_of(second)};
    MIGRATE_TRY(channel_->send(parts));
  }
  return {};
}

// The message, if `piece` is its last one.
Result<std::optional<wire::ControlMessage>> ControlChannel::take(std::span<const std::byte> piece) {
  if (piece.front() > kMoreFollow || arriving_.size() + piece.size() > longest_message_) {
    return fail(make_error(ErrorCode::kCorrupt, "read a control message"));
  }
  const bool last = piece.front() == kLastPiece;
  arriving_.append(reinterpret_cast<const char*>(piece.data()) + 1, piece.size() - 1);
  if (!last) {
    return std::nullopt;
  }
  wire::ControlMessage message;
  const bool parsed = message.ParseFromString(arriving_);
  arriving_.clear();
  if (!parsed) {
    return fail(make_error(ErrorCode::kCorrupt, "read a control message"));
  }
  return message;
}

Result<wire::ControlMessage> ControlChannel::receive(std::uint32_t spin_us, int timeout_ms) {
  for (;;) {
    const auto piece = channel_->receive(spin_us, timeout_ms);
    if (!piece && piece.error().code == ErrorCode::kRetry) {
      return fail(make_error(ErrorCode::kRetry, "hear from", peer_,
                             "it said nothing for " + std::to_string(timeout_ms) +
                                 " ms; look at the load and at migrated's log there"));
    }
    auto message = MIGRATE_TRY(take(MIGRATE_TRY(piece)));
    if (message) {
      return std::move(*message);
    }
  }
}

Result<std::optional<wire::ControlMessage>> ControlChannel::try_receive() {
  for (;;) {
    const auto piece = MIGRATE_TRY(channel_->try_receive());
    if (!piece) {
      return std::nullopt;
    }
    auto message = MIGRATE_TRY(take(*piece));
    if (message) {
      return message;
    }
  }
}

Result<wire::ControlMessage> ControlChannel::expect(wire::ControlMessage::BodyCase wanted,
                                                    std::uint32_t spin_us, int timeout_ms) {
  wire::ControlMessage message = MIGRATE_TRY(receive(spin_us, timeout_ms));
  if (message.body_case() == wire::ControlMessage::kFailed) {
    return fail(make_error(ErrorCode::kRefused, "move", {}, message.failed().reason()));
  }
  if (message.body_case() != wanted) {
    return fail(make_error(ErrorCode::kCorrupt, "follow the protocol of a move",
                           "message " + std::to_string(message.body_case())));
  }
  return message;
}

}  // namespace migrate
