#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>

#include "base/mutex.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "pager/staging.h"
#include "transport/channel.h"

namespace migrate {

/// Takes in what comes over the bulk connection while the process still runs at its source, by a
/// thread of its own. Owned by the worker's thread.
class StagedPages {
 public:
  /// `pager` is borrowed; `memory` and `most_pages` as Staging has them. `on_round` is called by
  /// the thread after each round.
  StagedPages(std::unique_ptr<Channel> bulk, Pager& pager, UniqueFd memory,
              std::uint64_t most_pages, std::function<void()> on_round);
  /// Breaks the connection, unless take_back() has it.
  ~StagedPages();
  StagedPages(const StagedPages&) = delete;
  StagedPages& operator=(const StagedPages&) = delete;

  /// What it has failed with, if it has.
  Result<void> check() const;
  /// Since when nothing has come.
  std::int64_t silent_ms() const;

  /// Once the image is there: waits until all has come that was sent before it, and tells which
  /// pages may be used. Errors: as Staging::take(), kRetry (not in time).
  Result<PageSet> finish();
  /// After finish(): the connection, for what follows.
  std::unique_ptr<Channel> take_back() { return std::move(bulk_); }

 private:
  void run();
  Result<void> take_all();
  void stop();

  std::unique_ptr<Channel> bulk_;
  Staging staging_;
  const std::function<void()> on_round_;
  std::atomic<std::int64_t> heard_us_;
  std::atomic<std::int64_t> until_us_;  // it must be over
  mutable Mutex mutex_;
  Result<void> outcome_ MIGRATE_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace migrate
