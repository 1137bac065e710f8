#pragma once

#include <string>

#include "base/result.h"
#include "transport/channel.h"
#include "transport/preamble.h"

namespace migrate {

/// Proves by MUNGE, with a credential made for this one connection, that both ends are root on
/// hosts that share the cluster's MUNGE key. Encrypts nothing: who can change what is sent on the
/// way can take the connection over afterwards. Needs a build with libmunge. A value type;
/// const-thread-safe.
class Munge {
 public:
  /// `socket`: of this host's munged; empty for its default. Blocks: asks munged once.
  /// Errors: kUnsupported (built without libmunge), kRefused (munged does not answer).
  static Result<Munge> create(const std::string& socket);

  /// The side that connected, and the side that accepted. Blocks up to `timeout_ms` for each
  /// message. Errors: kRefused (a credential: of another realm, user or connection, too old,
  /// replayed), kRetry (timeout), as Channel.
  Result<void> prove_as_client(Channel& channel, const Preamble& preamble, int timeout_ms) const;
  Result<void> prove_as_server(Channel& channel, const Preamble& preamble, int timeout_ms) const;

 private:
  explicit Munge(std::string socket) : socket_(std::move(socket)) {}

  Result<std::string> encode(const std::string& payload) const;
  Result<void> check(const std::string& credential, const std::string& payload) const;

  std::string socket_;
};

}  // namespace migrate
