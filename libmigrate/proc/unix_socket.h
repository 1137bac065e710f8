#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"

namespace migrate {

/// What the kernel tells of a Unix domain socket beside what its owner can ask.
struct UnixSocket {
  bool listens = false;
  bool has_name = false;              ///< It was bound, or is one that accept(2) made.
  std::uint32_t shutdown = 0;         ///< Bits: 1 no more is received, 2 no more is sent.
  std::uint32_t unread_bytes = 0;     ///< Of a datagram socket: in the first message.
  std::uint32_t sent_bytes = 0;       ///< Kernel memory of what it sent and nobody has read.
  std::optional<std::uint64_t> peer;  ///< Inode; 0: that one is closed. Nothing: not connected.
};

/// Looks up the socket with this inode in the network namespace in which the socket `beside` is,
/// or, if there is none, that of the caller. Blocks for a moment.
/// Errors: kNotFound (there is none, or it is in another namespace), kUnsupported (the kernel has
/// no CONFIG_UNIX_DIAG, or may not load it), kSystem. See sock_diag(7).
Result<UnixSocket> read_unix_socket(std::uint64_t inode, int beside = -1);

}  // namespace migrate
