// The bulk receiver: installs what the source pushes, and learns which pages exist.

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "pager/internal/pager_core.h"

namespace migrate {
namespace {

constexpr std::uint64_t kConfirmBytes = 8U << 20U;
constexpr std::uint64_t kSettledRegionPages = 512;  // 2 MiB: smaller ones are not worth a call
constexpr std::size_t kLockedGaps = 128;            // marked while holding the lock
constexpr std::uint32_t kReceiveSpinUs = 20;
constexpr int kBulkNice = 10;  // Within the worker, faults come first.
constexpr int kHurryNice = -5;

}  // namespace

void PagerCore::run_bulk() {
  const int nice = options_.hurries ? kHurryNice : kBulkNice;
  static_cast<void>(::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), nice));
  std::shared_ptr<PageLink> link;
  while ((link = wait_for_bulk_link(link.get()))) {
    unconfirmed_bytes_ = 0;
    covered_until_ = 0;
    Result<void> received;
    while (!stop_ && received) {
      received = receive_bulk(*link);
      if (refill_local_.exchange(false)) {
        fill_local_files();
      }
    }
    if (!received) {
      link->shutdown();
      link_lost(*link, received.error());
    }
  }
  {
    const MutexLock lock(mutex_);
    bulk_ended_ = true;
  }
  changed_.notify_all();
}

std::shared_ptr<PageLink> PagerCore::wait_for_bulk_link(const PageLink* last) {
  const MutexLock lock(mutex_);
  while (!ending() && bulk_.get() == last) {
    changed_.wait(mutex_);
  }
  // A new one is read also when all is done: the source may be sending, and hears of it only then.
  return stop_ || bulk_.get() == last ? nullptr : bulk_;
}

void PagerCore::let_faults_pass() const {
  // The mutex is not fair: without this, the fault thread could wait for a whole push.
  for (int i = 0; i < 100 && fault_waiting_; ++i) {
    ::sched_yield();
  }
}

Result<void> PagerCore::receive_bulk(PageLink& link) {
  const auto message = link.receive(kReceiveSpinUs, 1000);
  if (!message) {
    return message.error().code == ErrorCode::kRetry ? Result<void>() : fail(message.error());
  }
  if (done_) {
    return {};  // what was under way
  }
  switch (MIGRATE_TRY(message_type(*message))) {
    case MessageType::kPush:
      MIGRATE_TRY(parse_push(*message, push_));
      return apply_push(push_);
    case MessageType::kPresence:
      MIGRATE_TRY(parse_presence(*message, presence_));
      return apply_presence(presence_);
    case MessageType::kPushEnd: {
      const PageControl end = MIGRATE_TRY(parse_control(*message));
      unconfirmed_bytes_ = 0;
      send_control(MessageType::kConfirm, end.sequence);
      return {};
    }
    default:
      return fail(make_error(ErrorCode::kCorrupt, "receive on the bulk link"));
  }
}

Result<void> PagerCore::apply_push(const PushView& push) {
  std::span<const std::byte> content = push.content;
  for (const PushRun& run : push.runs) {
    PageRange left = run.range();
    while (!left.empty() && !ending()) {
      const PageRange chunk{left.start, std::min(left.page_count, kLockedPages)};
      const std::size_t bytes = run.kind == PageKind::kData ? chunk.bytes() : 0;
      Outcome progress = Outcome::kSettled;
      let_faults_pass();
      {
        const MutexLock lock(mutex_);
        progress = run.kind == PageKind::kData
                       ? install_everywhere(chunk, content.first(bytes), Cause::kPush)
                       : settle_everywhere(chunk, run.kind);
      }
      if (progress == Outcome::kChanging) {
        ::sched_yield();  // the fault thread reads the events
        continue;
      }
      content = content.subspan(bytes);
      left = PageRange::between(chunk.end(), left.end());
    }
  }
  if (ending()) {
    return {};
  }
  unconfirmed_bytes_ += push.content.size();
  if (unconfirmed_bytes_ >= kConfirmBytes) {
    unconfirmed_bytes_ = 0;
    send_control(MessageType::kConfirm, push.sequence);
  }
  return {};
}

Result<void> PagerCore::apply_presence(const PresenceView& presence) {
  if (presence.covered.start < covered_until_) {
    return fail(make_error(ErrorCode::kCorrupt, "receive presence in order"));
  }
  covered_until_ = presence.covered.end();
  std::uint64_t from = presence.covered.start;
  for (std::size_t i = 0; i <= presence.ranges.size();) {
    let_faults_pass();
    const MutexLock lock(mutex_);
    const std::size_t stop = std::min(i + kLockedGaps, presence.ranges.size() + 1);
    for (; i < stop; ++i) {
      const bool beyond = i == presence.ranges.size();
      mark_absent(
          PageRange::between(from, beyond ? presence.covered.end() : presence.ranges[i].start));
      from = beyond ? from : presence.ranges[i].end();
    }
    publish();
  }
  if (presence.last) {
    unregister_settled_regions();
    fill_local_files();
  }
  return {};
}

void PagerCore::mark_absent(PageRange source) {
  for (const auto& space : spaces_) {
    PageRange left = source;
    while (auto part = left.empty() ? std::nullopt : space->map.first_at_source(left)) {
      const auto run = space->map.run_at({part->source_address, part->destination.page_count});
      const PageRange pages{part->source_address, run.page_count};
      // Pages asked for are left to their answer, which says the same.
      if (run.state == PageState::kUnknown) {
        space->map.set_state(
            pages, part->kind == RegionKind::kFileCopy ? PageState::kLocalFile : PageState::kZero);
        if (space == spaces_.front() && part->kind != RegionKind::kFileCopy) {
          statistics_.never_present_pages += run.page_count;
          trace(*space, ArrivalWay::kNever, {part->destination.start, run.page_count});
        }
      }
      left = PageRange::between(pages.end(), left.end());
    }
  }
}

void PagerCore::unregister_settled_regions() {
  // Only whole regions: to split a mapping would make a later mremap() of it fail.
  std::vector<std::pair<std::uint32_t, PagerRegion>> candidates;
  {
    const MutexLock lock(mutex_);
    for (const auto& space : spaces_) {
      for (const PagerRegion& region : space->map.regions()) {
        if (region.destination.page_count >= kSettledRegionPages) {
          candidates.emplace_back(space->id, region);
        }
      }
    }
  }
  for (const auto& [id, region] : candidates) {
    let_faults_pass();
    const MutexLock lock(mutex_);
    AddressSpace* const space = find_space(id);
    const auto part =
        space != nullptr && !space->gone ? space->map.find(region.destination.start) : std::nullopt;
    if (!part || part->destination != region.destination) {
      continue;
    }
    PageRange left{part->source_address, part->destination.page_count};
    while (!left.empty()) {
      const auto run = space->map.run_at(left);
      if (run.state != PageState::kZero && run.state != PageState::kPresent) {
        break;
      }
      left = PageRange::between(left.start + run.page_count * kPageBytes, left.end());
    }
    if (left.empty()) {
      unregister_if_stable(*space, part->destination);
    }
  }
}

void PagerCore::unregister_if_stable(AddressSpace& space, PageRange range) {
  // Unlike an install, the kernel does not refuse this while the address space changes. So look
  // before and after: events are read under the lock that we hold, so that a change that began in
  // between is still under way. Then undo: nobody can have used what moved into `range` yet, since
  // the thread that moved it waits for its event to be read.
  if (space.userfault.probe() != InstallOutcome::kInstalled ||
      !space.userfault.unregister_range(range)) {
    return;
  }
  if (space.userfault.probe() == InstallOutcome::kInstalled) {
    space.map.unmap(range);
    save(space);
    return;
  }
  const auto again = space.userfault.register_range(range);
  if (!again && space.userfault.probe() != InstallOutcome::kProcessGone) {
    log::error("{}", again.error().message());
  }
}

bool PagerCore::lacks_local(PageRange source) {
  for (const auto& space : spaces_) {
    PageRange left = source;
    while (auto part = left.empty() ? std::nullopt : space->map.first_at_source(left)) {
      const auto run = space->map.run_at({part->source_address, part->destination.page_count});
      if (run.state == PageState::kLocalFile && !space->gone) {
        return true;
      }
      left = PageRange::between(part->source_address + run.page_count * kPageBytes, left.end());
    }
  }
  return false;
}

void PagerCore::fill_local_files() {
  std::vector<PagerRegion> parts;
  {
    const MutexLock lock(mutex_);
    for (const auto& space : spaces_) {
      for (const PagerRegion& region : space->map.regions()) {
        if (region.kind == RegionKind::kFileCopy) {
          parts.push_back(region);
        }
      }
    }
  }
  for (const PagerRegion& part : parts) {
    fill_local_run(part);
  }
}

void PagerCore::fill_local_run(const PagerRegion& part) {
  PageRange left{part.source_address, part.destination.page_count};
  while (!left.empty() && !ending()) {
    const PageRange chunk{left.start, std::min(left.page_count, kLockedPages)};
    PagerRegion piece = part;
    piece.source_address = chunk.start;
    piece.file_offset += chunk.start - part.source_address;
    piece.destination.page_count = chunk.page_count;
    left = PageRange::between(chunk.end(), left.end());
    {
      const MutexLock lock(mutex_);
      if (!lacks_local(chunk)) {
        continue;
      }
    }
    const auto buffer = std::span(fill_buffer_).first(chunk.bytes());
    const bool usable = read_local(piece, buffer);
    for (bool settled = false; !settled && !ending();) {
      let_faults_pass();
      const MutexLock lock(mutex_);
      if (!usable) {
        give_up_local(chunk);
        break;
      }
      settled = install_everywhere(chunk, buffer, Cause::kLocalFile) == Outcome::kSettled;
    }
  }
}

}  // namespace migrate
