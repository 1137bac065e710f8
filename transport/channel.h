#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"

namespace migrate {

/// Largest message that any channel carries, in bytes. A peer that announces more is cut off.
inline constexpr std::size_t kMaxMessageBytes = (4U << 20U) + 4096;

/// An ordered, reliable, two-way stream of messages between two processes.
///
/// Threads: one thread may send while another receives; two senders or two receivers need a lock of
/// their own. shutdown() may be called by any thread at any time.
class Channel {
 public:
  virtual ~Channel() = default;
  Channel() = default;
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  /// Sends one message, the concatenation of `parts` (at most 8). Blocks while the peer is behind
  /// (back-pressure). The parts are borrowed for the call. Errors: kPeerLost (the channel is of no
  /// further use), kInvalid (longer than kMaxMessageBytes or empty; nothing was sent).
  virtual Result<void> send(std::span<const std::span<const std::byte>> parts) = 0;

  /// The next message, if one has wholly arrived; never blocks. The bytes are borrowed and valid
  /// until the next receive call. Errors: kPeerLost (closed or broken), kCorrupt (a length that
  /// cannot be).
  virtual Result<std::optional<std::span<const std::byte>>> try_receive() = 0;

  /// The next message; polls for `spin_us` microseconds (yielding the CPU), then sleeps until one
  /// arrives. `timeout_ms` < 0 waits for ever. Errors: as try_receive; kRetry after timeout_ms.
  virtual Result<std::span<const std::byte>> receive(std::uint32_t spin_us = 0,
                                                     int timeout_ms = -1) = 0;

  /// A descriptor that polls readable when try_receive may have something. Borrowed. Call
  /// arm() first and poll only if it returns false.
  virtual int poll_fd() const = 0;

  /// Prepares for sleeping on poll_fd(). True: a message may be there already, do not sleep.
  virtual Result<bool> arm() { return false; }

  /// Messages that may be under way each way before send() blocks, however short; 0: only bytes
  /// count.
  virtual std::size_t window() const { return 0; }

  /// Bytes sent and received so far, framing included. Const-thread-safe.
  virtual std::uint64_t bytes_sent() const = 0;
  virtual std::uint64_t bytes_received() const = 0;

  /// Breaks the channel: every later and every blocked call, here and at the peer, gives kPeerLost.
  /// The peer may first receive what was sent before.
  virtual void shutdown() = 0;

  /// send() of a single part.
  Result<void> send_one(std::span<const std::byte> message) {
    return send(std::span<const std::span<const std::byte>>(&message, 1));
  }
};

}  // namespace migrate
