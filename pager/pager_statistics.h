#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace migrate {

/// What a pager has done so far, and to whom it owes what.
struct PagerStatistics {
  std::uint64_t fault_pages = 0;          ///< Installed because a thread waited for them.
  std::uint64_t prefetch_pages = 0;       ///< Asked for beside a faulting page.
  std::uint64_t push_pages = 0;           ///< Installed from pushes.
  std::uint64_t local_file_pages = 0;     ///< Filled from the destination's own files.
  std::uint64_t zero_pages = 0;           ///< Filled with zeros, because touched or sent as zero.
  std::uint64_t never_present_pages = 0;  ///< Did not exist at the source.
  std::uint64_t staged_pages = 0;         ///< Came before the process was frozen, and were used.
  std::uint64_t starter_pages = 0;        ///< Installed by install_starter().
  std::uint64_t duplicate_pages = 0;      ///< Arrived although no longer needed.
  std::uint64_t poisoned_pages = 0;       ///< The source could not read them.
  std::uint64_t faults = 0;               ///< Fault messages, whatever they needed.
  std::uint64_t stalled_ns = 0;           ///< For which threads waited for pages, added up.
  std::uint64_t prefetch_useful = 0;      ///< Prefetched, and touched, as far as faults tell.
  std::uint64_t prefetch_late = 0;        ///< Faults on pages that a prefetch was to bring.
  std::uint64_t prefetch_wasted = 0;      ///< Prefetched ahead of a walk that ended before them.
  std::uint64_t first_owed_pages = 0;     ///< To the moved process itself, when it was last seen.
  bool first_gone = false;                ///< Its address space has ended, or made way (execve).
  std::uint64_t forks = 0;                ///< Address spaces added by fork.
  std::uint64_t remote_faults = 0;        ///< Faults whose latency is counted: asked of the source.
  double fault_p50_us = 0;
  double fault_p99_us = 0;
  double fault_max_us = 0;
};

/// One of the ways by which pages come to be there, or what became of those that came so.
struct PageCounter {
  std::string_view name;  ///< As the two hosts of a move and its result say it.
  std::uint64_t PagerStatistics::*pages;
  bool arrived = false;  ///< Such pages have come over the network.
};

/// All of them, in the order of a result. One more is a member of PagerStatistics, its line here,
/// and the place in pager/internal/ that counts it.
inline constexpr std::array kPageCounters{
    PageCounter{"fault", &PagerStatistics::fault_pages, true},
    PageCounter{"prefetch", &PagerStatistics::prefetch_pages, true},
    PageCounter{"push", &PagerStatistics::push_pages, true},
    PageCounter{"local_file", &PagerStatistics::local_file_pages},
    PageCounter{"zero", &PagerStatistics::zero_pages},
    PageCounter{"staged", &PagerStatistics::staged_pages, true},
    PageCounter{"starter", &PagerStatistics::starter_pages, true},
    PageCounter{"never_present", &PagerStatistics::never_present_pages},
    PageCounter{"prefetch_useful", &PagerStatistics::prefetch_useful},
    PageCounter{"prefetch_late", &PagerStatistics::prefetch_late},
    PageCounter{"prefetch_wasted", &PagerStatistics::prefetch_wasted},
};

}  // namespace migrate
