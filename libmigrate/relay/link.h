#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "base/result.h"
#include "libmigrate/proto/home.pb.h"
#include "transport/channel.h"

namespace migrate {

/// Most names of sockets of UDP of which a place tells home.
inline constexpr std::size_t kMostDatagramNames = 4096;

/// One channel of relay messages whose sending never blocks the caller: a thread of its own sends,
/// so that two sides that both have much to say cannot wait for each other.
/// Thread: the owner's only. The destructor breaks the channel and joins the sender.
class Link {
 public:
  /// Messages that the owner takes before it gives its streams their turn.
  static constexpr int kMessagesPerTurn = 256;

  explicit Link(std::unique_ptr<Channel> channel);
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  /// Queues a message; it is lost if the link breaks. What is queued is bounded by the windows of
  /// the streams; a peer that lets 32 MiB pile up is cut off.
  void send(const wire::RelayMessage& message);

  /// The next message that has arrived, if any. Blocks: no. Errors: kPeerLost, kCorrupt.
  Result<std::optional<wire::RelayMessage>> receive();

  /// True: do not sleep, call receive(). False: poll poll_fd() for reading.
  bool arm();
  int poll_fd() const { return channel_->poll_fd(); }

  /// Of what is queued and was not handed to the channel.
  std::size_t queued_bytes() const;
  /// Everything queued was handed to the channel.
  bool idle() const;

 private:
  void run_sender();

  std::unique_ptr<Channel> channel_;
  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::string> queue_ MIGRATE_GUARDED_BY(mutex_);
  std::size_t queued_bytes_ MIGRATE_GUARDED_BY(mutex_) = 0;
  bool sending_ MIGRATE_GUARDED_BY(mutex_) = false;
  bool closed_ MIGRATE_GUARDED_BY(mutex_) = false;
  std::thread sender_;
};

}  // namespace migrate
