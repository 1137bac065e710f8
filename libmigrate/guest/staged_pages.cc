#include "libmigrate/guest/staged_pages.h"

#include <limits>
#include <utility>

#include "base/clock.h"
#include "libmigrate/pages/channel_link.h"

namespace migrate {
namespace {

constexpr int kStopLookMs = 200;
constexpr std::int64_t kRestUs = 20'000'000;  // For what the source has sent before the image.

}  // namespace

StagedPages::StagedPages(std::unique_ptr<Channel> bulk, Pager& pager, UniqueFd memory,
                         std::uint64_t most_pages, std::function<void()> on_round)
    : bulk_(std::move(bulk)),
      staging_(pager, std::move(memory), most_pages),
      on_round_(std::move(on_round)),
      heard_us_(now_us()),
      until_us_(std::numeric_limits<std::int64_t>::max()),
      thread_([this] { run(); }) {}

StagedPages::~StagedPages() {
  stop();
}

void StagedPages::stop() {
  if (bulk_) {
    bulk_->shutdown();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

void StagedPages::run() {
  Result<void> outcome = take_all();
  if (!outcome) {
    bulk_->shutdown();  // Whoever sends is to know.
  }
  const MutexLock lock(mutex_);
  outcome_ = std::move(outcome);
}

Result<void> StagedPages::take_all() {
  ChannelLink link(std::shared_ptr<Channel>(bulk_.get(), [](Channel*) {}));
  for (std::uint64_t rounds = 0; now_us() < until_us_;) {
    const auto message = link.receive(0, kStopLookMs);
    if (!message && message.error().code == ErrorCode::kRetry) {
      continue;
    }
    if (!message) {
      return fail(message.error());
    }
    heard_us_ = now_us();
    if (MIGRATE_TRY(staging_.take(link, *message))) {
      return {};
    }
    if (staging_.rounds() != rounds) {
      rounds = staging_.rounds();
      on_round_();
    }
  }
  return fail(make_error(ErrorCode::kRetry, "take in pages ahead of their process", {},
                         "the source does not say which of them count"));
}

Result<void> StagedPages::check() const {
  const MutexLock lock(mutex_);
  return outcome_;
}

std::int64_t StagedPages::silent_ms() const {
  return (now_us() - heard_us_) / 1000;
}

Result<PageSet> StagedPages::finish() {
  until_us_ = now_us() + kRestUs;
  thread_.join();
  MIGRATE_TRY(check());
  return staging_.kept();
}

}  // namespace migrate
