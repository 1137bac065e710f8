#include "transport/memory_channel.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <vector>

#include "base/mutex.h"
#include "base/unique_fd.h"
#include "transport/frame.h"
#include "transport/wait.h"

namespace migrate {
namespace {

using Message = std::vector<std::byte>;

Error lost(const char* operation) {
  return make_error(ErrorCode::kPeerLost, operation, "memory channel");
}

/// One direction: a bounded queue. Thread-safe. `event` is readable while the queue holds
/// something or is closed.
class Queue {
 public:
  explicit Queue(UniqueFd event) : event_(std::move(event)) {}

  Result<void> push(Message message) {
    MutexLock lock(mutex_);
    while (!closed_ && !fits(message.size())) {
      room_.wait(mutex_);
    }
    if (closed_) {
      return fail(lost("send to"));
    }
    bytes_ += message.size();
    messages_.push_back(std::move(message));
    signal();
    return {};
  }

  Result<std::optional<Message>> pop() {
    MutexLock lock(mutex_);
    if (messages_.empty()) {
      if (closed_) {
        return fail(lost("receive from"));
      }
      return std::nullopt;
    }
    Message message = std::move(messages_.front());
    messages_.pop_front();
    bytes_ -= message.size();
    room_.notify_all();
    if (messages_.empty() && !closed_) {
      eventfd_t count = 0;
      std::ignore = ::eventfd_read(event_.get(), &count);
    }
    return message;
  }

  void close() {
    MutexLock lock(mutex_);
    closed_ = true;
    room_.notify_all();
    signal();
  }

  int event() const { return event_.get(); }

 private:
  bool fits(std::size_t size) const MIGRATE_REQUIRES(mutex_) {
    return messages_.empty() ||
           (messages_.size() < kMemoryChannelMessages && bytes_ + size <= kMemoryChannelBytes);
  }

  // Cannot fail: the counter never comes near its limit.
  void signal() { std::ignore = ::eventfd_write(event_.get(), 1); }

  const UniqueFd event_;
  Mutex mutex_;
  std::condition_variable_any room_;
  std::deque<Message> messages_ MIGRATE_GUARDED_BY(mutex_);
  std::size_t bytes_ MIGRATE_GUARDED_BY(mutex_) = 0;
  bool closed_ MIGRATE_GUARDED_BY(mutex_) = false;
};

class MemoryChannel final : public Channel {
 public:
  MemoryChannel(std::shared_ptr<Queue> outgoing, std::shared_ptr<Queue> incoming)
      : outgoing_(std::move(outgoing)), incoming_(std::move(incoming)) {}
  ~MemoryChannel() override { close_queues(); }

  Result<void> send(std::span<const std::span<const std::byte>> parts) override {
    MIGRATE_TRY(frame_header(parts));
    Message message;
    for (const auto& part : parts) {
      message.insert(message.end(), part.begin(), part.end());
    }
    const std::size_t size = message.size() + kFrameHeaderBytes;
    MIGRATE_TRY(outgoing_->push(std::move(message)));
    sent_.fetch_add(size, std::memory_order_relaxed);
    return {};
  }

  Result<std::optional<std::span<const std::byte>>> try_receive() override {
    if (broken_.load(std::memory_order_relaxed)) {
      return fail(lost("receive from"));
    }
    auto message = MIGRATE_TRY(incoming_->pop());
    if (!message) {
      return std::nullopt;
    }
    current_ = std::move(*message);
    received_.fetch_add(current_.size() + kFrameHeaderBytes, std::memory_order_relaxed);
    return std::span<const std::byte>(current_);
  }

  Result<std::span<const std::byte>> receive(std::uint32_t spin_us = 0,
                                             int timeout_ms = -1) override {
    return receive_by_polling(*this, spin_us, timeout_ms);
  }

  int poll_fd() const override { return incoming_->event(); }
  std::uint64_t bytes_sent() const override { return sent_.load(std::memory_order_relaxed); }
  std::uint64_t bytes_received() const override {
    return received_.load(std::memory_order_relaxed);
  }

  void shutdown() override {
    broken_.store(true, std::memory_order_relaxed);
    close_queues();
  }

 private:
  void close_queues() {
    outgoing_->close();
    incoming_->close();
  }

  const std::shared_ptr<Queue> outgoing_;
  const std::shared_ptr<Queue> incoming_;
  Message current_;  // lent to the caller of try_receive
  std::atomic<bool> broken_{false};
  std::atomic<std::uint64_t> sent_{0};
  std::atomic<std::uint64_t> received_{0};
};

Result<std::shared_ptr<Queue>> make_queue() {
  UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event.valid()) {
    return fail(system_error("create eventfd"));
  }
  return std::make_shared<Queue>(std::move(event));
}

}  // namespace

Result<std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>>> make_memory_channels() {
  const auto there = MIGRATE_TRY(make_queue());
  const auto back = MIGRATE_TRY(make_queue());
  return std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>>(
      std::make_unique<MemoryChannel>(there, back), std::make_unique<MemoryChannel>(back, there));
}

}  // namespace migrate
