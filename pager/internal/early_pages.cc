// What a PagerCore does with pages that come before it starts: starter pages, and those that came
// while the process still ran at the source.

#include <fcntl.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/file.h"
#include "pager/internal/overwrite.h"
#include "pager/internal/pager_core.h"
#include "pager/internal/resident_pages.h"

namespace migrate {
namespace {

tl::unexpected<Error> not_staged(ErrorCode code, std::uint64_t address, const char* why) {
  Error error = make_error(code, "take in a page ahead of its process", {}, why);
  error.address = address;
  return fail(std::move(error));
}

/// The source pages of `map` in `state`.
PageSet pages_in(const PageMap& map, PageState state) {
  std::vector<PageRange> found;
  for (const PagerRegion& region : map.regions()) {
    PageRange left{region.source_address, region.destination.page_count};
    while (!left.empty()) {
      const auto run = map.run_at(left);
      if (run.state == state) {
        found.push_back({left.start, run.page_count});
      }
      left = PageRange::between(left.start + run.page_count * kPageBytes, left.end());
    }
  }
  return page_set(std::move(found));
}

/// Adds `pages` of the source, where they are at the destination, if they are in `region`.
void add_at_destination(const PagerRegion& region, const PageSet& pages,
                        std::vector<PageRange>& there) {
  const PageRange source{region.source_address, region.destination.page_count};
  auto range = std::partition_point(pages.begin(), pages.end(), [&](const PageRange& other) {
    return other.end() <= source.start;
  });
  for (; range != pages.end() && range->start < source.end(); ++range) {
    const PageRange part = range->intersect(source);
    there.push_back({region.destination.start + (part.start - source.start), part.page_count});
  }
}

/// How many pages may be installed, and were.
struct Room {
  std::uint64_t most_pages;
  std::uint64_t& used;
};

Result<void> stage_run(AddressSpace& space, PageRange source, std::span<const std::byte> bytes,
                       int memory, const Room& room) {
  while (!source.empty()) {
    const auto part = space.map.first_at_source(source);
    if (!part || part->source_address != source.start || part->kind == RegionKind::kSharedMemory) {
      return not_staged(ErrorCode::kCorrupt, source.start,
                        "it is outside the private memory offered");
    }
    const auto run = space.map.run_at({source.start, part->destination.page_count});
    const PageRange pages{source.start, run.page_count};
    const PageRange destination{part->destination.start, run.page_count};
    const auto content = bytes.first(bytes.empty() ? 0 : pages.bytes());
    if (run.state == PageState::kUnknown) {  // What is noted of a page takes memory, too.
      room.used += pages.page_count;
      if (room.used > room.most_pages) {
        return not_staged(ErrorCode::kCorrupt, source.start, "there are more than was agreed on");
      }
    }
    if (run.state == PageState::kPresent) {
      MIGRATE_TRY(overwrite(memory, destination, content));
    } else if (content.empty()) {
      space.map.set_state(pages, PageState::kZero);
    } else {
      const InstallResult result = space.userfault.copy(destination.start, content);
      space.map.set_state({pages.start, result.page_count}, PageState::kPresent);
      if (result.page_count < pages.page_count) {
        return not_staged(ErrorCode::kNotFound, source.start, "it cannot be put in its place");
      }
    }
    bytes = bytes.subspan(content.size());
    source = PageRange::between(pages.end(), source.end());
  }
  return {};
}

/// The regions get their userfaultfd back, and have the pages of `present` and no others: nobody
/// may have made a page meanwhile, which would be taken for one of the process's own, such as a
/// debugger that reads, or the kernel as it makes a huge page of what is there.
Result<void> register_again(const AddressSpace& space, int process,
                            const std::vector<PagerRegion>& regions, const PageSet& present) {
  const UniqueFd pagemap =
      MIGRATE_TRY(open_file("/proc/" + std::to_string(process) + "/pagemap", O_RDONLY | O_CLOEXEC));
  for (const PagerRegion& region : regions) {
    MIGRATE_TRY(space.userfault.register_range(region.destination));
    const PageSet found = MIGRATE_TRY(resident_pages(pagemap.get(), region.destination));
    std::vector<PageRange> ours;
    add_at_destination(region, present, ours);
    const PageSet foreign = without(found, page_set(std::move(ours)));
    if (!foreign.empty()) {
      return not_staged(ErrorCode::kRetry, foreign.front().start,
                        "something read or wrote the memory before its process was there");
    }
  }
  return {};
}

Result<void> install_new(const Userfault& userfault, PageRange destination,
                         std::span<const std::byte> bytes) {
  const InstallResult result = userfault.copy(destination.start, bytes);
  if (result.outcome == InstallOutcome::kInstalled) {
    return {};
  }
  const bool there = result.outcome == InstallOutcome::kAlreadyThere;
  Error error = make_error(there ? ErrorCode::kInvalid : ErrorCode::kNotFound,
                           "install a starter page", {}, there ? "a page is there already" : "");
  error.address = destination.start + result.page_count * kPageBytes;
  return fail(std::move(error));
}

}  // namespace

Result<void> PagerCore::stage(const PushView& push, int memory, std::uint64_t most_pages) {
  const MutexLock lock(mutex_);
  std::span<const std::byte> content = push.content;
  for (const PushRun& run : push.runs) {
    if (run.kind == PageKind::kError) {
      return not_staged(ErrorCode::kCorrupt, run.address, "it has no content");
    }
    const std::size_t bytes = run.kind == PageKind::kData ? run.range().bytes() : 0;
    MIGRATE_TRY(stage_run(*spaces_.front(), run.range(), content.first(bytes), memory,
                          {most_pages, staged_pages_}));
    content = content.subspan(bytes);
  }
  return {};
}

void PagerCore::trace_staged(const PagerRegion& region, const PageSet& pages) {
  std::vector<PageRange> came;
  if (options_.trace_runs > 0) {
    add_at_destination(region, pages, came);
  }
  for (const PageRange& range : came) {
    arrivals_.note(ArrivalWay::kStaged, range);
  }
}

// The ranges that lose pages leave the userfaultfd for that: else each would wait until somebody
// has read the event of it, which takes ten times as long.
Result<void> PagerCore::keep_staged(const PageSet& kept, const DiscardPages& discard) {
  std::vector<PagerRegion> touched;
  PageSet present;               // that stays
  std::vector<PageRange> stale;  // at the destination
  {
    const MutexLock lock(mutex_);
    AddressSpace& space = *spaces_.front();
    const PageSet all = pages_in(space.map, PageState::kPresent);
    const PageSet zero = pages_in(space.map, PageState::kZero);
    const PageSet missing = without(kept, join(all, zero));
    if (!missing.empty()) {
      return not_staged(ErrorCode::kCorrupt, missing.front().start,
                        "the source says that it is here, and it is not");
    }
    const PageSet dropped = without(all, kept);
    present = common(all, kept);
    for (const PagerRegion& region : space.map.regions()) {
      trace_staged(region, present);
      const std::size_t before = stale.size();
      add_at_destination(region, dropped, stale);
      if (stale.size() > before) {
        touched.push_back(region);
        static_cast<void>(space.userfault.unregister_range(region.destination));
      }
    }
    for (const PageSet& unknown : {dropped, without(zero, kept)}) {
      for (const PageRange& range : unknown) {
        space.map.set_state(range, PageState::kUnknown);
      }
    }
    statistics_.staged_pages = page_total(kept);
    publish();
  }
  if (touched.empty()) {
    return {};
  }
  MIGRATE_TRY(discard(page_set(std::move(stale))));
  const MutexLock lock(mutex_);
  return register_again(*spaces_.front(), options_.process, touched, present);
}

Result<void> PagerCore::install_starter(std::uint64_t address, std::span<const std::byte> bytes) {
  const MutexLock lock(mutex_);
  AddressSpace& space = *spaces_.front();
  while (!bytes.empty()) {
    auto part = space.map.find(address);
    if (!part || address % kPageBytes != 0 || bytes.size() % kPageBytes != 0) {
      Error error = make_error(ErrorCode::kInvalid, "install a starter page");
      error.address = address;
      return fail(std::move(error));
    }
    const PageRange wanted{part->source_address,
                           std::min(part->destination.page_count, bytes.size() / kPageBytes)};
    const auto run = space.map.run_at(wanted);
    const PageRange destination{part->destination.start, run.page_count};
    const auto content = bytes.first(destination.bytes());
    if (run.state == PageState::kPresent && staged_pages_ > 0) {
      // What it has counts for more than what was staged: it may say what the process is to find
      // when it arrives.
      const UniqueFd memory = MIGRATE_TRY(
          open_file("/proc/" + std::to_string(options_.process) + "/mem", O_RDWR | O_CLOEXEC));
      MIGRATE_TRY(overwrite(memory.get(), destination, content));
    } else {
      MIGRATE_TRY(install_new(space.userfault, destination, content));
      space.map.set_state({part->source_address, run.page_count}, PageState::kPresent);
      count_pages(space, Cause::kStarter, destination);
    }
    address += content.size();
    bytes = bytes.subspan(content.size());
  }
  publish();
  return {};
}

}  // namespace migrate
