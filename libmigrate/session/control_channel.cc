#include "libmigrate/session/control_channel.h"

namespace migrate {
namespace {

Result<wire::ControlMessage> parse(std::span<const std::byte> bytes) {
  wire::ControlMessage message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return fail(make_error(ErrorCode::kCorrupt, "read a control message"));
  }
  return message;
}

}  // namespace

Result<void> ControlChannel::send(const wire::ControlMessage& message) {
  const std::string bytes = message.SerializeAsString();
  return channel_->send_one(std::as_bytes(std::span(bytes)));
}

Result<wire::ControlMessage> ControlChannel::receive(std::uint32_t spin_us, int timeout_ms) {
  return parse(MIGRATE_TRY(channel_->receive(spin_us, timeout_ms)));
}

Result<std::optional<wire::ControlMessage>> ControlChannel::try_receive() {
  const auto bytes = MIGRATE_TRY(channel_->try_receive());
  if (!bytes) {
    return std::nullopt;
  }
  return MIGRATE_TRY(parse(*bytes));
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
