#pragma once

#include <poll.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "libmigrate/relay/guest_relay.h"
#include "transport/channel.h"

namespace migrate {

/// A guest's link to its home: the relay, and the connection under it, which is made again whenever
/// it breaks. Owned by one thread.
class HomeLink {
 public:
  /// Makes a connection to the home; blocks up to `timeout_ms`. Errors: as PeerTrust::connect.
  using Connect = std::function<Result<std::unique_ptr<Channel>>(int timeout_ms)>;

  /// `name`: of the process, for the log. `clock` gives microseconds that only grow.
  HomeLink(std::string name, Connect connect, std::function<std::int64_t()> clock = now_us)
      : name_(std::move(name)), connect_(std::move(connect)), clock_(std::move(clock)) {}

  /// Makes a connection that attach() takes. Errors: those of Connect.
  Result<void> connect(int timeout_ms);
  /// The last connection made; null if it was taken.
  std::unique_ptr<Channel> take_connection() { return std::move(channel_); }

  void set_relay(std::unique_ptr<GuestRelay> relay) { relay_ = std::move(relay); }
  /// The process runs elsewhere: home speaks with that place.
  void drop_relay() { relay_.reset(); }
  /// Null before it is set and after it is dropped.
  GuestRelay* relay() const { return relay_.get(); }
  /// Gives the relay the connection.
  void attach() { relay_->attach(std::move(channel_)); }

  int collect_poll_fds(std::vector<pollfd>& polled) { return relay_->collect_poll_fds(polled); }
  /// Connects again every half second where the link is lost, which blocks for up to two seconds,
  /// and does all that the relay can do now.
  void follow();
  /// Home is to know that the host at `by` owes `pages` to the process: at once if that begins or
  /// ends, else every second.
  void report_owed(std::uint64_t pages, const std::string& by);
  /// For how long the link has been lost; 0: it is there.
  std::int64_t away_us() const { return lost_us_ == 0 ? 0 : clock_() - lost_us_; }

 private:
  const std::string name_;
  const Connect connect_;
  const std::function<std::int64_t()> clock_;
  std::unique_ptr<Channel> channel_;
  std::unique_ptr<GuestRelay> relay_;
  std::int64_t next_us_ = 0;
  std::int64_t lost_us_ = 0;
  std::int64_t next_owed_us_ = 0;
  bool said_owed_ = false;
};

}  // namespace migrate
