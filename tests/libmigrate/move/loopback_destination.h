#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "libmigrate/move/control_channel.h"
#include "libmigrate/proto/control.pb.h"
#include "transport/address.h"
#include "transport/channel.h"
#include "transport/tcp.h"

namespace migrate::handover_testing {

/// A destination without a process, as a source in this process finds it over loopback: a thread
/// that lets connections in as a daemon does, and gives each message its answers. It can be told
/// what to say until start().
class LoopbackDestination {
 public:
  using Message = wire::ControlMessage;
  using Body = Message::BodyCase;

  /// Takes an offer, and runs what comes.
  LoopbackDestination();
  LoopbackDestination(const LoopbackDestination&) = delete;
  LoopbackDestination& operator=(const LoopbackDestination&) = delete;
  ~LoopbackDestination() { stop(); }

  Address address() const {
    return {.scheme = "tcp", .host = "127.0.0.1", .port = listener_.port()};
  }

  /// The token that every connection but that of the offer must prove to know.
  void expect_token(const std::string& token) { token_ = token; }
  /// What it says when it hears that; each time, one of several.
  void answer(Body heard, std::vector<Message> says) { answers_[heard] = {std::move(says)}; }
  void answer_in_turn(Body heard, std::vector<std::vector<Message>> says) {
    answers_[heard] = std::move(says);
  }
  /// What it says first to a source that comes again.
  void answer_resume(std::vector<Message> says) { says_on_resume_ = std::move(says); }
  /// Hangs up where it hears that.
  void cut(Body heard) { cut_ = heard; }
  /// Does that, in its thread, before it answers what it hears.
  void when(Body heard, std::function<void()> act) { acts_[heard] = std::move(act); }

  void start();
  /// Hangs up. What it has heard is not added to any more.
  void stop();
  /// Says that now.
  void say(const Message& message);

  /// What it has heard so far, but for pings.
  std::vector<Body> heard() const;
  bool has_heard(Body body) const;

 private:
  void serve();
  void let_in();
  void hear();
  void take(const Message& message);

  TcpListener listener_;
  std::string token_;
  std::map<Body, std::vector<std::vector<Message>>> answers_;
  std::map<Body, std::function<void()>> acts_;
  std::vector<Message> says_on_resume_;
  std::optional<Body> cut_;
  std::atomic<bool> stopping_ = false;
  mutable std::mutex mutex_;
  std::vector<Body> heard_;                // under mutex_
  std::optional<ControlChannel> control_;  // under mutex_
  std::vector<std::unique_ptr<Channel>> pages_;
  std::thread thread_;
};

}  // namespace migrate::handover_testing
