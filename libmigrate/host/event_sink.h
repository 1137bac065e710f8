#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

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
  /// finish() with MIGRATE_REFUSED, of a check or move that who asks may not ask for, or of what is
  /// never moved: with a refusal of the kind `code`, too.
  void finish_refused(std::string_view code, const Error& error);
  /// Whether the client has sent kCancel since its request. A client beyond another host cannot.
  bool cancel_asked();
  bool open() const { return client_.valid() || channel_ != nullptr; }

 private:
  UniqueFd client_;
  std::string heard_;  // of the client, since its request
  std::unique_ptr<Channel> channel_;
};

/// The line by which a client takes a move back that it asked for, while that can be.
inline constexpr std::string_view kCancel = R"({"command":"cancel"})";

/// How often whoever follows a move hears of its progress.
inline constexpr std::int64_t kProgressEveryUs = 100'000;
/// After so long a client hears no more of a move that is in doubt.
inline constexpr std::int64_t kPatienceUs = 10'000'000;

}  // namespace migrate
