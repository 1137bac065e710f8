#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/unique_fd.h"
#include "libmigrate/migrate.h"
#include "transport/channel.h"

namespace migrate {

/// Where the events of a request go: JSON objects, one a line, to a client of the local socket, or
/// one a message to a worker that forwards them. A client that went away is no error.
/// Owned by one thread.
class EventSink {
 public:
  EventSink() = default;  ///< Nobody listens.
  explicit EventSink(UniqueFd client) : client_(std::move(client)) {}
  explicit EventSink(std::unique_ptr<Channel> channel) : channel_(std::move(channel)) {}

  void send(const nlohmann::json& event);
  /// Sends the last event, {"event":"result","exit":status,...}, and hangs up. `exit_code` is a
  /// migrate_status, which migratectl ends with.
  void finish(int exit_code, nlohmann::json result);
  /// finish() with an error for people and programs.
  void finish_failed(int exit_code, const Error& error);
  bool open() const { return client_.valid() || channel_ != nullptr; }

 private:
  UniqueFd client_;
  std::unique_ptr<Channel> channel_;
};

/// How often whoever follows a move hears of its progress.
inline constexpr std::int64_t kProgressEveryUs = 100'000;
/// After so long a client hears no more of a move that is in doubt.
inline constexpr std::int64_t kPatienceUs = 10'000'000;

}  // namespace migrate
