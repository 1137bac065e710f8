#include "pager/internal/push_plan.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <utility>

namespace migrate {
namespace {

std::vector<std::uint64_t> first_bits(const std::vector<PageRange>& ranges) {
  std::vector<std::uint64_t> first;
  first.reserve(ranges.size());
  std::uint64_t total = 0;
  for (const PageRange& range : ranges) {
    first.push_back(total);
    total += range.page_count;
  }
  return first;
}

}  // namespace

bool PushPlan::Bits::set(std::uint64_t index) {
  const std::uint64_t bit = std::uint64_t{1} << (index % 64);
  const bool was_clear = (words_[index / 64] & bit) == 0;
  words_[index / 64] |= bit;
  return was_clear;
}

std::uint64_t PushPlan::Bits::next_clear(std::uint64_t index, std::uint64_t limit) const {
  while (index < limit) {
    const std::uint64_t clear = ~words_[index / 64] >> (index % 64);
    if (clear != 0) {
      return std::min(limit, index + static_cast<std::uint64_t>(std::countr_zero(clear)));
    }
    index = (index / 64 + 1) * 64;
  }
  return limit;
}

PushPlan::PushPlan(std::vector<PageRange> present)
    : present_(std::move(present)),
      first_bit_(first_bits(present_)),
      page_total_(present_.empty() ? 0 : first_bit_.back() + present_.back().page_count),
      sent_(page_total_),
      confirmed_(page_total_),
      taken_(page_total_),
      unsent_(page_total_) {}

template <class Action>
void PushPlan::for_present(PageRange range, Action action) const {
  auto it = std::partition_point(present_.begin(), present_.end(), [&](const PageRange& other) {
    return other.end() <= range.start;
  });
  for (; it != present_.end() && it->start < range.end(); ++it) {
    const PageRange common = it->intersect(range);
    const auto index = static_cast<std::size_t>(std::distance(present_.begin(), it));
    action(first_bit_[index] + (common.start - it->start) / kPageBytes, common);
  }
}

std::size_t PushPlan::range_of_bit(std::uint64_t index) const {
  const auto after = std::upper_bound(first_bit_.begin(), first_bit_.end(), index);
  return static_cast<std::size_t>(std::distance(first_bit_.begin(), after)) - 1;
}

std::uint64_t PushPlan::bit_from(std::uint64_t address) const {
  const auto it =
      std::partition_point(present_.begin(), present_.end(),
                           [&](const PageRange& range) { return range.end() <= address; });
  if (it == present_.end()) {
    return page_total_;
  }
  const std::uint64_t first = first_bit_[static_cast<std::size_t>(it - present_.begin())];
  return first + (address > it->start ? (page_floor(address) - it->start) / kPageBytes : 0);
}

void PushPlan::mark_sent(PageRange range) {
  for_present(range, [&](std::uint64_t bit, const PageRange& part) {
    for (std::uint64_t i = 0; i < part.page_count; ++i) {
      unsent_ -= sent_.set(bit + i) ? 1 : 0;
      if (holds_) {
        held_.clear(bit + i);
      }
    }
  });
}

void PushPlan::hold_back(PageRange range) {
  if (!std::exchange(holds_, true)) {
    held_ = Bits(page_total_);
  }
  for_present(range, [&](std::uint64_t bit, const PageRange& part) {
    for (std::uint64_t i = 0; i < part.page_count; ++i) {
      if (sent_.set(bit + i)) {
        --unsent_;
        held_.set(bit + i);
      }
    }
  });
}

bool PushPlan::release() {
  if (!std::exchange(holds_, false)) {
    return false;
  }
  const std::uint64_t before = unsent_;
  for (std::uint64_t bit = 0; bit < page_total_; ++bit) {
    if (held_.get(bit)) {
      sent_.clear(bit);
      ++unsent_;
    }
  }
  held_ = Bits(0);
  return unsent_ != before;
}

void PushPlan::prefer(const std::vector<PageRange>& ranges) {
  preferred_.assign(ranges.begin(), ranges.end());
}

void PushPlan::mark_there(PageRange range) {
  for_present(range, [&](std::uint64_t bit, const PageRange& part) {
    for (std::uint64_t i = 0; i < part.page_count; ++i) {
      unsent_ -= sent_.set(bit + i) ? 1 : 0;
      confirmed_total_ += confirmed_.set(bit + i) ? 1 : 0;
    }
    untaken_.push_back(part);
  });
}

void PushPlan::restart() {
  sent_.assign(confirmed_);
  unsent_ = page_total_ - confirmed_total_;
  in_flight_.clear();
  holds_ = false;
  preferred_.clear();
}

void PushPlan::follow(std::uint64_t address) {
  const std::uint64_t bit = bit_from(address);
  cursor_ = bit < page_total_ ? bit : cursor_;
}

std::uint64_t PushPlan::begin_batch() {
  for (; !preferred_.empty(); preferred_.pop_front()) {
    const std::uint64_t end = bit_from(preferred_.front().end());
    const std::uint64_t begin = sent_.next_clear(bit_from(preferred_.front().start), end);
    if (begin < end) {
      cursor_ = begin;
      return end;
    }
  }
  cursor_ = sent_.next_clear(cursor_, page_total_);
  if (cursor_ == page_total_) {
    cursor_ = sent_.next_clear(0, page_total_);
  }
  return page_total_;
}

void PushPlan::next_batch(std::uint64_t sequence, std::uint64_t max_pages, std::size_t max_runs,
                          std::vector<PageRange>& runs) {
  runs.clear();
  if (unsent_ == 0) {
    return;
  }
  last_sequence_ = std::max(last_sequence_, sequence);
  const std::uint64_t end = begin_batch();
  while (max_pages > 0 && runs.size() < max_runs && cursor_ < end) {
    const std::size_t index = range_of_bit(cursor_);
    const std::uint64_t skip = cursor_ - first_bit_[index];
    const std::uint64_t limit =
        std::min({max_pages, present_[index].page_count - skip, end - cursor_});
    std::uint64_t count = 0;
    while (count < limit && sent_.set(cursor_ + count)) {
      ++count;
    }
    unsent_ -= count;
    max_pages -= count;
    cursor_ = sent_.next_clear(cursor_ + count, page_total_);
    runs.push_back({present_[index].start + skip * kPageBytes, count});
    in_flight_.push_back({sequence, runs.back()});
  }
}

bool PushPlan::confirm(std::uint64_t sequence) {
  if (sequence > last_sequence_) {
    return false;
  }
  while (!in_flight_.empty() && in_flight_.front().sequence <= sequence) {
    const PageRange range = in_flight_.front().range;
    in_flight_.pop_front();
    for_present(range, [&](std::uint64_t bit, const PageRange& part) {
      for (std::uint64_t i = 0; i < part.page_count; ++i) {
        confirmed_total_ += confirmed_.set(bit + i) ? 1 : 0;
      }
    });
    if (!untaken_.empty() && untaken_.back().end() == range.start) {
      untaken_.back().page_count += range.page_count;
    } else {
      untaken_.push_back(range);
    }
  }
  return true;
}

std::vector<PageRange> PushPlan::take_confirmed() {
  for (const PageRange& range : untaken_) {
    for_present(range, [&](std::uint64_t bit, const PageRange& part) {
      for (std::uint64_t i = 0; i < part.page_count; ++i) {
        taken_.set(bit + i);
      }
    });
  }
  return std::exchange(untaken_, {});
}

bool PushPlan::taken(PageRange range) const {
  bool any = false;
  for_present(range, [&](std::uint64_t bit, const PageRange& part) {
    for (std::uint64_t i = 0; i < part.page_count && !any; ++i) {
      any = taken_.get(bit + i);
    }
  });
  return any;
}

std::vector<PageRange> PushPlan::not_taken(PageRange range) const {
  std::vector<PageRange> parts;
  for (std::uint64_t address = range.start; address < range.end(); address += kPageBytes) {
    if (taken({address, 1})) {
      continue;
    }
    if (!parts.empty() && parts.back().end() == address) {
      ++parts.back().page_count;
    } else {
      parts.push_back({address, 1});
    }
  }
  return parts;
}

}  // namespace migrate
