#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "base/clock.h"
#include "libmigrate/move/control_channel.h"

namespace migrate {

/// A connection on which all is said, kept until the peer has closed it: a connection that is
/// closed while the peer still speaks is reset, and a peer that meets the reset when it sends does
/// not read our last words any more. Owned by one thread.
class Farewell {
 public:
  /// `clock` gives microseconds and only grows.
  explicit Farewell(std::function<std::int64_t()> clock = now_us) : clock_(std::move(clock)) {}

  /// Keeps `channel` for two seconds at most. None may be kept already.
  void begin(std::unique_ptr<ControlChannel> channel);
  /// Nothing is kept: none was begun, or the peer has gone.
  bool over() const { return !channel_; }
  /// Polls readable when follow() has something to do; -1 if over.
  int poll_fd() const;
  /// Reads what the peer still says, for nobody.
  void follow();

 private:
  const std::function<std::int64_t()> clock_;
  std::unique_ptr<ControlChannel> channel_;
  std::int64_t until_us_ = 0;
};

}  // namespace migrate
