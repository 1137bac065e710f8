#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/mapping.h"
#include "base/mutex.h"
#include "base/result.h"
#include "pager/internal/pace.h"
#include "pager/internal/push_order.h"
#include "pager/internal/push_plan.h"
#include "pager/page_protocol.h"
#include "pager/page_reader.h"
#include "pager/page_set.h"
#include "pager/page_source.h"
#include "pager/region.h"

namespace migrate {

struct PageServerOptions {
  bool push = true;             ///< False: only presence is sent until start_push() (mode demand).
  std::uint32_t spin_us = 200;  ///< How long to poll for the next request before sleeping.
  /// Most that is pushed, 0: as fast as can be. Answers to requests are not limited.
  std::uint64_t push_bytes_per_second = 0;
  /// Within which, from the first push() on, everything is to be pushed, even beyond the limit and
  /// without being asked (mode demand); 0: no such time. Without a limit it changes nothing else.
  std::chrono::milliseconds push_deadline{0};
  /// Pushes with more weight among the threads of its session: the process stands still until all
  /// is there. With a deadline it does in any case.
  bool push_hurries = false;
};

struct PageServerStatistics {
  std::uint64_t present_pages = 0;  ///< Pages that exist at the source; 0 until they were counted.
  std::uint64_t requests = 0;
  std::uint64_t requested_pages = 0;  ///< Pages sent because they were asked for.
  std::uint64_t pushed_pages = 0;
  std::uint64_t zero_pages = 0;  ///< Sent, by push or request, as "all zero" without content.
  std::uint64_t unreadable_pages = 0;
  std::uint64_t confirmed_pages = 0;
  std::uint64_t file_pages = 0;  ///< Of regions that are all data: sent of files, with content.
};

/// Serves the memory of one frozen source process to one pager.
///
/// Threads: serve_urgent() and push() are loops for one thread each; everything else may be called
/// by any thread. The process must stay frozen, and its memory as it is except for what
/// take_confirmed() gave, until push() has returned success.
class PageServer {
 public:
  /// `reader` is borrowed and must outlive the server; its functions are called by both loops.
  /// Errors: kInvalid (regions that overlap or are no page ranges).
  static Result<std::unique_ptr<PageServer>> create(PageServerOptions options, PageReader& reader,
                                                    std::vector<ServedRegion> regions);

  /// Before push(): the destination has these pages as they are. They are listed as present, count
  /// as confirmed, and are not sent unless asked for.
  void leave_out(PageSet there) { there_ = std::move(there); }

  /// Before serve_urgent() and push(): ranges of served pages, ascending and apart from each other,
  /// that come otherwise than the options say.
  void set_ways(std::vector<PushedRange> ways);

  /// Answers requests until stopped or done (success), or the link breaks (kPeerLost), the peer
  /// breaks the format (kCorrupt) or the process cannot be read (kNotFound, kSystem). Blocks.
  /// May be called again with another link.
  Result<void> serve_urgent(PageLink& link);

  /// Sends which pages exist, then, unless told otherwise, the pages, starting after the last one
  /// asked for; then waits for Done. Returns success when the destination owes nothing any more or
  /// request_stop() was called; errors as serve_urgent. Blocks. May be called again with another
  /// link after kPeerLost: it sends again what was not confirmed.
  Result<void> push(PageLink& link);

  /// Begins to push in mode demand, and what is pushed on request only, too. Any thread.
  void start_push() {
    all_wanted_ = true;
    push_wanted_ = true;
  }
  /// Makes both loops return soon; shuts down the links that they use.
  void request_stop();

  /// Ranges confirmed since the last call: installed at the destination, never to be asked for
  /// again. The caller may free them at the source; a request for one is answered with an error.
  std::vector<PageRange> take_confirmed();
  /// True when the pager has said that nothing is owed any more.
  bool done() const { return done_; }

  PageServerStatistics statistics() const;

 private:
  PageServer(PageServerOptions options, PageReader& reader, std::vector<ServedRegion> regions,
             Mapping push_buffer, Mapping urgent_buffer);

  Result<void> answer(PageLink& link, const PageRequest& request);
  /// Fills urgent_runs_ and urgent_buffer_ with the answer for served pages, which count as sent.
  Result<void> read_request(PageRange range);
  Result<void> scan();
  /// Of the plan, as it was just made or begun anew.
  void apply_ways() MIGRATE_REQUIRES(mutex_);
  void release_all();
  /// Of pages that were sent: those with content of a file.
  std::uint64_t count_file_pages(const std::vector<PushRun>& runs) const;
  Result<void> send_presence(PageLink& link);
  Result<bool> push_batch(PageLink& link);
  /// Whether the pace lets more be sent within a few milliseconds; waits for that.
  Result<bool> await_turn(PageLink& link);
  Result<void> push_until_done(PageLink& link);
  Result<void> receive_control(PageLink& link, int timeout_ms);
  Result<void> handle_control(std::span<const std::byte> message);
  bool served(PageRange range) const;
  void use_link(std::size_t slot, PageLink* link);

  // Constant after construction.
  const PageServerOptions options_;
  PageReader& reader_;
  const std::vector<ServedRegion> regions_;  // ascending
  PageSet there_;                            // at the destination before the first push()
  std::vector<PushedRange> ways_;            // ascending
  PageSet never_;                            // of these, those of kNever
  bool pushes_first_ = false;                // there are some of kFirst

  std::atomic<bool> push_wanted_;
  std::atomic<bool> all_wanted_;
  std::atomic<bool> stop_ = false;
  std::atomic<bool> done_ = false;
  std::atomic<bool> warned_ = false;  // of a request outside the process

  // Owned by the thread in push().
  Mapping push_buffer_;  // costs nothing before it is used
  std::vector<PageRange> push_ranges_;
  std::vector<PushRun> push_runs_;
  bool push_end_sent_ = false;
  Pace pace_;
  std::uint64_t next_sequence_ = 1;

  // Owned by the thread in serve_urgent().
  Mapping urgent_buffer_;
  std::vector<PushRun> urgent_runs_;

  mutable Mutex mutex_;  // short sections only; nothing is sent or read under it
  std::optional<PushPlan> plan_ MIGRATE_GUARDED_BY(mutex_);
  PushOrder order_ MIGRATE_GUARDED_BY(mutex_);
  PageServerStatistics statistics_ MIGRATE_GUARDED_BY(mutex_);
  PageLink* links_[2] MIGRATE_GUARDED_BY(mutex_) = {};
};

}  // namespace migrate
