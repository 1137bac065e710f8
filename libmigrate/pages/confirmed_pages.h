#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "pager/page_range.h"
#include "pager/page_set.h"

namespace migrate {

/// Which pages of one parked process may be given back: those that all its handovers, one for each
/// destination, have confirmed. Each page is given back at most once while there are several; with
/// one, which is the usual case, nothing is remembered, and what it confirms twice is given back
/// twice, which does no harm. Owned by one thread.
class ConfirmedPages {
 public:
  /// `handovers` (at least one) are numbered from 0. Nothing is confirmed by any.
  explicit ConfirmedPages(std::size_t handovers) : confirmed_(handovers) {}

  /// `handover` has confirmed `ranges`: any order, and what it has confirmed before may be among
  /// them.
  void note(std::size_t handover, const std::vector<PageRange>& ranges);
  /// `handover` will never ask for a page again, whatever it has confirmed: its process has ended
  /// or never was. When none is left, nothing more is to be given back by this.
  void leave(std::size_t handover);

  /// `pages` are never to be given back.
  void withhold(PageSet pages) { withheld_ = std::move(pages); }

  /// What may be given back since the last call, in no order.
  std::vector<PageRange> take();

 private:
  /// Ranges by their start; they neither overlap nor touch.
  using Ranges = std::map<std::uint64_t, std::uint64_t>;
  struct Handover {
    Ranges pages;
    bool left = false;
  };

  static void add(Ranges& ranges, PageRange range);
  static std::vector<PageRange> common(const Ranges& ranges, PageRange range);
  static std::vector<PageRange> missing(const Ranges& ranges, PageRange range);
  void release(PageRange range);

  std::vector<Handover> confirmed_;
  Ranges released_;  // ever; kept while there are several handovers
  std::vector<PageRange> untaken_;
  PageSet withheld_;
};

/// The process that stays behind with the pages of one that runs elsewhere.
enum class Original : std::uint8_t {
  kHere,  ///< The parked process, as far as is known.
  kGone,  ///< Nothing: it was found to have ended, and all its pages with it.
};

/// Gives back what `pages` has, if anything, by `free`, once for each. kGone when `free` says
/// kNotFound; any other error costs memory here and nothing else, and is `free`'s to tell.
Original give_back(ConfirmedPages& pages,
                   const std::function<Result<void>(const std::vector<PageRange>&)>& free);

}  // namespace migrate
