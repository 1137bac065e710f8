#pragma once

#include <poll.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "pager/arrival_trace.h"
#include "pager/internal/address_space.h"
#include "pager/internal/fault.h"
#include "pager/internal/latency_histogram.h"
#include "pager/internal/prefetcher.h"
#include "pager/page_map.h"
#include "pager/page_protocol.h"
#include "pager/pager.h"

namespace migrate {

/// What Pager hides. Functions are in the files that are named below.
///
/// One rule carries the correctness: the userfaultfds are read, and their events applied to the
/// maps, in one critical section of `mutex_`; pages are installed, and their state changed, in
/// another. So the map that an install is decided on is the address space's as of the last event
/// read, and the kernel refuses the install (EAGAIN) if it has changed since.
class PagerCore {
 public:
  PagerCore(PagerOptions options, std::vector<UniqueFd> local_files, UniqueFd kick);
  ~PagerCore();
  PagerCore(const PagerCore&) = delete;
  PagerCore& operator=(const PagerCore&) = delete;

  void add_first_space(Userfault userfault);
  Result<void> adopt(std::vector<AdoptedSpace> spaces);
  std::vector<PagerSpace> spaces() const;
  Result<void> set_regions(const std::vector<PagerRegion>& regions);
  void set_local_files(std::vector<UniqueFd> files) { local_files_ = std::move(files); }
  Result<void> install_starter(std::uint64_t address, std::span<const std::byte> bytes);
  void ask_first(std::vector<PageRange> ranges);
  void advise(std::vector<AccessAdvice> advice);
  Result<void> stage(const PushView& push, int memory, std::uint64_t most_pages);
  Result<void> keep_staged(const PageSet& kept, const DiscardPages& discard);
  Result<void> start(std::shared_ptr<PageLink> urgent, std::shared_ptr<PageLink> bulk);
  void launch();
  Result<void> resume(std::shared_ptr<PageLink> urgent, std::shared_ptr<PageLink> bulk);
  Result<void> wait_all_present(int timeout_ms);
  std::uint64_t owed_pages() const;
  bool done() const { return done_; }
  PagerStatistics statistics() const;
  ArrivalTrace arrivals() const;
  void stop();

 private:
  using Clock = std::chrono::steady_clock;

  enum class Outcome : std::uint8_t { kSettled, kChanging };
  enum class Cause : std::uint8_t { kFault, kPrefetch, kPush, kLocalFile, kStarter };

  static constexpr std::uint32_t kFirstSpace = 1;  // of the moved process itself
  static constexpr std::size_t kOutstandingCount = 1024;
  static constexpr std::size_t kMostMessages = 32;   // of one space before the others' turn
  static constexpr std::uint64_t kLockedPages = 32;  // installed while holding the lock
  // --- pager_core.cc: shared by the threads ---
  /// Installs content wherever pages of `source` are still lacking. kChanging: not everywhere.
  Outcome install_everywhere(PageRange source, std::span<const std::byte> bytes, Cause purpose)
      MIGRATE_REQUIRES(mutex_);
  Outcome install_in(AddressSpace& space, PageRange source, std::span<const std::byte> bytes,
                     Cause purpose) MIGRATE_REQUIRES(mutex_);
  bool drop_guarded(AddressSpace& space, const PagerRegion& part) MIGRATE_REQUIRES(mutex_);
  Outcome install_run(AddressSpace& space, const PagerRegion& part,
                      std::span<const std::byte> bytes, Cause purpose) MIGRATE_REQUIRES(mutex_);
  /// The same for pages that are zero at the source, or that it cannot read.
  Outcome settle_everywhere(PageRange source, PageKind kind) MIGRATE_REQUIRES(mutex_);
  Outcome settle_run(AddressSpace& space, const PagerRegion& part, PageState state, PageKind kind)
      MIGRATE_REQUIRES(mutex_);
  void count_pages(const AddressSpace& space, Cause purpose, PageRange destination)
      MIGRATE_REQUIRES(mutex_);
  void trace(const AddressSpace& space, ArrivalWay way, PageRange destination)
      MIGRATE_REQUIRES(mutex_);
  void trace_staged(const PagerRegion& region, const PageSet& pages) MIGRATE_REQUIRES(mutex_);
  /// A fault that needed no answer is over.
  void note_served(const Fault& fault) MIGRATE_REQUIRES(mutex_);
  AddressSpace* find_space(std::uint32_t id) MIGRATE_REQUIRES(mutex_);
  AddressSpace& add_space(Userfault userfault, PageMap map) MIGRATE_REQUIRES(mutex_);
  Result<void> adopt_space(AdoptedSpace adopted) MIGRATE_REQUIRES(mutex_);
  void save(const AddressSpace& space) const MIGRATE_REQUIRES(mutex_);
  /// Renews unfinished_ and owed_ from the maps; tells the fault thread when nothing is left.
  void publish() MIGRATE_REQUIRES(mutex_);
  /// Reads `part` from its local file into `buffer`; false when it cannot be read.
  bool read_local(const PagerRegion& part, std::span<std::byte> buffer) const;
  void give_up_local(PageRange source) MIGRATE_REQUIRES(mutex_);
  void kick() const;
  void link_lost(const PageLink& link, const Error& error);
  void send_control(MessageType type, std::uint64_t sequence);
  // --- fault_thread.cc: owned by the fault thread ---
  void await_start();
  void run_faults();
  void take_new_link();
  void lose_urgent_link(const Error& error);
  bool read_spaces();
  bool read_space(AddressSpace& space) MIGRATE_REQUIRES(mutex_);
  bool read_messages(AddressSpace& space) MIGRATE_REQUIRES(mutex_);
  void apply_event(AddressSpace& space, const uffd_msg& message) MIGRATE_REQUIRES(mutex_);
  void apply_fork(AddressSpace& space, int userfault) MIGRATE_REQUIRES(mutex_);
  void note_withheld(AddressSpace& space) MIGRATE_REQUIRES(mutex_);
  void resolve(const Fault& fault) MIGRATE_REQUIRES(mutex_);
  void fill_zero(AddressSpace& space, const Fault& fault, const std::optional<PagerRegion>& part,
                 PageState state) MIGRATE_REQUIRES(mutex_);
  void resolve_local_faults();
  bool retry_deferred();
  bool read_replies();
  Result<void> apply_reply(const ReplyView& reply);
  void drop_gone_spaces();
  void finish();
  void sleep_until_something();
  // --- fault_requests.cc: owned by the fault thread ---
  void request_first(PageRange range) MIGRATE_REQUIRES(mutex_);
  bool add_request(PageRange source, bool prefetch, Clock::time_point start);
  void ask(AddressSpace& space, const PagerRegion& part, const Fault& fault)
      MIGRATE_REQUIRES(mutex_);
  /// Tells the prefetcher of a fault; whether its page was asked for before.
  void ask_ahead(AddressSpace& space, const Fault& fault, std::uint64_t source_address, bool asked)
      MIGRATE_REQUIRES(mutex_);
  std::uint64_t request_lacking(AddressSpace& space, PageRange source, Clock::time_point start)
      MIGRATE_REQUIRES(mutex_);
  void send_requests();
  // --- bulk_receiver.cc: owned by the bulk receiver ---
  void run_bulk();
  std::shared_ptr<PageLink> wait_for_bulk_link(const PageLink* last);
  Result<void> receive_bulk(PageLink& link);
  Result<void> apply_push(const PushView& push);
  Result<void> apply_presence(const PresenceView& presence);
  void mark_absent(PageRange source) MIGRATE_REQUIRES(mutex_);
  void unregister_settled_regions();
  void unregister_if_stable(AddressSpace& space, PageRange range) MIGRATE_REQUIRES(mutex_);
  void fill_local_files();
  void fill_local_run(const PagerRegion& part);
  bool lacks_local(PageRange source) MIGRATE_REQUIRES(mutex_);
  void let_faults_pass() const;
  bool ending() const { return stop_ || done_; }

  const PagerOptions options_;
  std::vector<UniqueFd> local_files_;  // constant after start()
  const UniqueFd kick_;                // wakes the fault thread
  std::atomic<bool> stop_ = false;
  std::atomic<bool> done_ = false;
  std::atomic<bool> fault_waiting_ = false;  // the fault thread wants the lock
  std::atomic<bool> refill_local_ = false;   // a file's pages were given back with madvise
  std::atomic<std::uint64_t> unfinished_ = 0;
  std::atomic<std::uint64_t> owed_ = 0;
  mutable Mutex mutex_;
  std::condition_variable_any changed_;  // links_, done_ or stop_ changed
  std::vector<std::unique_ptr<AddressSpace>> spaces_ MIGRATE_GUARDED_BY(mutex_);
  std::uint32_t next_space_ MIGRATE_GUARDED_BY(mutex_) = 1;
  PagerStatistics statistics_ MIGRATE_GUARDED_BY(mutex_);
  ArrivalTrace arrivals_ MIGRATE_GUARDED_BY(mutex_);  // of the first space
  LatencyHistogram latencies_ MIGRATE_GUARDED_BY(mutex_);
  std::shared_ptr<PageLink> urgent_ MIGRATE_GUARDED_BY(mutex_);
  std::shared_ptr<PageLink> bulk_ MIGRATE_GUARDED_BY(mutex_);
  std::vector<PageRange> first_ MIGRATE_GUARDED_BY(mutex_);  // to be asked for before any fault
  std::uint32_t links_lost_ MIGRATE_GUARDED_BY(mutex_) = 0;
  bool bulk_ended_ MIGRATE_GUARDED_BY(mutex_) = false;
  bool started_ MIGRATE_GUARDED_BY(mutex_) = false;
  std::uint64_t staged_pages_ MIGRATE_GUARDED_BY(mutex_) = 0;  // ever taken by stage()
  Mutex bulk_send_mutex_;  // after mutex_ was released; held while sending on the bulk link

  // Owned by the fault thread.
  std::shared_ptr<PageLink> urgent_link_;
  bool urgent_usable_ = false;
  std::size_t most_requests_ = kOutstandingCount;
  std::vector<Fault> faults_;
  Clock::time_point faults_told_{};
  std::vector<Fault> deferred_;      // to be looked at again
  std::vector<Fault> retried_;       // scratch of retry_deferred
  std::vector<Fault> local_faults_;  // wait for a page of a local file
  std::vector<PageRequest> requests_;
  std::array<Outstanding, kOutstandingCount> outstanding_{};
  std::vector<std::uint32_t> free_slots_;
  std::uint32_t tag_round_ = 0;
  Prefetcher prefetcher_;
  std::uint64_t ahead_pages_ = 0;  // asked for ahead of faults, and not answered
  std::vector<std::byte> local_buffer_;
  std::vector<pollfd> poll_descriptors_;

  // Owned by the bulk receiver.
  PushView push_;
  PresenceView presence_;
  std::uint64_t unconfirmed_bytes_ = 0, covered_until_ = 0;
  std::vector<std::byte> fill_buffer_;
  std::thread fault_thread_, bulk_thread_;
};

}  // namespace migrate
