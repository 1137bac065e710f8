#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.h"
#include "libmigrate/migrate.h"
#include "libmigrate/program/program.h"
#include "transport/channel.h"

namespace migrate {

/// Where the events of a request go: JSON objects, one a line, to a client of the local socket, or
/// one a message to a worker that forwards them. A client that went away is no error. The process
/// itself, if it asks or waits at a point, has no connection, which could not travel with it: it
/// finds the result in its memory. Owned by one thread.
class EventSink {
 public:
  EventSink() = default;  ///< Nobody listens.
  explicit EventSink(UniqueFd client) : client_(std::move(client)) {}
  explicit EventSink(std::unique_ptr<Channel> channel) : channel_(std::move(channel)) {}
  /// The process alone listens, by the memory of its block, for what it asked with `token`.
  EventSink(Program program, std::uint64_t token) { also_tell(std::move(program), token); }

  /// The process hears of the result, too.
  void also_tell(Program program, std::uint64_t token);
  /// The process is not here any more: that tells it all, and its memory is no more to be written.
  void leave_program() { program_.reset(); }

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
  /// Of the client, or the program's memory; -1 if neither listens. Borrowed.
  int descriptor() const;
  /// All that it has of these. Borrowed.
  std::vector<int> descriptors() const;
  /// Whether there was a client, who has hung up. Does not block.
  bool has_left() const;
  bool is_program() const { return !open() && program_.has_value(); }

 private:
  UniqueFd client_;
  std::string heard_;  // of the client, since its request
  std::unique_ptr<Channel> channel_;
  std::optional<Program> program_;
  std::uint64_t token_ = 0;
};

/// How often whoever follows a move hears of its progress.
inline constexpr std::int64_t kProgressEveryUs = 100'000;
/// After so long a client hears no more of a move that is in doubt.
inline constexpr std::int64_t kPatienceUs = 10'000'000;

}  // namespace migrate
