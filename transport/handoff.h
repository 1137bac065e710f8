#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace migrate {

/// Most bytes that go with a descriptor.
inline constexpr std::size_t kMaxHandoffBytes = 64 * 1024;

struct Handoff {
  UniqueFd fd;  ///< Not valid if the sender passed none. Close-on-exec.
  std::vector<std::byte> bytes;
};

/// Passes `fd` (borrowed; the receiver gets its own; -1 for none) and `bytes` (may be empty) over
/// a connected Unix socket, SOCK_SEQPACKET or SOCK_STREAM, blocking or not. Blocks while the
/// receiver is behind. Errors: kInvalid (too long), kPeerLost, kSystem.
Result<void> send_descriptor(int unix_fd, int fd, std::span<const std::byte> bytes);

/// The next thing that send_descriptor() sent; never reads beyond it. Blocks up to `timeout_ms` in
/// all (< 0: for ever). Errors: kPeerLost (closed), kCorrupt (no such message, more than one
/// descriptor), kRetry (timeout; on a stream close it then, part may have been read), kSystem.
Result<Handoff> receive_descriptor(int unix_fd, int timeout_ms = -1);

/// As recvmsg(2) with `flags`, but for EINTR, on a packet socket that its sender may close. Where a
/// reader that does not wait looks just as the last packet and the end of the connection come,
/// Linux (net/unix/af_unix.c, unix_dgram_recvmsg) says 0 though a packet is there: this looks
/// again.
ssize_t receive_packet(int unix_fd, msghdr& message, int flags);

/// Who is at the other end of a connected Unix socket, as of its connect(). Errors: kSystem.
Result<ucred> peer_credentials(int unix_fd);

/// The kind of a Unix socket: both ends must agree.
enum class UnixKind { kSequencedPacket = SOCK_SEQPACKET, kStream = SOCK_STREAM };

/// A listening Unix socket in the file system. The process that created it removes the file when
/// it destroys this. Owned by one thread.
class UnixListener {
 public:
  /// Listens at `path` with permissions `mode`, whatever the umask. A socket file that no one
  /// serves any more is replaced. Paths too long for sockaddr_un work as long as their last part
  /// fits. Errors: kRefused (another process serves it), kInvalid, kNotFound (directory), kSystem.
  static Result<UnixListener> create(const std::string& path, mode_t mode,
                                     UnixKind kind = UnixKind::kSequencedPacket);

  UnixListener(UnixListener&& other) noexcept;
  UnixListener& operator=(UnixListener&& other) noexcept;
  UnixListener(const UnixListener&) = delete;
  UnixListener& operator=(const UnixListener&) = delete;
  ~UnixListener();

  /// The next connection, blocking and close-on-exec. Blocks up to `timeout_ms` (< 0: for ever).
  /// Errors: kRetry (none came), kPeerLost
  /// (after close_door()), kSystem.
  Result<UniqueFd> accept(int timeout_ms = -1);

  /// Refuses connections from now on, and removes the file: accept() gives those that were made
  /// before, then kPeerLost. Another may listen at the path.
  void close_door();

  /// Polls readable when accept() has something. Borrowed.
  int fd() const { return fd_.get(); }

 private:
  UnixListener(UniqueFd fd, std::string path);
  void remove();

  UniqueFd fd_;
  std::string path_;  // empty once moved from
  pid_t creator_;
};

/// Connects to the socket at `path`; the descriptor is blocking and close-on-exec. Blocks only
/// while the listener's queue is full. Errors: kNotFound (no such file), kPeerLost (no one serves
/// it), kInvalid (path), kSystem (such as permission denied).
Result<UniqueFd> connect_unix(const std::string& path, UnixKind kind = UnixKind::kSequencedPacket);

}  // namespace migrate
