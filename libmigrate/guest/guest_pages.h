#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/unique_fd.h"
#include "libmigrate/cell/cell_control.h"
#include "libmigrate/guest/owed_pages.h"
#include "libmigrate/guest/staged_pages.h"
#include "libmigrate/requests/move_plan.h"
#include "pager/pager.h"
#include "transport/page_transport.h"

namespace migrate {

/// The pager of a guest, and the connections over which its pages come. What of it must outlive
/// this worker is given to the cell's init as soon as there is something. Owned by the worker's
/// thread; the pager's two threads call back into it.
class GuestPages final : public OwedPages {
 public:
  /// `cell` is borrowed. `name`: of the process; `session`: of its move; both for the log.
  GuestPages(CellControl& cell, std::string name, const SessionId& session);
  ~GuestPages() override;

  /// Options with all that this needs to hear of. `init`: of the cell, whose descendants all are.
  PagerOptions options(std::uint32_t spin_us, const MovePlan& plan, pid_t init);
  /// Writes into that file when and how the pages of the process came, once they are all there or
  /// it ends: what the pager notes, so options() that come after this make it do so. For
  /// measurements.
  void trace_into(std::string path) { trace_path_ = std::move(path); }
  /// The pager, once it is made; before, nothing is owed.
  void set_pager(std::unique_ptr<Pager> pager) { pager_ = std::move(pager); }
  Pager& pager() { return *pager_; }
  /// Where the source may connect by a transport of pages, until nothing is owed any more.
  void set_listener(std::unique_ptr<PageListener> listener) { listener_ = std::move(listener); }
  bool listens() const { return listener_ != nullptr; }
  /// Polls readable when somebody knocks there; -1 if it does not listen.
  int listener_fd() const { return listener_ ? listener_->fd() : -1; }
  /// Takes who has connected there.
  void accept();
  /// Both connections are there, and start() may be called.
  bool linked() const { return urgent_ != nullptr && bulk_ != nullptr; }
  /// Takes in from now on, over the bulk connection, what comes while the process still runs at its
  /// source: at most so many pages. `on_round` is called by another thread. Errors: kSystem.
  Result<void> stage(std::uint64_t most_pages, std::function<void()> on_round);
  /// Null when nothing is taken in.
  StagedPages* staging() const { return staging_.get(); }
  /// No more of that will come: what counts of it, once the regions are those of the image; the
  /// rest is taken away by `discard`. Errors: as StagedPages::finish() and Pager::keep_staged().
  Result<void> end_staging(const DiscardPages& discard);
  /// Starts the pager over them.
  Result<void> start();

  void take(Purpose purpose, std::unique_ptr<Channel> channel) override;
  void collect_poll_fds(std::vector<pollfd>& polled) override;
  void follow(bool independent) override;
  void stop() override;
  bool done() const override { return pager_ != nullptr && done_; }
  bool waits() const override { return pager_ && (link_lost_ || !pager_->started()); }
  std::uint64_t owed() const override { return pager_ ? pager_->owed_pages() : 0; }
  std::uint64_t owed_to_first() const override;
  bool first_gone() const override { return pager_ && pager_->statistics().first_gone; }
  wire::Progress progress() const override;

 private:
  void keep_space(const PagerSpace& space);
  void keep_again();
  void wake() const;
  void resume();
  void write_trace();

  CellControl& cell_;
  const std::string name_;
  const SessionId session_;
  std::string trace_path_;  // empty: there is none, or it is written
  UniqueFd events_;         // an eventfd, for the worker's loop
  std::atomic<bool> done_ = false;
  std::atomic<bool> link_lost_ = false;
  std::atomic<std::uint64_t> pages_read_ = 0;  // by the destination itself
  std::unique_ptr<PageListener> listener_;
  int refusals_ = 0;  // of who knocked there
  std::unique_ptr<Channel> urgent_;
  std::unique_ptr<Channel> bulk_;
  struct Unkept {
    Kept what;
    UniqueFd fd;
  };
  Mutex mutex_;
  std::vector<Unkept> unkept_ MIGRATE_GUARDED_BY(mutex_);  // what the init did not take so far
  std::unique_ptr<Pager> pager_;                           // its threads use the rest
  std::unique_ptr<StagedPages> staging_;                   // last: uses the pager
};

}  // namespace migrate
