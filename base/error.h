#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace migrate {

/// What the caller can do about a failure.
enum class ErrorCode : std::uint8_t {
  kRetry,        ///< Transient: the same call may succeed later.
  kBusy,         ///< The peer has no place for one more connection now; it did nothing.
  kPeerLost,     ///< The other side or the link to it is gone.
  kUnsupported,  ///< This kernel, CPU or build cannot do it.
  kCorrupt,      ///< Bytes from outside (peer, file) that break their format.
  kInvalid,      ///< The argument cannot be right.
  kNotFound,     ///< The object named does not exist (any more).
  kRefused,      ///< A rule forbids it; nothing was changed.
  kCancelled,    ///< Who asked for it wants it no more; nothing was changed.
  kSystem,       ///< The system refused a call; see sys_errno.
};

std::string_view to_string(ErrorCode code);

/// A failure: what was tried, on which object, what the system said, what to do.
/// `operation` points to a string literal. Building an Error with empty strings does not allocate,
/// which the fault path relies on. A value type; const-thread-safe.
struct Error {
  ErrorCode code = ErrorCode::kSystem;
  int sys_errno = 0;           ///< errno, or 0 where the system had no part in it.
  const char* operation = "";  ///< What was tried, such as "open".
  std::uint64_t address = 0;   ///< Address concerned, or 0.
  std::string object;          ///< What it was tried on: a path, "pid 17", "descriptor 3".
  std::string remedy;          ///< What the user can do, if anything is known.

  /// One line for people: "open /x: No such file or directory; check the path".
  std::string message() const;
};

/// An Error from the calling thread's errno; kRetry for EAGAIN and EINTR, kPeerLost for broken
/// connections, kNotFound for ENOENT and ESRCH, else kSystem.
Error system_error(const char* operation, std::string object = {}, std::string remedy = {});
/// The same with a given errno value.
Error system_error_from(int sys_errno, const char* operation, std::string object = {},
                        std::string remedy = {});
/// An Error that no system call reported.
Error make_error(ErrorCode code, const char* operation, std::string object = {},
                 std::string remedy = {});

}  // namespace migrate
