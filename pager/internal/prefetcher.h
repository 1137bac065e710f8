#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "pager/access_advice.h"

namespace migrate {

/// Decides which pages to ask for beside a faulting one, from the order in which each thread
/// faults.
///
/// A thread may walk through several arrays at once: each walk is a stream, forwards, backwards or
/// with a stride of several pages. Its window, the pages asked for ahead of it, grows when the
/// stream goes past it (as the readahead of AMPoM and Leap do) and begins smaller in a thread whose
/// earlier windows were in vain. Faults that follow no pattern ask for nothing else, so that a walk
/// at random costs what it costs without.
///
/// Pages that are there do not fault: that a window was of use is known only when its stream comes
/// to the page behind it, or waits for one in it. What no fault ever told of is neither useful nor
/// wasted. Of ranges that the process has advised its word is taken instead, and none of this
/// counted.
///
/// Knows no pages and no clock: the same faults give the same decisions. Constant memory, constant
/// time. Owned by the fault thread.
class Prefetcher {
 public:
  /// `most_pages`: the largest window. 0: nothing is ever asked for.
  explicit Prefetcher(std::uint32_t most_pages) : most_pages_(most_pages) {}
  /// `advice` is ascending, its ranges apart from each other. Replaces what was advised before.
  void advise(std::vector<AccessAdvice> advice) { advice_ = std::move(advice); }

  static constexpr std::uint32_t kNoStream = ~std::uint32_t{0};
  /// Pages `first`, `first` + `stride`, ... by number. Whoever asks leaves out what it has.
  struct Window {
    std::uint64_t first = 0;
    std::int64_t stride = 1;
    std::uint32_t page_count = 0;
    std::uint32_t stream = kNoStream;  ///< For note_asked().
  };
  struct Counters {
    std::uint64_t useful = 0;  ///< Asked for ahead of a stream that went past them.
    std::uint64_t late = 0;    ///< Faults on pages that were asked for and not there yet.
    std::uint64_t wasted = 0;  ///< Asked for ahead of a stream that never came there.
  };

  /// A thread waits for a page, which was `asked` for before or not. What to ask for beside it: no
  /// pages, or one window.
  Window note_fault(std::uint32_t thread, std::uint64_t page, bool asked);
  /// So many pages of that window were asked for; the others are there, or not to be had.
  void note_asked(const Window& window, std::uint32_t page_count);

  const Counters& counters() const { return counters_; }

 private:
  static constexpr std::size_t kThreads = 64;  // remembered; a power of two
  static constexpr std::size_t kStreams = 4;   // of each thread
  static constexpr std::size_t kFaults = 8;    // of each thread, for finding streams

  struct Stream {
    std::int64_t stride = 0;     // 0: there is none
    std::uint64_t last = 0;      // page of its last fault
    std::uint64_t until = 0;     // the first page, in its direction, that it has not asked for
    std::uint32_t window = 0;    // pages asked for at a time
    std::uint32_t unproven = 0;  // pages asked for that it has not gone past
    std::uint32_t idle = 0;      // faults of its thread that were not its own, since its last
  };
  struct Thread {
    std::uint32_t id = 0;
    std::uint32_t first_window = kFirstWindow;  // of its next stream
    std::array<Stream, kStreams> streams{};
    std::array<std::uint64_t, kFaults> faults{};  // the latest pages
    std::size_t fault_count = 0;
  };

  static constexpr std::uint32_t kFirstWindow = 16;
  static constexpr std::uint32_t kLeastWindow = 2;

  const AccessAdvice* advised(std::uint64_t page) const;
  Thread& find_thread(std::uint32_t id);
  Window go_on(Thread& thread, Stream& stream, std::uint64_t page, bool asked);
  std::optional<std::int64_t> find_stride(const Thread& thread, std::uint64_t page) const;
  Stream& free_stream(Thread& thread);
  void give_up(Thread& thread, Stream& stream);
  Window ask(const Thread& thread, Stream& stream, std::uint64_t first);

  const std::uint32_t most_pages_;
  std::vector<AccessAdvice> advice_;
  std::array<Thread, kThreads> threads_{};
  Counters counters_;
};

}  // namespace migrate
