// What the controlling thread does with a PagerCore, and how its links come and go.

#include <chrono>
#include <utility>

#include "base/log.h"
#include "pager/internal/pager_core.h"

namespace migrate {
namespace {

constexpr int kLingerMs = 1000;

}  // namespace

void PagerCore::ask_first(std::vector<PageRange> ranges) {
  const MutexLock lock(mutex_);
  first_ = std::move(ranges);
}

void PagerCore::advise(std::vector<AccessAdvice> advice) {
  const MutexLock lock(mutex_);
  prefetcher_.advise(std::move(advice));
}

Result<void> PagerCore::start(std::shared_ptr<PageLink> urgent, std::shared_ptr<PageLink> bulk) {
  launch();
  {
    const MutexLock lock(mutex_);
    if (urgent_) {
      return fail(make_error(ErrorCode::kInvalid, "start a pager twice"));
    }
    urgent_ = std::move(urgent);
    bulk_ = std::move(bulk);
    started_ = true;
    publish();
  }
  changed_.notify_all();
  kick();
  if (done_) {
    send_control(MessageType::kDone, 0);  // An adopted one may need no source.
  }
  return {};
}

void PagerCore::launch() {
  if (!fault_thread_.joinable()) {
    fault_thread_ = std::thread([this] { run_faults(); });
    bulk_thread_ = std::thread([this] { run_bulk(); });
  }
}

void PagerCore::await_start() {
  const MutexLock lock(mutex_);
  while (!stop_ && !started_) {
    changed_.wait(mutex_);
  }
}

Result<void> PagerCore::resume(std::shared_ptr<PageLink> urgent, std::shared_ptr<PageLink> bulk) {
  {
    const MutexLock lock(mutex_);
    if (!urgent_ || !bulk_) {
      return fail(make_error(ErrorCode::kInvalid, "resume a pager that was never started"));
    }
    urgent_->shutdown();
    bulk_->shutdown();
    urgent_ = std::move(urgent);
    bulk_ = std::move(bulk);
    links_lost_ = 0;
  }
  changed_.notify_all();
  kick();
  if (done_) {
    send_control(MessageType::kDone, 0);  // the link that should have carried it broke
  }
  return {};
}

Result<void> PagerCore::wait_all_present(int timeout_ms) {
  const auto deadline = Clock::now() + std::chrono::milliseconds(timeout_ms);
  const MutexLock lock(mutex_);
  while (!done_) {
    if (stop_ || links_lost_ > 0) {
      return fail(make_error(ErrorCode::kPeerLost, "wait until all pages are present"));
    }
    if (timeout_ms < 0) {
      changed_.wait(mutex_);
    } else if (changed_.wait_until(mutex_, deadline) == std::cv_status::timeout && !done_) {
      return fail(make_error(ErrorCode::kRetry, "wait until all pages are present"));
    }
  }
  return {};
}

std::uint64_t PagerCore::owed_pages() const {
  return owed_;
}

PagerStatistics PagerCore::statistics() const {
  const MutexLock lock(mutex_);
  PagerStatistics copy = statistics_;
  copy.remote_faults = latencies_.count();
  copy.fault_p50_us = static_cast<double>(latencies_.quantile_ns(0.5)) / 1000;
  copy.fault_p99_us = static_cast<double>(latencies_.quantile_ns(0.99)) / 1000;
  copy.fault_max_us = static_cast<double>(latencies_.max_ns()) / 1000;
  return copy;
}

void PagerCore::stop() {
  {
    const MutexLock lock(mutex_);
    if (done_ && bulk_thread_.joinable()) {
      // To close while bytes are unread could lose the message that we are done: the source closes
      // when it has it.
      const auto deadline = Clock::now() + std::chrono::milliseconds(kLingerMs);
      while (!bulk_ended_ && changed_.wait_until(mutex_, deadline) != std::cv_status::timeout) {
      }
    }
    stop_ = true;
    for (const auto& link : {urgent_, bulk_}) {
      if (link) {
        link->shutdown();
      }
    }
  }
  changed_.notify_all();
  kick();
  if (fault_thread_.joinable()) {
    fault_thread_.join();
  }
  if (bulk_thread_.joinable()) {
    bulk_thread_.join();
  }
  // What the links hold, such as pinned memory, is not to live as long as the process.
  std::shared_ptr<PageLink> urgent;
  std::shared_ptr<PageLink> bulk;
  {
    const MutexLock lock(mutex_);
    urgent.swap(urgent_);
    bulk.swap(bulk_);
  }
  urgent_link_.reset();
  urgent_usable_ = false;
}

void PagerCore::link_lost(const PageLink& link, const Error& error) {
  if (ending()) {
    return;
  }
  {
    const MutexLock lock(mutex_);
    if (&link != urgent_.get() && &link != bulk_.get()) {
      return;  // resume() replaced it
    }
    ++links_lost_;
  }
  changed_.notify_all();
  log::warn("link to the source lost, faults wait: {}", error.message());
  if (options_.on_link_lost) {
    options_.on_link_lost(error);
  }
}

void PagerCore::send_control(MessageType type, std::uint64_t sequence) {
  std::shared_ptr<PageLink> link;
  {
    const MutexLock lock(mutex_);
    link = bulk_;
  }
  PageControl message;
  message.type = type;
  message.sequence = sequence;
  if (!link) {
    return;  // Adopted, and the source has not come back: start() tells it.
  }
  const std::span<const std::byte> part = message_bytes(message);
  const MutexLock lock(bulk_send_mutex_);
  // A broken link is noticed by the receiver, which reads it all the time.
  static_cast<void>(link->send(std::span(&part, 1)));
}

}  // namespace migrate
