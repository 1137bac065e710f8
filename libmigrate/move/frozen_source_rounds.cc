#include <fcntl.h>

#include <set>
#include <utility>

#include "base/clock.h"
#include "base/file.h"
#include "libmigrate/capture/borrowed_userfault.h"
#include "libmigrate/capture/capture.h"
#include "libmigrate/image/address_space.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/move/frozen_source.h"
#include "libmigrate/restore/mappings.h"

// What a frozen source does for pages that are sent while the process still runs here (rounds).

namespace migrate {
namespace {

// A file that is open with O_DIRECT, if there is one: what is read from it comes into memory past
// the page tables, by which writes are told.
const wire::OpenFile* direct_file(const wire::Objects& objects) {
  for (const wire::OpenFile& file : objects.files()) {
    if ((static_cast<int>(file.flags()) & O_DIRECT) != 0 &&
        file.kind() == wire::OpenFile::REGULAR) {
      return &file;
    }
  }
  return nullptr;
}

}  // namespace

// A stop of its own: only the process itself can make what tells of its writes. Nothing of its
// memory is read before the kernel has judged.
Result<void> FrozenSource::watch_writes() {
  const std::uint64_t system_call = MIGRATE_TRY(find_system_call());
  const std::int64_t start = now_us();
  auto watched = stop_to_watch(system_call);
  report_.end_phase("watch", start);
  if (!watched && watched.error().code == ErrorCode::kUnsupported) {
    refusals_.push_back(make_refusal("NO_WRITE_TRACKING", name(), watched.error().message()));
    return fail(refused());
  }
  return watched;
}

// Only mappings that are as the draft has them: to watch a part of one would split it, and mremap()
// of the whole would fail.
Result<std::vector<ServedRegion>> FrozenSource::regions_to_watch() const {
  std::set<std::pair<std::uint64_t, std::uint64_t>> mapped;
  for (const NamedRange& range : MIGRATE_TRY(read_mappings(options_.pid))) {
    mapped.emplace(range.start, range.end);
  }
  std::vector<ServedRegion> regions =
      served_regions(travel_.draft().objects(), only_process(travel_.draft()));
  std::erase_if(regions, [&mapped](const ServedRegion& region) {
    return !mapped.contains({region.range.start, region.range.end()});
  });
  return regions;
}

Result<void> FrozenSource::stop_to_watch(std::uint64_t system_call) {
  const RealtimeScope realtime;
  auto stopped = FrozenProcess::freeze(options_.pid, system_call, inspector_->threads(),
                                       options_.request.starts);
  if (!stopped && stopped.error().code == ErrorCode::kRefused) {
    refusals_.push_back(make_refusal("STOPPED", name()));
  }
  FrozenProcess frozen = MIGRATE_TRY(std::move(stopped));
  const std::vector<WaitRecord> waits = waits_that_go_on(frozen, waits_);
  auto watched = watch(frozen);
  auto cleared = clear_away(frozen, waits);
  auto thawed = frozen.thaw();
  MIGRATE_TRY(std::move(watched));
  MIGRATE_TRY(std::move(cleared));
  return thawed;
}

Result<void> FrozenSource::watch(FrozenProcess& frozen) {
  MIGRATE_TRY(stand_in_->ask_attach(frozen.host_ids()));
  check_scripts_can_run(frozen, refusals_);
  if (!refusals_.empty()) {
    return fail(refused());
  }
  MIGRATE_TRY(open_area(frozen, 0));
  MIGRATE_TRY(take_judgement());
  CopyAhead::Place place;
  place.process = options_.pid;
  place.memory = MIGRATE_TRY(frozen.area().duplicate_memory());
  place.pagemap = MIGRATE_TRY(
      open_file("/proc/" + std::to_string(options_.pid) + "/pagemap", O_RDONLY | O_CLOEXEC));
  place.userfault = MIGRATE_TRY(borrow_userfault(frozen));
  ahead_ = MIGRATE_TRY(CopyAhead::create(std::move(place), MIGRATE_TRY(regions_to_watch())));
  inspector_->note_watched();
  return {};
}

Refusals FrozenSource::against_rounds() const {
  Refusals found;
  if (const auto supported = WriteTracker::check_support(); !supported) {
    found.push_back(make_refusal("NO_WRITE_TRACKING", name(), supported.error().message()));
  } else if (!huge_pages(only_process(travel_.draft())).empty()) {
    found.push_back(make_refusal("NO_WRITE_TRACKING", name(), "it has huge pages"));
  }
  if (const wire::OpenFile* file = direct_file(travel_.draft().objects())) {
    found.push_back(make_refusal("DIRECT_IO", file->identity().path()));
  }
  return found;
}

// As the destination does, which throws away what was mapped anew since the draft. A file that is
// read around the page cache may have been so since long: then nothing is certain.
Result<void> FrozenSource::find_kept() {
  if (!ahead_) {
    return {};
  }
  const std::int64_t start = now_us();
  PageSet lost;
  if (direct_file(image_.objects()) == nullptr) {
    const MappingPlan plan = plan_mappings(travel_.draft(), image_);
    std::vector<PageRange> anew = plan.unmap;
    for (const PushedRange& each : pushed_ranges(only_process(image_))) {
      if (each.way == PushWay::kNever) {
        anew.push_back(each.range);
      }
    }
    for (const wire::Mapping* mapping : plan.map) {
      anew.push_back(PageRange::between(mapping->start(), mapping->end()));
    }
    lost = page_set(std::move(anew));
  } else {
    lost = {PageRange::between(0, kAddressLimit - kPageBytes)};
  }
  MIGRATE_TRY(ahead_->find_kept(lost));
  report_.end_phase("kept", start);
  report_.note_rounds(ahead_->report());
  return {};
}

}  // namespace migrate
