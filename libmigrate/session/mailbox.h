#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "transport/handoff.h"
#include "transport/preamble.h"

namespace migrate {

/// What the daemon passed on to a worker: a peer's connection with its preamble, or a request of
/// the local socket with the client to answer.
struct Letter {
  UniqueFd fd;
  std::optional<Preamble> preamble;  ///< Else `request` holds JSON.
  std::string request;
};

/// A worker's own socket, by which the daemon reaches it. Owned by one thread.
class Mailbox {
 public:
  /// `name`: hexadecimal id of a session or process. Errors: kSystem.
  static Result<Mailbox> create(const std::string& state_directory, const std::string& name);

  /// Polls readable when receive() has something.
  int fd() const { return listener_.fd(); }
  /// The next letter. Blocks up to `timeout_ms`. Errors: kRetry (timeout), kCorrupt, kSystem; the
  /// mailbox stays usable.
  Result<Letter> receive(int timeout_ms);

 private:
  explicit Mailbox(UnixListener listener) : listener_(std::move(listener)) {}

  UnixListener listener_;
};

}  // namespace migrate
