#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>

#include "base/result.h"

namespace migrate {

/// What the pager and the page server need of a connection: an ordered, reliable stream of
/// messages. The same contract as Channel in transport/; libmigrate joins the two.
///
/// Threads: one thread may send while another receives. shutdown() by any thread at any time.
class PageLink {
 public:
  virtual ~PageLink() = default;
  PageLink() = default;
  PageLink(const PageLink&) = delete;
  PageLink& operator=(const PageLink&) = delete;

  /// Sends one message, the concatenation of at most 8 borrowed `parts`. Blocks while the peer is
  /// behind. Errors: kPeerLost.
  virtual Result<void> send(std::span<const std::span<const std::byte>> parts) = 0;

  /// The next message if one has wholly arrived; never blocks. The bytes are borrowed and valid
  /// until the next receive call. Errors: kPeerLost, kCorrupt.
  virtual Result<std::optional<std::span<const std::byte>>> try_receive() = 0;

  /// The next message; polls for `spin_us` microseconds, then sleeps until one arrives.
  /// `timeout_ms` < 0 waits for ever. Errors: as try_receive; kRetry after timeout_ms.
  virtual Result<std::span<const std::byte>> receive(std::uint32_t spin_us, int timeout_ms) = 0;

  /// Polls readable when try_receive may have something. Borrowed. Call arm() first.
  virtual int poll_fd() const = 0;

  /// Prepares for sleeping on poll_fd(). True: a message may be there already, do not sleep.
  virtual Result<bool> arm() = 0;

  /// How many requests may wait for replies at a time. With more, whoever sends requests could
  /// block while the other side blocks sending replies, each for the other to receive.
  virtual std::size_t most_requests() const { return std::numeric_limits<std::size_t>::max(); }

  /// Breaks the link: every later and every blocked call, here and at the peer, gives kPeerLost.
  virtual void shutdown() = 0;
};

}  // namespace migrate
