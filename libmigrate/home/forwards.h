#pragma once

#include <poll.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "libmigrate/host/event_sink.h"
#include "transport/channel.h"

namespace migrate {

/// Where a process is, as its home knows it.
struct Whereabouts {
  std::string host;     ///< Address of the host's daemon.
  std::string session;  ///< Id of the process's session there, in hexadecimal.
};

/// A client that has its move and waits for the process's end.
struct EndClient {
  EventSink client;
  nlohmann::json result;  ///< Of the move.
};

/// The requests of clients at home that were passed on to the host where the process is. A worker
/// from which the process has moved on hangs up: the request then goes after the process. Every
/// client gets exactly one answer. Owned by one thread, the home worker's.
class Forwards {
 public:
  /// Makes a connection to the worker at a place and sends it a request. May block for seconds.
  using Send = std::function<Result<std::unique_ptr<Channel>>(const Whereabouts&,
                                                              const nlohmann::json& request)>;

  /// `process` names it in messages; `clock` gives microseconds that only grow.
  Forwards(std::string process, Send send, std::function<std::int64_t()> clock = now_us)
      : process_(std::move(process)), send_(std::move(send)), clock_(std::move(clock)) {}

  /// Passes `request` on to `where`. Where that fails, the client is told `failed_exit`.
  void pass_on(nlohmann::json request, EventSink client, const Whereabouts& where, int failed_exit);

  /// Takes what has come for the clients. A move onwards that a result tells of changes `where`.
  /// `has_ended`: the process has, so that no place will answer any more.
  /// Returns the clients whose move is done and who wait for the process's end.
  std::vector<EndClient> pump(Whereabouts& where, bool has_ended);

  /// Answers everybody who is left: the process has ended.
  void end();

  bool empty() const { return forwards_.empty(); }
  /// Adds what to poll for; returns the longest time to poll in milliseconds, -1 for any.
  int collect_poll_fds(std::vector<pollfd>& polled) const;

 private:
  struct Forward {
    nlohmann::json request;
    EventSink client;
    std::unique_ptr<Channel> channel;  // null: lost before there was a result
    std::string session;               // to which it was sent
    bool begun = false;                // there were events
    Error error;                       // of the lost channel
    nlohmann::json not_now;            // the result of a place that the process was leaving
    std::int64_t lost_us = 0;
  };

  bool pump_one(Forward& forward, Whereabouts& where, std::vector<EndClient>& waiting);
  bool send_again(Forward& forward, const Whereabouts& where, bool has_ended);
  void tell_ended(Forward& forward) const;

  const std::string process_;
  const Send send_;
  const std::function<std::int64_t()> clock_;
  std::vector<Forward> forwards_;
};

}  // namespace migrate
