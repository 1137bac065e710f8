#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "pager/access_advice.h"
#include "pager/arrival_trace.h"
#include "pager/page_protocol.h"
#include "pager/page_set.h"
#include "pager/page_source.h"
#include "pager/pager_statistics.h"
#include "pager/region.h"
#include "pager/userfault.h"

namespace migrate {

/// What must outlive the pager's process for another to go on with one address space: borrowed
/// descriptors of its userfaultfd and of the ledger of its pages (pager/page_ledger.h).
struct PagerSpace {
  std::uint32_t number = 0;  ///< From 1; the moved process itself first.
  std::uint32_t parent = 0;  ///< That which forked it.
  int userfault = -1;
  int ledger = -1;
};
/// The same, to go on from. Without a ledger the space is as its parent's says.
struct AdoptedSpace {
  std::uint32_t number = 0;
  std::uint32_t parent = 0;
  Userfault userfault;
  UniqueFd ledger;
};

struct PagerOptions {
  std::uint32_t spin_us = 200;  ///< How long the fault thread polls after a fault before it sleeps.
  /// Most pages asked for at a time ahead of a thread that walks through memory; 0 to ask for
  /// nothing but what is touched (mode demand).
  std::uint32_t prefetch_pages = 64;
  /// Receives pushes with more weight among the threads of its session: the process waits for all
  /// pages.
  bool hurries = false;
  /// When and how pages of the process itself came is noted of so many runs of pages.
  std::size_t trace_runs = 0;
  /// The host's pid of the process, and of one of which it and all that it forks will always be
  /// descendants. 0 if unknown: what a child does not get is then as the regions say, whatever the
  /// process has advised since (MADV_WIPEONFORK, MADV_KEEPONFORK).
  int process = 0;
  int process_tree = 0;
  /// Called by a thread of the pager when the process has forked, with the child's address space,
  /// before the child can run far: whoever keeps duplicates keeps some of this. Twice for each: at
  /// once with its userfaultfd, which must not be lost, and then with its ledger too.
  std::function<void(const PagerSpace& space)> on_fork;
  /// Called once, by a thread of the pager, when nothing is owed any more and the process runs
  /// without the pager. Whoever else holds a duplicate of the userfaultfd must close it now. Must
  /// not call stop() or destroy the pager.
  std::function<void()> on_done;
  /// Called by a thread of the pager when a link broke; faults wait until resume(). May be called
  /// once for each link. Must not call stop() or destroy the pager.
  std::function<void(const Error&)> on_link_lost;
  /// There are faults again, told every five milliseconds at most. Called by the fault thread, must
  /// not block.
  std::function<void()> on_faults;
};

/// Takes pages away from the process that is being made here, so that they are missing again.
using DiscardPages = std::function<Result<void>(const PageSet&)>;

class PagerCore;  // pager/internal/pager_core.h

/// Fills the memory of one restored process, and of those that it forks, from a source.
///
/// It has two threads of its own once started: the fault thread and the bulk receiver. All
/// functions may be called by one controlling thread; those marked (any) by every thread.
class Pager {
 public:
  /// Takes the userfaultfd and registers the destination ranges of `regions`, all pages of which
  /// are then owed by the source. `local_files` are opened for reading. Nothing is asked before
  /// start(). Errors: kInvalid (regions overlap), kSystem, kNotFound (the process is gone).
  static Result<std::unique_ptr<Pager>> create(PagerOptions options, Userfault userfault,
                                               std::vector<PagerRegion> regions,
                                               std::vector<UniqueFd> local_files);
  /// Goes on where a pager ended whose process was killed. All who wait for a page are made to ask
  /// again. Faults that need no source are served at once, the others after start().
  /// Errors: kCorrupt (ledger), kInvalid, kSystem.
  static Result<std::unique_ptr<Pager>> adopt(PagerOptions options,
                                              std::vector<AdoptedSpace> spaces,
                                              std::vector<UniqueFd> local_files);
  /// Stops.
  ~Pager();
  Pager(const Pager&) = delete;
  Pager& operator=(const Pager&) = delete;

  /// Replaces all regions before start() and before install_starter(): registers what is new (its
  /// mappings must exist) and forgets the rest (unregistering what is still mapped). What was
  /// staged where a region stays is still there.
  Result<void> update_regions(std::vector<PagerRegion> regions);
  /// Replaces the local files before start().
  void set_local_files(std::vector<UniqueFd> local_files);

  /// Installs whole pages of a region before start(), given by destination address.
  /// Errors: kInvalid (not in a region), kNotFound (mapping or process gone).
  Result<void> install_starter(std::uint64_t address, std::span<const std::byte> bytes);

  /// Before start(), what came ahead of the process (see Staging, which calls stage()): installs
  /// pages, or replaces those that came before. Errors: as Staging::take().
  Result<void> stage(const PushView& push, int memory, std::uint64_t most_pages);
  /// Of all that came ahead only `kept` (of source ranges) is as the process has it. The rest is
  /// owed again; `discard` is called with where it is in the process, to take it away there.
  /// Errors: kCorrupt (what is to be kept is not here), kRetry (somebody touches the memory), those
  /// of `discard`, kSystem.
  Result<void> keep_staged(const PageSet& kept, const DiscardPages& discard);

  /// Pages (of destination ranges) to ask for as soon as there is a link: those that the process
  /// will touch first. Replaces what was set before; has no effect after start().
  void ask_first(std::vector<PageRange> ranges);
  /// How the process says that it walks through source ranges, which are ascending and apart from
  /// each other. Before start(); one that goes on for another (adopt()) does without.
  void advise(std::vector<AccessAdvice> advice);

  /// Makes both threads, which wait for start(): making them takes time that start() may not have.
  /// Optional.
  void launch();

  /// Starts both threads. The links belong to the pager, which shuts them down when it stops.
  Result<void> start(std::unique_ptr<PageLink> urgent, std::unique_ptr<PageLink> bulk);
  /// start() was called.
  bool started() const { return started_; }
  /// Goes on with new links after the old ones broke (both are replaced), and asks again for what
  /// was outstanding.
  Result<void> resume(std::unique_ptr<PageLink> urgent, std::unique_ptr<PageLink> bulk);

  /// Waits until nothing is owed (mode eager: before the process runs). The source must push.
  /// `timeout_ms` < 0 waits for ever. Errors: kRetry (timeout), kPeerLost (a link broke).
  Result<void> wait_all_present(int timeout_ms);

  /// The address spaces as they are now. For the time before the process runs: later, on_fork
  /// tells.
  std::vector<PagerSpace> spaces() const;
  /// (any) Pages that only the source has, so far as known; counted for every address space.
  std::uint64_t owed_pages() const;
  /// (any) True when nothing is owed and the userfaultfds are closed.
  bool done() const;
  /// (any)
  PagerStatistics statistics() const;
  /// (any) See PagerOptions::trace_runs.
  ArrivalTrace arrivals() const;

  /// Ends both threads and closes the links. Unless done(), the userfaultfd is closed only with
  /// the pager: until then faults wait. Threads that touch a page still owed after the last
  /// duplicate of the userfaultfd is closed would find zeros: end the process first, or hand the
  /// descriptor on.
  void stop();

 private:
  explicit Pager(std::unique_ptr<PagerCore> core);

  std::unique_ptr<PagerCore> core_;
  bool started_ = false;
};

}  // namespace migrate
