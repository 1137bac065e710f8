#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace migrate {

/// A request to the daemon of this host: one JSON line there, JSON lines back.
/// Owned by one thread.
class DaemonConnection {
 public:
  /// Who sees to SIGINT and SIGTERM of this process from here on.
  enum class Signals { kOfEvents, kOfOthers };

  /// Connects to the daemon's socket. Errors: kSystem, kNotFound; the remedy says how to start a
  /// daemon.
  static Result<DaemonConnection> open(const std::string& socket_path, Signals signals);

  /// Sends the request. Errors: kSystem.
  Result<void> send(const nlohmann::json& request);

  /// The next event, or nothing if SIGINT or SIGTERM came first (kOfEvents). Blocks.
  /// Errors: kPeerLost (ended without a result), kCorrupt (not JSON).
  Result<std::optional<nlohmann::json>> next_event();

 private:
  DaemonConnection(UniqueFd socket, UniqueFd signals)
      : socket_(std::move(socket)), signals_(std::move(signals)) {}

  UniqueFd socket_;
  UniqueFd signals_;
  std::string pending_;
};

}  // namespace migrate
