#include "libmigrate/move/control_channel.h"

#include <algorithm>

namespace migrate {
namespace {

constexpr std::size_t kPieceBytes = 1U << 20U;
constexpr std::byte kMoreFollow{1};
constexpr std::byte kLastPiece{0};

}  // namespace

Result<void> ControlChannel::send(const wire::ControlMessage& message) {
  return send_text(message.SerializeAsString());
}

Result<void> ControlChannel::send(const wire::ControlMessageInBytes& message) {
  return send_text(message.SerializeAsString());
}

Result<void> ControlChannel::send_text(const std::string& text) {
  auto bytes = std::as_bytes(std::span(text));
  for (bool more = true; more;) {
    const auto piece = bytes.first(std::min(bytes.size(), kPieceBytes));
    bytes = bytes.subspan(piece.size());
    more = !bytes.empty();
    const std::byte mark = more ? kMoreFollow : kLastPiece;
    const std::span<const std::byte> parts[] = {std::span(&mark, 1), piece};
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
