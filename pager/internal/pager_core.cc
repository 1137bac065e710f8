#include "pager/internal/pager_core.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/log.h"

namespace migrate {
namespace {

constexpr std::uint64_t kLowestAddress = std::uint64_t{1} << 20U;  // beyond vm.mmap_min_addr

// Who waits for a page elsewhere looks again when it came, or when it was given up.
void wake_twins(AddressSpace& space) {
  std::erase_if(space.twin_faults, [&space](const AddressSpace::TwinFault& fault) {
    const bool settled = space.map.state(fault.source_address) != PageState::kRequested;
    if (settled) {
      space.userfault.wake({fault.address, 1});
    }
    return settled;
  });
}

// What is known of the pages of `from` that are at the same place in `to`.
void carry_states(const PageMap& from, PageMap& to) {
  for (const PagerRegion& old : from.regions()) {
    for (const PagerRegion& part : to.at_destination(old.destination)) {
      const std::uint64_t source =
          old.source_address + (part.destination.start - old.destination.start);
      if (part.source_address != source || part.kind != old.kind) {
        continue;
      }
      PageRange left{source, part.destination.page_count};
      while (!left.empty()) {
        const auto run = from.run_at(left);
        if (run.state != PageState::kUnknown) {
          to.set_state({left.start, run.page_count}, run.state);
        }
        left = PageRange::between(left.start + run.page_count * kPageBytes, left.end());
      }
    }
  }
}

}  // namespace

PagerCore::PagerCore(PagerOptions options, std::vector<UniqueFd> local_files, UniqueFd kick)
    : options_(std::move(options)),
      local_files_(std::move(local_files)),
      kick_(std::move(kick)),
      arrivals_(options_.trace_runs),
      prefetcher_(options_.prefetch_pages),
      local_buffer_(kLockedPages * kPageBytes),
      fill_buffer_(kLockedPages * kPageBytes) {
  faults_.reserve(4096);
  deferred_.reserve(4096);
  retried_.reserve(4096);
  local_faults_.reserve(4096);
  requests_.reserve(kOutstandingCount);
  free_slots_.reserve(kOutstandingCount);
  for (std::uint32_t slot = 0; slot < kOutstandingCount; ++slot) {
    free_slots_.push_back(slot);
  }
}

void PagerCore::add_first_space(Userfault userfault) {
  const MutexLock lock(mutex_);
  add_space(std::move(userfault), PageMap());
}

Result<void> PagerCore::adopt(std::vector<AdoptedSpace> spaces) {
  {
    const MutexLock lock(mutex_);
    // Parents first.
    std::sort(spaces.begin(), spaces.end(),
              [](const auto& a, const auto& b) { return a.number < b.number; });
    for (AdoptedSpace& adopted : spaces) {
      MIGRATE_TRY(adopt_space(std::move(adopted)));
    }
    started_ = true;
    publish();
  }
  launch();
  changed_.notify_all();
  return {};
}

Result<void> PagerCore::adopt_space(AdoptedSpace adopted) {
  PageMap map;
  PageLedger::Regions noted;
  if (adopted.ledger.valid()) {
    auto ledger = MIGRATE_TRY(PageLedger::open(std::move(adopted.ledger)));
    noted = MIGRATE_TRY(ledger->regions());
    map = MIGRATE_TRY(PageMap::from_ledger(std::move(ledger)));
  } else {
    // Its pager died while it told of the fork, so that nothing has changed since.
    AddressSpace* const parent = find_space(adopted.parent);
    if (parent == nullptr) {
      return fail(make_error(ErrorCode::kCorrupt, "take over a forked address space"));
    }
    map = parent->map.clone_for_fork();
    MIGRATE_TRY(map.keep_ledger());
  }
  next_space_ = adopted.number;
  AddressSpace& space = add_space(std::move(adopted.userfault), std::move(map));
  space.order.load(noted);
  // The dead pager may have read faults, not only in regions, and done nothing about them.
  space.userfault.wake(PageRange::between(kLowestAddress, kAddressLimit - kPageBytes));
  return {};
}

std::vector<PagerSpace> PagerCore::spaces() const {
  const MutexLock lock(mutex_);
  std::vector<PagerSpace> all;
  for (const auto& space : spaces_) {
    const PageLedger* const ledger = space->map.ledger();
    all.push_back({space->id, 0, space->userfault.fd(), ledger != nullptr ? ledger->fd() : -1});
  }
  return all;
}

// Notes the regions of a space where a new pager would find them.
void PagerCore::save(const AddressSpace& space) const {
  PageLedger* const ledger = space.map.ledger();
  if (ledger == nullptr) {
    return;
  }
  PageLedger::Regions regions;
  regions.regions = space.map.regions();
  space.order.save(regions);
  if (auto saved = ledger->save(regions); !saved) {
    log::error("{}; a new pager could not take over", saved.error().message());
  }
}

PagerCore::~PagerCore() {
  stop();
}

AddressSpace& PagerCore::add_space(Userfault userfault, PageMap map) {
  spaces_.push_back(std::make_unique<AddressSpace>(
      AddressSpace{next_space_++, std::move(userfault), std::move(map)}));
  AddressSpace& space = *spaces_.back();
  space.watch = ForkWatch(options_.process_tree, space.id == 1 ? options_.process : 0);
  return space;
}

AddressSpace* PagerCore::find_space(std::uint32_t id) {
  for (const auto& space : spaces_) {
    if (space->id == id) {
      return space.get();
    }
  }
  return nullptr;
}

Result<void> PagerCore::set_regions(const std::vector<PagerRegion>& regions) {
  const MutexLock lock(mutex_);
  AddressSpace& space = *spaces_.front();
  PageMap map;
  std::vector<PageRange> wanted;
  for (const PagerRegion& region : regions) {
    MIGRATE_TRY(map.add(region));
    wanted.push_back(region.destination);
  }
  const PageSet stays = page_set(std::move(wanted));
  for (const PagerRegion& old : space.map.regions()) {
    // What is no longer wanted may be unmapped already, or be something else now.
    for (const PageRange& gone : without({old.destination}, stays)) {
      static_cast<void>(space.userfault.unregister_range(gone));
    }
  }
  for (const PagerRegion& region : regions) {
    MIGRATE_TRY(space.userfault.register_range(region.destination));
  }
  carry_states(space.map, map);
  space.map = std::move(map);
  MIGRATE_TRY(space.map.keep_ledger());
  publish();
  return {};
}

void PagerCore::count_pages(const AddressSpace& space, Cause purpose, PageRange destination) {
  switch (purpose) {
    case Cause::kFault:
      statistics_.fault_pages += destination.page_count;
      trace(space, ArrivalWay::kFault, destination);
      break;
    case Cause::kPrefetch:
      statistics_.prefetch_pages += destination.page_count;
      trace(space, ArrivalWay::kPrefetch, destination);
      break;
    case Cause::kPush:
      statistics_.push_pages += destination.page_count;
      trace(space, ArrivalWay::kPush, destination);
      break;
    case Cause::kLocalFile:
      statistics_.local_file_pages += destination.page_count;
      trace(space, ArrivalWay::kLocal, destination);
      break;
    case Cause::kStarter:
      statistics_.starter_pages += destination.page_count;
      trace(space, ArrivalWay::kStarter, destination);
      break;
  }
}

void PagerCore::trace(const AddressSpace& space, ArrivalWay way, PageRange destination) {
  if (space.id == kFirstSpace) {
    arrivals_.note(way, destination);
  }
}

ArrivalTrace PagerCore::arrivals() const {
  const MutexLock lock(mutex_);
  return arrivals_;
}

void PagerCore::note_served(const Fault& fault) {
  statistics_.stalled_ns +=
      static_cast<std::uint64_t>(std::chrono::nanoseconds(Clock::now() - fault.start).count());
}

PagerCore::Outcome PagerCore::install_run(AddressSpace& space, const PagerRegion& part,
                                          std::span<const std::byte> bytes, Cause purpose) {
  std::uint64_t done = 0;
  while (done < part.destination.page_count) {
    const std::uint64_t skip_bytes = done * kPageBytes;
    const InstallResult result =
        space.userfault.copy(part.destination.start + skip_bytes, bytes.subspan(skip_bytes));
    space.map.set_state({part.source_address + skip_bytes, result.page_count}, PageState::kPresent);
    count_pages(space, purpose, {part.destination.start + skip_bytes, result.page_count});
    done += result.page_count;
    if (done == part.destination.page_count) {
      break;
    }
    switch (result.outcome) {
      case InstallOutcome::kInstalled:
        break;
      case InstallOutcome::kAlreadyThere:
      case InstallOutcome::kGone:
        space.userfault.wake({part.destination.start + done * kPageBytes, 1});
        space.map.set_state({part.source_address + done * kPageBytes, 1}, PageState::kPresent);
        ++statistics_.duplicate_pages;
        ++done;
        break;
      case InstallOutcome::kChanging:
      case InstallOutcome::kUnsupported:
        return Outcome::kChanging;
      case InstallOutcome::kProcessGone:
        space.gone = true;
        return Outcome::kSettled;
    }
  }
  return Outcome::kSettled;
}

// What was at a guard is gone for good: should the guard go, there are zeros. True if any was
// there.
bool PagerCore::drop_guarded(AddressSpace& space, const PagerRegion& part) {
  if (part.kind != RegionKind::kAnonymous) {
    return false;
  }
  const PageRange guarded = space.guards.first_in(part.destination, space.watch.pid());
  if (!guarded.empty()) {
    space.map.set_state(
        {part.source_address + (guarded.start - part.destination.start), guarded.page_count},
        PageState::kPresent);
  }
  return !guarded.empty();
}

PagerCore::Outcome PagerCore::install_in(AddressSpace& space, PageRange source,
                                         std::span<const std::byte> bytes, Cause purpose) {
  const std::uint64_t start = source.start;
  while (auto part = space.map.first_at_source(source)) {
    const auto run = space.map.run_at({part->source_address, part->destination.page_count});
    part->destination.page_count = run.page_count;
    const bool lacking = purpose == Cause::kLocalFile ? run.state == PageState::kLocalFile
                                                      : run.state == PageState::kUnknown ||
                                                            run.state == PageState::kRequested;
    if (lacking && drop_guarded(space, *part)) {
      continue;
    }
    if (lacking) {
      const auto content = bytes.subspan(part->source_address - start, part->destination.bytes());
      if (install_run(space, *part, content, purpose) == Outcome::kChanging) {
        return Outcome::kChanging;
      }
      if (space.gone) {
        return Outcome::kSettled;
      }
    } else if (purpose == Cause::kFault || purpose == Cause::kPrefetch) {
      // A waiter may have been overtaken by a push or an event.
      space.userfault.wake(part->destination);
      statistics_.duplicate_pages += run.page_count;
    } else if (purpose == Cause::kPush) {
      statistics_.duplicate_pages += run.page_count;
    }
    source = PageRange::between(part->source_address + part->destination.bytes(), source.end());
  }
  return Outcome::kSettled;
}

PagerCore::Outcome PagerCore::install_everywhere(PageRange source, std::span<const std::byte> bytes,
                                                 Cause purpose) {
  Outcome progress = Outcome::kSettled;
  for (const auto& space : spaces_) {
    if (!space->gone && install_in(*space, source, bytes, purpose) == Outcome::kChanging) {
      progress = Outcome::kChanging;
    }
  }
  publish();
  return progress;
}

PagerCore::Outcome PagerCore::settle_run(AddressSpace& space, const PagerRegion& part,
                                         PageState state, PageKind kind) {
  const PageRange source{part.source_address, part.destination.page_count};
  if (kind == PageKind::kZero) {
    space.map.set_state(source, PageState::kZero);
    statistics_.zero_pages += source.page_count;
    trace(space, ArrivalWay::kZero, part.destination);
    if (state == PageState::kRequested) {
      const InstallResult result = space.userfault.zero(part.destination);
      space.map.set_state({source.start, result.page_count}, PageState::kPresent);
      if (result.page_count < source.page_count) {
        space.userfault.wake(part.destination);  // who waits will ask again, and find zero
      }
    }
    return Outcome::kSettled;
  }
  const InstallResult result = space.userfault.poison(part.destination);
  space.map.set_state({source.start, result.page_count}, PageState::kPresent);
  statistics_.poisoned_pages += result.page_count;
  if (result.page_count == source.page_count) {
    return Outcome::kSettled;
  }
  switch (result.outcome) {
    case InstallOutcome::kAlreadyThere:
    case InstallOutcome::kGone:
      space.map.set_state({source.start + result.page_count * kPageBytes, 1}, PageState::kPresent);
      return Outcome::kChanging;  // go on with the next page
    case InstallOutcome::kUnsupported:
      // Threads that touch these pages wait for ever, which is better than a wrong page.
      log::error("page {:#x} cannot be read at the source, and this kernel cannot poison it",
                 source.start);
      space.map.set_state(source, PageState::kRequested);
      return Outcome::kSettled;
    case InstallOutcome::kProcessGone:
      space.gone = true;
      return Outcome::kSettled;
    default:
      return Outcome::kChanging;
  }
}

PagerCore::Outcome PagerCore::settle_everywhere(PageRange source, PageKind kind) {
  Outcome progress = Outcome::kSettled;
  for (const auto& space : spaces_) {
    PageRange left = source;
    while (!space->gone) {
      auto part = space->map.first_at_source(left);
      if (!part) {
        break;
      }
      const auto run = space->map.run_at({part->source_address, part->destination.page_count});
      part->destination.page_count = run.page_count;
      left = PageRange::between(part->source_address + part->destination.bytes(), left.end());
      if (run.state == PageState::kUnknown || run.state == PageState::kRequested) {
        if (settle_run(*space, *part, run.state, kind) == Outcome::kChanging) {
          progress = Outcome::kChanging;
        }
      } else {
        space->userfault.wake(part->destination);
      }
    }
  }
  publish();
  return progress;
}

void PagerCore::publish() {
  std::uint64_t unfinished = 0;
  std::uint64_t owed = 0;
  for (const auto& space : spaces_) {
    statistics_.stalled_ns += space->stalled.settle(space->map);
    if (!space->gone) {
      wake_twins(*space);
      unfinished += space->map.unfinished_pages();
      owed += space->map.owed_pages();
    }
    if (space->id == kFirstSpace) {
      statistics_.first_gone = space->gone;
      statistics_.first_owed_pages =
          space->gone ? statistics_.first_owed_pages : space->map.owed_pages();
    }
  }
  owed_ = owed;
  if (unfinished_.exchange(unfinished) != 0 && unfinished == 0) {
    kick();
  }
}

bool PagerCore::read_local(const PagerRegion& part, std::span<std::byte> buffer) const {
  if (part.local_file >= local_files_.size()) {
    log::error("no local file {} for the page at {:#x}", part.local_file, part.source_address);
    return false;
  }
  std::size_t done = 0;
  while (done < buffer.size()) {
    const ssize_t count =
        ::pread(local_files_[part.local_file].get(), buffer.data() + done, buffer.size() - done,
                static_cast<off_t>(part.file_offset + done));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      log::error("{}; asking the source instead",
                 system_error("read a local file for a page").message());
      return false;
    }
    if (count == 0) {
      break;  // a mapping's last page is zero beyond the end of its file
    }
    done += static_cast<std::size_t>(count);
  }
  std::memset(buffer.data() + done, 0, buffer.size() - done);
  return true;
}

// Pages whose local file cannot be read are owed by the source again.
void PagerCore::give_up_local(PageRange source) {
  for (const auto& space : spaces_) {
    PageRange left = source;
    while (auto part = space->map.first_at_source(left)) {
      const auto run = space->map.run_at({part->source_address, part->destination.page_count});
      const PageRange pages{part->source_address, run.page_count};
      if (run.state == PageState::kLocalFile) {
        space->map.set_state(pages, PageState::kUnknown);
      }
      left = PageRange::between(pages.end(), left.end());
    }
  }
  publish();
}

void PagerCore::kick() const {
  const std::uint64_t one = 1;
  static_cast<void>(::write(kick_.get(), &one, sizeof(one)));
}

}  // namespace migrate
