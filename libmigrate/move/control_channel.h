#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "libmigrate/proto/control.pb.h"
#include "transport/channel.h"

namespace migrate {

/// How long both sides poll for the next message while the process is frozen.
inline constexpr std::uint32_t kFreezeSpinUs = 500;
/// After so long without a message a control connection counts as lost.
inline constexpr std::int64_t kSilenceUs = 5'000'000;

/// Control messages over a channel, in pieces of 1 MiB where they are longer: an image may carry
/// the bytes of memory files. Each piece begins with a byte, 1 if more follow. Threads: as Channel,
/// one sender and one receiver.
class ControlChannel {
 public:
  /// `peer`: the other side, as messages name it.
  ControlChannel(std::unique_ptr<Channel> channel, std::string peer)
      : channel_(std::move(channel)), peer_(std::move(peer)) {}

  /// Errors: as Channel::send.
  Result<void> send(const wire::ControlMessage& message);
  /// Sends a Final of this relay and of an image that is serialised already, of which no copy is
  /// made: it may be large, and the process is frozen meanwhile.
  Result<void> send_final(wire::RelayState relay, std::string_view image);
  /// The next message. Blocks up to `timeout_ms` (< 0: for ever), polling for `spin_us` first.
  /// Errors: kCorrupt (no such message), kPeerLost, kRetry (timeout).
  Result<wire::ControlMessage> receive(std::uint32_t spin_us, int timeout_ms);
  /// The next message if it is there.
  Result<std::optional<wire::ControlMessage>> try_receive();

  /// receive() of a message of kind `wanted`; a Failed message becomes an Error with the peer's
  /// reason, anything else kCorrupt.
  Result<wire::ControlMessage> expect(wire::ControlMessage::BodyCase wanted, std::uint32_t spin_us,
                                      int timeout_ms);

  Channel& channel() { return *channel_; }
  /// The longest message that is received; longer ones are kCorrupt.
  void set_longest_message(std::size_t bytes) { longest_message_ = bytes; }

 private:
  Result<void> send_text(std::string_view head, std::string_view rest = {});
  Result<std::optional<wire::ControlMessage>> take(std::span<const std::byte> piece);

  std::unique_ptr<Channel> channel_;
  std::string peer_;
  std::size_t longest_message_ = std::size_t{512} << 20U;
  std::string arriving_;  // the pieces of a message that is not complete
};

}  // namespace migrate
