#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "base/unique_fd.h"
#include "pager/page_server.h"
#include "pager/pager.h"
#include "tests/pager/socket_link.h"

namespace migrate::test {

enum class Mode { kLazy, kDemand, kEager };
std::string mode_name(Mode mode);

/// The word that fill() writes at `address` (8-byte aligned); `salt` tells versions apart.
std::uint64_t word_at(const void* address, std::uint64_t salt = 0);
/// Writes word_at() to a few words of each page, given as if they were at `as` (default: where they
/// are).
void fill(void* start, std::uint64_t page_count, std::uint64_t salt = 0, const void* as = nullptr);
/// Ends the process with a message unless the pages hold what fill() wrote at address `as`.
void expect_filled(const void* start, std::uint64_t page_count, std::uint64_t salt = 0,
                   const void* as = nullptr);
void expect_zero(const void* start, std::uint64_t page_count);
/// Ends the process with a message unless `condition` holds. For code that runs in child processes.
void expect(bool condition, const char* what);

/// Memory that moves from one child process, frozen, to another, with a pager and a page server in
/// this process. Children are forked before any thread starts.
class MovedMemory {
 public:
  /// Reserves addresses for `page_count` pages in all three processes.
  explicit MovedMemory(std::uint64_t page_count);
  ~MovedMemory();
  MovedMemory(const MovedMemory&) = delete;
  MovedMemory& operator=(const MovedMemory&) = delete;

  std::byte* base() const { return base_; }
  std::byte* page(std::uint64_t index) const { return base_ + index * kPageBytes; }

  /// The mappings at both ends; if none is added, all pages are one anonymous region. Offsets are
  /// in pages from base(). `file` is a descriptor of a file or memfd.
  void add_region(RegionKind kind, std::uint64_t first, std::uint64_t count, int file = -1);

  /// Runs `prepare` in the source child after its mappings are made, then freezes it.
  void start_source(const std::function<void()>& prepare);
  /// Runs `job` in the destination child, after release().
  void start_destination(const std::function<void()>& job);
  /// Before connect(): how pages come; in pages from base().
  void set_way(PushWay way, std::uint64_t first, std::uint64_t count) {
    ways_.push_back({{reinterpret_cast<std::uint64_t>(page(first)), count}, way});
  }
  /// Starts pager and server. In mode eager waits until all is there.
  void connect(Mode mode, PagerOptions options = {});
  void release() const;
  /// The job's exit status must be 0.
  void expect_job_succeeds();
  /// Waits until the pager owes nothing and the server knows, unless its link went with that word.
  void expect_done();

  /// New links after break_links().
  void break_links();
  void reconnect();

  /// Ends the pager and goes on with a new one that has what a cell's init would have kept.
  void replace_pager();

  Pager& pager() { return *pager_; }
  PageServer& server() { return *server_; }
  pid_t destination_pid() const { return destination_; }
  int links_lost() const { return links_lost_; }

 private:
  struct Region {
    RegionKind kind;
    std::uint64_t first;
    std::uint64_t count;
    int file;
  };
  struct Kept {
    std::uint32_t parent = 0;
    UniqueFd userfault;
    UniqueFd ledger;
  };
  void map_regions(bool at_source) const;
  std::vector<UniqueFd> local_files() const;
  void keep(const PagerSpace& space);
  void run_server();
  void join_server();

  std::uint64_t page_count_;
  std::byte* base_ = nullptr;
  std::vector<Region> regions_;
  std::vector<PushedRange> ways_;
  pid_t source_ = -1;
  pid_t destination_ = -1;
  UniqueFd control_;  // to the destination
  UniqueFd userfault_;
  std::unique_ptr<ProcessPageReader> reader_;
  std::unique_ptr<PageServer> server_;
  std::unique_ptr<SocketLink> server_urgent_;
  std::unique_ptr<SocketLink> server_bulk_;
  PagerOptions options_;
  Mutex kept_mutex_;
  std::map<std::uint32_t, Kept> kept_ MIGRATE_GUARDED_BY(kept_mutex_);  // until the pager is done
  std::unique_ptr<Pager> pager_;
  std::thread urgent_thread_;
  std::thread push_thread_;
  std::atomic<int> links_lost_ = 0;
  bool done_told_otherwise_ = false;  // than by the pager's link
};

}  // namespace migrate::test
