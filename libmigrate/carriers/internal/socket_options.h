#pragma once

#include <cstdint>

#include "base/result.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate::carriers {

inline constexpr int kBufferLock = 72;  ///< SO_BUF_LOCK, Linux 5.14.
inline constexpr int kPassPidfd = 76;   ///< SO_PASSPIDFD, Linux 6.5.

using SocketOptions = google::protobuf::RepeatedPtrField<wire::SocketOption>;

/// The options of a Unix domain socket that have another value than at a new one of its type.
/// Errors: kUnsupported (one of them cannot be carried; the error names it), kSystem.
Result<SocketOptions> changed_options(int fd, int type);

/// The same of a socket of TCP of `family` that is connected, or listens. How large the kernel has
/// made its buffers by itself is no option.
Result<SocketOptions> changed_tcp_options(int fd, int family);
/// The same of one of TCP that does neither, or of UDP (SOCK_DGRAM). IPV6_V6ONLY is not among them.
Result<SocketOptions> changed_open_options(int fd, int family, int type);

/// Sets them. Buffers become no larger than this host allows its users. Errors: kSystem.
Result<void> set_options(int fd, const SocketOptions& options);

/// Whether a peer's options are of those that changed_options() gives.
bool are_sound(const SocketOptions& options);

}  // namespace migrate::carriers
