#include "libmigrate/relay/link.h"

#include <span>
#include <utility>

namespace migrate {
namespace {
constexpr std::size_t kMaxQueuedBytes = 32U << 20U;
}  // namespace

Link::Link(std::unique_ptr<Channel> channel)
    : channel_(std::move(channel)), sender_([this] { run_sender(); }) {}

Link::~Link() {
  {
    const MutexLock lock(mutex_);
    closed_ = true;
  }
  channel_->shutdown();
  changed_.notify_all();
  sender_.join();
}

void Link::send(const wire::RelayMessage& message) {
  std::string bytes = message.SerializeAsString();
  const MutexLock lock(mutex_);
  if (closed_) {
    return;
  }
  if (queued_bytes_ + bytes.size() > kMaxQueuedBytes || bytes.size() > kMaxMessageBytes) {
    closed_ = true;
    channel_->shutdown();
    return;
  }
  queued_bytes_ += bytes.size();
  queue_.push_back(std::move(bytes));
  changed_.notify_one();
}

Result<std::optional<wire::RelayMessage>> Link::receive() {
  const auto bytes = MIGRATE_TRY(channel_->try_receive());
  if (!bytes) {
    return std::nullopt;
  }
  wire::RelayMessage message;
  if (bytes->size() > kMaxMessageBytes ||
      !message.ParseFromArray(bytes->data(), static_cast<int>(bytes->size()))) {
    return fail(make_error(ErrorCode::kCorrupt, "read a relay message", "link to the other side"));
  }
  return message;
}

bool Link::arm() {
  const Result<bool> armed = channel_->arm();
  return !armed || *armed;
}

bool Link::idle() const {
  const MutexLock lock(mutex_);
  return queue_.empty() && !sending_;
}

std::size_t Link::queued_bytes() const {
  const MutexLock lock(mutex_);
  return queued_bytes_;
}

void Link::run_sender() {
  while (true) {
    std::string message;
    {
      const MutexLock lock(mutex_);
      sending_ = false;
      while (queue_.empty() && !closed_) {
        changed_.wait(mutex_);
      }
      if (closed_) {
        return;
      }
      message = std::move(queue_.front());
      queue_.pop_front();
      queued_bytes_ -= message.size();
      sending_ = true;
    }
    if (!channel_->send_one(std::as_bytes(std::span(message)))) {
      const MutexLock lock(mutex_);
      closed_ = true;
      sending_ = false;
      queue_.clear();
      channel_->shutdown();  // The owner learns of it from receive().
      return;
    }
  }
}

}  // namespace migrate
