// What the fault thread asks of the source: the pages that threads wait for, and pages ahead of
// them.

#include <algorithm>
#include <cstdlib>

#include "pager/internal/pager_core.h"

namespace migrate {
namespace {

// Of one request ahead: an answer that a fault may have to wait behind is to be short.
constexpr std::uint64_t kAheadPages = 16;
// Asked for ahead and not there yet, of all streams: the same, of all answers together.
constexpr std::uint64_t kMostAheadPages = 256;

}  // namespace

void PagerCore::request_first(PageRange range) {
  AddressSpace& space = *spaces_.front();
  while (!range.empty()) {
    const auto part = space.map.find(range.start);
    if (!part) {
      return;
    }
    const std::uint64_t most =
        std::min<std::uint64_t>({range.page_count, part->destination.page_count, kMaxRequestPages});
    const auto run = space.map.run_at({part->source_address, most});
    const PageRange source{part->source_address, run.page_count};
    if (run.state == PageState::kUnknown && add_request(source, true, Clock::now())) {
      space.map.set_state(source, PageState::kRequested);
    }
    range = PageRange::between(range.start + source.bytes(), range.end());
  }
}

bool PagerCore::add_request(PageRange source, bool prefetch, Clock::time_point start) {
  if (kOutstandingCount - free_slots_.size() >= most_requests_) {
    return false;
  }
  const std::uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  Outstanding& entry = outstanding_[slot];
  entry.tag = static_cast<std::uint32_t>(tag_round_++ * kOutstandingCount + slot);
  entry.left = source;
  entry.prefetch = prefetch;
  ahead_pages_ += prefetch ? source.page_count : 0;
  entry.start = start;
  PageRequest request;
  request.tag = entry.tag;
  request.address = source.start;
  request.page_count = static_cast<std::uint32_t>(source.page_count);
  requests_.push_back(request);
  return true;
}

void PagerCore::ask(AddressSpace& space, const PagerRegion& part, const Fault& fault) {
  const PageRange source{part.source_address, 1};
  if (!urgent_usable_) {
    space.map.set_state(source, PageState::kRequested);  // asked by take_new_link()
    return;
  }
  if (!add_request(source, false, fault.start)) {
    deferred_.push_back(fault);
    return;
  }
  space.map.set_state(source, PageState::kRequested);
  ask_ahead(space, fault, source.start, false);
}

void PagerCore::ask_ahead(AddressSpace& space, const Fault& fault, std::uint64_t source_address,
                          bool asked) {
  if (!urgent_usable_) {
    return;
  }
  const Prefetcher::Window window =
      prefetcher_.note_fault(fault.thread, source_address / kPageBytes, asked);
  if (window.page_count == 0) {
    return;
  }
  // What is near first; neighbours together.
  const bool neighbours = std::abs(window.stride) == 1;
  const std::uint64_t piece = neighbours ? kAheadPages : 1;
  std::uint64_t requested = 0;
  for (std::uint64_t i = 0; i < window.page_count; i += piece) {
    const std::uint64_t count = std::min<std::uint64_t>(piece, window.page_count - i);
    const std::uint64_t nearest = window.first + static_cast<std::uint64_t>(window.stride) * i;
    const std::uint64_t lowest = window.stride == -1 ? nearest - (count - 1) : nearest;
    requested += request_lacking(space, {lowest * kPageBytes, count}, fault.start);
  }
  prefetcher_.note_asked(window, static_cast<std::uint32_t>(requested));
  statistics_.prefetch_useful = prefetcher_.counters().useful;
  statistics_.prefetch_late = prefetcher_.counters().late;
  statistics_.prefetch_wasted = prefetcher_.counters().wasted;
}

std::uint64_t PagerCore::request_lacking(AddressSpace& space, PageRange source,
                                         Clock::time_point start) {
  std::uint64_t requested = 0;
  while (auto part = source.empty() ? std::nullopt : space.map.first_at_source(source)) {
    const auto run = space.map.run_at({part->source_address, part->destination.page_count});
    const PageRange pages{part->source_address, run.page_count};
    if (run.state == PageState::kUnknown) {
      if (ahead_pages_ + pages.page_count > kMostAheadPages || !add_request(pages, true, start)) {
        return requested;
      }
      space.map.set_state(pages, PageState::kRequested);
      requested += pages.page_count;
    }
    source = PageRange::between(pages.end(), source.end());
  }
  return requested;
}

void PagerCore::send_requests() {
  for (const PageRequest& request : requests_) {
    if (!urgent_usable_) {
      break;
    }
    const std::span<const std::byte> part = message_bytes(request);
    const auto sent = urgent_link_->send(std::span(&part, 1));
    if (!sent) {
      lose_urgent_link(sent.error());
    }
  }
  requests_.clear();
}

}  // namespace migrate
