#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "pager/page_range.h"

namespace migrate {

/// What a page server still has to push: which of the present pages were sent, confirmed and taken.
/// Owned by its user's lock. Memory: three bits for each present page.
class PushPlan {
 public:
  /// `present` is ascending, its ranges apart from each other.
  explicit PushPlan(std::vector<PageRange> present);

  const std::vector<PageRange>& present() const { return present_; }
  std::uint64_t present_pages() const { return page_total_; }
  std::uint64_t unsent_pages() const { return unsent_; }
  std::uint64_t confirmed_pages() const { return confirmed_total_; }

  /// Pages of `range` are on their way because they were asked for: not to be pushed any more.
  void mark_sent(PageRange range);
  /// Pages of `range` are owed again (their request could not be answered).
  void restart();

  /// Pages of `range` are at the destination already: as if they had been sent and confirmed.
  void mark_there(PageRange range);

  /// Pages of `range` are not to be pushed before release(), unless they were asked for.
  void hold_back(PageRange range);
  /// What was held back is to be pushed, too. True: something of it was not sent.
  bool release();
  /// Pages of `ranges` come before all others, in this order.
  void prefer(const std::vector<PageRange>& ranges);

  /// Goes on from `address` with the next batches.
  void follow(std::uint64_t address);
  /// The next runs to push, together at most `max_pages` pages and `max_runs` runs; marks them sent
  /// under `sequence`. Empty when everything was sent.
  void next_batch(std::uint64_t sequence, std::uint64_t max_pages, std::size_t max_runs,
                  std::vector<PageRange>& runs);

  /// Whether something is held back.
  bool holds() const { return holds_; }

  /// Every batch up to `sequence` is installed at the destination. False: never sent.
  bool confirm(std::uint64_t sequence);
  /// Ranges confirmed since the last call; requests for them have no answer from now on.
  std::vector<PageRange> take_confirmed();
  /// True if a page of `range` was taken.
  bool taken(PageRange range) const;
  /// The parts of `range` that were not taken, ascending.
  std::vector<PageRange> not_taken(PageRange range) const;

 private:
  class Bits {
   public:
    explicit Bits(std::uint64_t count) : words_((count + 63) / 64) {}
    bool get(std::uint64_t index) const { return (words_[index / 64] >> (index % 64)) & 1U; }
    /// True if it was clear before.
    bool set(std::uint64_t index);
    void clear(std::uint64_t index) { words_[index / 64] &= ~(std::uint64_t{1} << (index % 64)); }
    std::uint64_t next_clear(std::uint64_t index, std::uint64_t limit) const;
    void assign(const Bits& other) { words_ = other.words_; }

   private:
    std::vector<std::uint64_t> words_;
  };
  struct Batch {
    std::uint64_t sequence;
    PageRange range;
  };

  /// Calls action(first bit, page range) for each part of `range` that is present.
  template <class Action>
  void for_present(PageRange range, Action action) const;
  /// The range that holds bit `index` (index < page_total_).
  std::size_t range_of_bit(std::uint64_t index) const;
  /// The bit of the first present page at or above `address`.
  std::uint64_t bit_from(std::uint64_t address) const;
  /// Where a batch begins, and which bit it must not reach.
  std::uint64_t begin_batch();

  std::vector<PageRange> present_;
  std::vector<std::uint64_t> first_bit_;  // of each present range
  std::uint64_t page_total_ = 0;
  Bits sent_;
  Bits confirmed_;
  Bits taken_;
  Bits held_{0};  // of pages that were held back; as long as the others once there are any
  bool holds_ = false;
  std::deque<PageRange> preferred_;
  std::uint64_t unsent_ = 0;
  std::uint64_t confirmed_total_ = 0;
  std::uint64_t cursor_ = 0;  // bit index
  std::uint64_t last_sequence_ = 0;
  std::deque<Batch> in_flight_;
  std::vector<PageRange> untaken_;  // confirmed, not yet taken
};

}  // namespace migrate
