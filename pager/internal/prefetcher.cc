#include "pager/internal/prefetcher.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>

namespace migrate {
namespace {

constexpr std::int64_t kMostStride = 1024;       // pages: 4 MiB
constexpr std::int64_t kGap = 16;                // pages that a walk may skip, being there already
constexpr std::uint32_t kMostStridedPages = 32;  // each is a request of its own
constexpr std::uint32_t kMostIdle = 64;          // faults elsewhere until a stream is given up
constexpr std::uint64_t kAdvisedPages = 64;      // asked for at a time where all will be wanted

std::int64_t pages_between(std::uint64_t from, std::uint64_t to) {
  return static_cast<std::int64_t>(to - from);
}

/// How many steps of `stride` lead from one page to the other; nothing if none do.
std::optional<std::int64_t> steps(std::uint64_t from, std::uint64_t to, std::int64_t stride) {
  const std::int64_t pages = pages_between(from, to);
  return pages % stride == 0 ? std::optional(pages / stride) : std::nullopt;
}

}  // namespace

Prefetcher::Thread& Prefetcher::find_thread(std::uint32_t id) {
  constexpr std::uint32_t kSpread = 0x9E3779B1;
  constexpr unsigned kShift = 26;  // 32 bits less those of kThreads
  static_assert(std::size_t{1} << (32 - kShift) == kThreads);
  Thread& thread = threads_[(id * kSpread) >> kShift];
  if (thread.id != id) {  // Of two that share a place, the one that faults has it.
    thread = Thread();
    thread.id = id;
  }
  return thread;
}

const AccessAdvice* Prefetcher::advised(std::uint64_t page) const {
  const std::uint64_t address = page * kPageBytes;
  const auto after = std::ranges::upper_bound(
      advice_, address, {}, [](const AccessAdvice& each) { return each.range.start; });
  return after != advice_.begin() && std::prev(after)->range.contains(address) ? &*std::prev(after)
                                                                               : nullptr;
}

Prefetcher::Window Prefetcher::note_fault(std::uint32_t thread_id, std::uint64_t page, bool asked) {
  if (const AccessAdvice* const advice = advised(page)) {
    const std::uint64_t left = advice->range.end() / kPageBytes - page - 1;
    const bool goes_on = advice->pattern == AccessPattern::kSequential && !asked;
    return {.first = page + 1,
            .page_count = goes_on ? static_cast<std::uint32_t>(std::min(kAdvisedPages, left)) : 0};
  }
  if (most_pages_ == 0) {
    return {};
  }
  Thread& thread = find_thread(thread_id);
  Window window;
  bool known = false;
  for (Stream& stream : thread.streams) {
    if (stream.stride == 0) {
      continue;
    }
    // Behind what was asked for, pages may be there that a push has brought.
    const std::int64_t slack = std::max<std::int64_t>(kGap, stream.window);
    const auto at = steps(stream.last, page, stream.stride);
    const std::int64_t reach = pages_between(stream.last, stream.until) / stream.stride + slack;
    if (!known && at && *at >= 0 && *at < reach) {
      known = true;
      stream.idle = 0;
      window = go_on(thread, stream, page, asked);
    } else if (++stream.idle > kMostIdle) {
      give_up(thread, stream);
    }
  }
  const auto stride = known ? std::nullopt : find_stride(thread, page);
  if (stride) {
    Stream& stream = free_stream(thread);
    stream = {.stride = *stride,
              .last = page,
              .until = page + static_cast<std::uint64_t>(*stride),
              .window = thread.first_window};
    window = ask(thread, stream, stream.until);
  }
  thread.faults[thread.fault_count % kFaults] = page;
  ++thread.fault_count;
  return window;
}

// A fault in the window: it was asked for too late, or not at all, since too much was on its way.
// One behind it: all of the window was of use.
Prefetcher::Window Prefetcher::go_on(Thread& thread, Stream& stream, std::uint64_t page,
                                     bool asked) {
  const std::int64_t ahead = pages_between(page, stream.until) / stream.stride;
  const bool inside = ahead > 0;
  const bool late = inside && asked;
  if (late && page == stream.last) {
    return {};  // Another look at a page that is on its way.
  }
  counters_.late += late ? 1 : 0;
  const std::int64_t gone = *steps(stream.last, page, stream.stride);
  const auto proven =
      inside ? static_cast<std::uint32_t>(std::min<std::int64_t>(gone, stream.unproven))
             : stream.unproven;
  counters_.useful += proven;
  stream.unproven -= proven;
  stream.last = page;
  if (late && ahead > stream.window) {
    return {};  // Enough is on its way.
  }
  stream.window = std::min(2 * stream.window, most_pages_);
  thread.first_window = std::min(std::max(thread.first_window, kFirstWindow), most_pages_);
  const std::uint64_t next = page + static_cast<std::uint64_t>(stream.stride);
  return ask(thread, stream, late ? stream.until : next);
}

Prefetcher::Window Prefetcher::ask(const Thread& thread, Stream& stream, std::uint64_t first) {
  const std::uint32_t most =
      std::abs(stream.stride) == 1 ? most_pages_ : std::min(most_pages_, kMostStridedPages);
  stream.window = std::min(stream.window, most);
  std::uint32_t count = stream.window;
  if (stream.stride < 0) {  // Not below the first page.
    const std::uint64_t step = static_cast<std::uint64_t>(-stream.stride);
    count = static_cast<std::uint32_t>(std::min<std::uint64_t>(count, first / step));
  }
  stream.until = first + static_cast<std::uint64_t>(stream.stride * std::int64_t{count});
  const auto index = static_cast<std::uint32_t>(&thread - threads_.data()) * kStreams +
                     static_cast<std::uint32_t>(&stream - thread.streams.data());
  return {first, stream.stride, count, static_cast<std::uint32_t>(index)};
}

void Prefetcher::note_asked(const Window& window, std::uint32_t page_count) {
  if (window.stream == kNoStream) {
    return;
  }
  threads_[window.stream / kStreams].streams[window.stream % kStreams].unproven += page_count;
}

// From the latest faults of the thread: neighbours, or three at the same distance, or three that go
// one way past pages which were there.
std::optional<std::int64_t> Prefetcher::find_stride(const Thread& thread,
                                                    std::uint64_t page) const {
  const std::size_t count = std::min(thread.fault_count, kFaults);
  for (std::size_t i = 1; i <= count; ++i) {
    const std::uint64_t before = thread.faults[(thread.fault_count - i) % kFaults];
    const std::int64_t step = pages_between(before, page);
    if (step == 1) {
      return step;
    }
    if (step == 0 || std::abs(step) > kMostStride) {
      continue;
    }
    for (std::size_t j = i + 1; j <= count; ++j) {
      const std::int64_t earlier =
          pages_between(thread.faults[(thread.fault_count - j) % kFaults], before);
      if (earlier == step) {
        return step;
      }
      if (std::abs(step) <= kGap && std::abs(earlier) <= kGap && earlier != 0 &&
          (earlier > 0) == (step > 0)) {
        return step > 0 ? 1 : -1;
      }
    }
  }
  return std::nullopt;
}

// A free one, or that which was not heard of for longest.
Prefetcher::Stream& Prefetcher::free_stream(Thread& thread) {
  Stream* oldest = &thread.streams.front();
  for (Stream& stream : thread.streams) {
    if (stream.stride == 0) {
      return stream;
    }
    oldest = stream.idle > oldest->idle ? &stream : oldest;
  }
  give_up(thread, *oldest);
  return *oldest;
}

void Prefetcher::give_up(Thread& thread, Stream& stream) {
  if (stream.unproven > 0) {
    counters_.wasted += stream.unproven;
    thread.first_window = std::max(thread.first_window / 2, kLeastWindow);
  }
  stream = Stream();
}

}  // namespace migrate
