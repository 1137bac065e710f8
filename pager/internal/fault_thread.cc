// The fault thread: reads the userfaultfds, asks the source, installs what it answers.

#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/processors.h"
#include "pager/internal/fault_waiting.h"
#include "pager/internal/pager_core.h"
#include "pager/internal/shared_twin.h"

namespace migrate {
namespace {

constexpr std::chrono::seconds kProbeInterval{1};
constexpr std::uint64_t kZeroAroundPages = 64;    // of memory that never existed
constexpr std::uint64_t kRezeroAroundPages = 16;  // of memory given back with madvise
constexpr int kFaultNice = -10;
constexpr std::chrono::milliseconds kFaultsToldEvery{5};

// The region of shared memory that a page at another address belongs to.
std::optional<PagerRegion> find_twin(AddressSpace& space, std::uint64_t address) {
  if (!space.map.has_shared_memory()) {
    return std::nullopt;
  }
  for (const std::uint64_t twin : shared_twins(space.watch.pid(), address)) {
    auto part = space.map.find(twin);
    if (part && part->kind == RegionKind::kSharedMemory) {
      return part;
    }
  }
  return std::nullopt;
}

}  // namespace

void PagerCore::run_faults() {
  // Threads of the process wait for this one. Without permission it is as nice as before.
  static_cast<void>(::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kFaultNice));
  // Now, so that this thread's first allocations are not made while the process stands still.
  requests_.reserve(kOutstandingCount);
  free_slots_.reserve(kOutstandingCount);
  faults_.reserve(kOutstandingCount);
  poll_descriptors_.reserve(kOutstandingCount);
  await_start();
  const std::chrono::microseconds most(has_several_processors() ? options_.spin_us : 0);
  FaultWaiting waiting(most);
  auto last_probe = Clock::now();
  while (!stop_) {
    take_new_link();
    bool active = read_spaces();
    if (!faults_.empty()) {
      waiting.note_fault(faults_.front().start);
    }
    resolve_local_faults();
    send_requests();
    active = read_replies() || active;
    active = retry_deferred() || active;
    send_requests();
    if (unfinished_ == 0) {
      finish();
      return;
    }
    const auto now = Clock::now();
    if (now - last_probe > kProbeInterval) {
      last_probe = now;
      drop_gone_spaces();
    }
    if (active) {
      waiting.note_activity();
    } else if (!waiting.sleeps(now, free_slots_.size() < kOutstandingCount) || !deferred_.empty()) {
      ::sched_yield();
    } else {
      sleep_until_something();
    }
  }
}

void PagerCore::take_new_link() {
  // Cheap when nothing changed: an unusable link is rare, a replaced one is shut down.
  if (urgent_usable_) {
    return;
  }
  const MutexLock lock(mutex_);
  if (urgent_ == urgent_link_) {
    return;
  }
  urgent_link_ = urgent_;
  urgent_usable_ = true;
  most_requests_ = std::min<std::size_t>(kOutstandingCount, urgent_link_->most_requests());
  requests_.clear();
  outstanding_.fill({});
  ahead_pages_ = 0;
  free_slots_.clear();
  for (std::uint32_t slot = 0; slot < kOutstandingCount; ++slot) {
    free_slots_.push_back(slot);
  }
  // Whoever waits for a page that was asked for over the old link faults again and asks again.
  for (const auto& space : spaces_) {
    for (const PagerRegion& region : space->map.regions()) {
      PagerRegion part = region;
      while (!part.destination.empty()) {
        const auto run = space->map.run_at({part.source_address, part.destination.page_count});
        const PageRange pages{part.destination.start, run.page_count};
        if (run.state == PageState::kRequested) {
          space->map.set_state({part.source_address, run.page_count}, PageState::kUnknown);
          space->userfault.wake(pages);
        }
        part.source_address += pages.bytes();
        part.destination = PageRange::between(pages.end(), part.destination.end());
      }
    }
  }
  for (const PageRange& range : std::exchange(first_, {})) {
    request_first(range);
  }
}

void PagerCore::lose_urgent_link(const Error& error) {
  urgent_usable_ = false;
  urgent_link_->shutdown();
  link_lost(*urgent_link_, error);
}

bool PagerCore::read_spaces() {
  fault_waiting_ = true;
  const MutexLock lock(mutex_);
  fault_waiting_ = false;
  bool active = false;
  // By index: a fork event adds a space.
  for (std::size_t i = 0; i < spaces_.size(); ++i) {
    active = read_space(*spaces_[i]) || active;
  }
  if (active) {
    publish();
  }
  return active;
}

bool PagerCore::read_space(AddressSpace& space) {
  if (space.order.awaits() && space.userfault.probe() == InstallOutcome::kInstalled) {
    space.order.settled(space.map);
    save(space);
  }
  faults_.clear();
  const bool active = read_messages(space);
  for (const Fault& fault : faults_) {
    ++statistics_.faults;
    resolve(fault);
  }
  if (!faults_.empty() && options_.on_faults &&
      faults_.front().start - faults_told_ > kFaultsToldEvery) {
    faults_told_ = faults_.front().start;
    options_.on_faults();
  }
  return active;
}

// One at a time: who waits for an event goes on as soon as it is read, so that a fork is looked at
// before. The kernel gives faults first: if there is something to read while nothing changes, that
// is a fault, and no event that comes now is read in its place.
bool PagerCore::read_messages(AddressSpace& space) {
  std::size_t count = 0;
  for (; count < kMostMessages && space.userfault.has_events(); ++count) {
    if (space.userfault.probe() == InstallOutcome::kChanging) {
      note_withheld(space);
    } else {
      space.watch.forget();
    }
    uffd_msg message{};
    const auto read = space.userfault.read_events(std::span(&message, 1));
    if (!read) {
      log::error("{}", read.error().message());
      break;
    }
    if (*read == 0) {
      break;
    }
    if (message.event == UFFD_EVENT_PAGEFAULT) {
      faults_.push_back({space.id, message.arg.pagefault.feat.ptid,
                         page_floor(message.arg.pagefault.address), Clock::now()});
    } else {
      apply_event(space, message);
    }
  }
  return count > 0;
}

// If a thread is forking: what its child will not get.
void PagerCore::note_withheld(AddressSpace& space) {
  const std::vector<PageRange>* const withheld = space.watch.look(space.map);
  if (withheld != nullptr && space.map.withhold_from_child(*withheld)) {
    save(space);
  }
}

void PagerCore::apply_fork(AddressSpace& space, int userfault) {
  ++statistics_.forks;
  PagerSpace news{next_space_, space.id, userfault, -1};
  if (options_.on_fork) {
    options_.on_fork(news);
  }
  AddressSpace& child =
      add_space(Userfault::adopt(UniqueFd(userfault)), space.map.clone_for_fork());
  child.watch = space.watch.take_child();
  if (auto kept = child.map.keep_ledger(); !kept) {
    log::error("{}; a new pager could not take over", kept.error().message());
  } else if (options_.on_fork) {
    news.ledger = child.map.ledger()->fd();
    options_.on_fork(news);
  }
}

void PagerCore::apply_event(AddressSpace& space, const uffd_msg& message) {
  switch (message.event) {
    case UFFD_EVENT_FORK:
      apply_fork(space, static_cast<int>(message.arg.fork.ufd));
      break;
    case UFFD_EVENT_REMAP: {
      const PageRange from = PageRange::between(message.arg.remap.from,
                                                message.arg.remap.from + message.arg.remap.len);
      space.order.remapped(space.map, from, message.arg.remap.to);
      save(space);
      space.userfault.wake(from);
      break;
    }
    case UFFD_EVENT_REMOVE:
    case UFFD_EVENT_UNMAP: {
      const PageRange range = PageRange::between(message.arg.remove.start, message.arg.remove.end);
      if (message.event == UFFD_EVENT_REMOVE) {
        if (space.map.remove(range)) {
          refill_local_ = true;
        }
      } else {
        space.order.unmapped(space.map, range);
        save(space);
      }
      // Who waits there finds out what the address is now.
      space.userfault.wake(range);
      break;
    }
    default:
      log::warn("unknown userfaultfd event {:#x}", static_cast<unsigned>(message.event));
      break;
  }
}

void PagerCore::resolve(const Fault& fault) {
  AddressSpace* const space = find_space(fault.space);
  if (space == nullptr || space->gone) {
    return;
  }
  auto part = space->map.find(fault.address);
  const bool elsewhere = !part;
  if (elsewhere) {
    part = find_twin(*space, fault.address);
  }
  if (!part) {
    fill_zero(*space, fault, part, PageState::kPresent);
    return;
  }
  const PageState state = space->map.state(part->source_address);
  switch (state) {
    case PageState::kPresent:
    case PageState::kZero:
      fill_zero(*space, fault, part, state);
      break;
    case PageState::kLocalFile:
      local_faults_.push_back(fault);
      break;
    case PageState::kRequested:  // the answer wakes all who wait
      ask_ahead(*space, fault, part->source_address, true);
      break;
    case PageState::kUnknown:
      ask(*space, *part, fault);
      break;
  }
  if (space->map.state(part->source_address) != PageState::kRequested) {
    return;
  }
  space->stalled.note_fault(part->source_address, fault.start);
  if (elsewhere) {
    space->twin_faults.push_back({fault.address, part->source_address});
  }
}

void PagerCore::fill_zero(AddressSpace& space, const Fault& fault,
                          const std::optional<PagerRegion>& part, PageState state) {
  PageRange range{fault.address, 1};
  if (part && part->kind != RegionKind::kSharedMemory) {
    const std::uint64_t most = state == PageState::kZero ? kZeroAroundPages : kRezeroAroundPages;
    range.page_count =
        space.map.run_at({part->source_address, std::min(most, part->destination.page_count)})
            .page_count;
  }
  const InstallResult result = space.userfault.zero(range);
  statistics_.zero_pages += result.page_count;
  trace(space, ArrivalWay::kZero, {range.start, result.page_count});
  if (part && state == PageState::kZero) {
    space.map.set_state({part->source_address, result.page_count}, PageState::kPresent);
  }
  if (result.page_count > 0) {
    note_served(fault);
    return;
  }
  switch (result.outcome) {
    case InstallOutcome::kChanging:
      deferred_.push_back(fault);
      break;
    case InstallOutcome::kProcessGone:
      space.gone = true;
      break;
    default:
      // Present already, or no longer ours: the thread only has to look again.
      if (part && state == PageState::kZero) {
        space.map.set_state({part->source_address, 1}, PageState::kPresent);
      }
      space.userfault.wake({fault.address, 1});
      break;
  }
}

void PagerCore::resolve_local_faults() {
  for (const Fault& fault : local_faults_) {
    std::optional<PagerRegion> part;
    {
      const MutexLock lock(mutex_);
      AddressSpace* const space = find_space(fault.space);
      part = space != nullptr ? space->map.find(fault.address) : std::nullopt;
      if (part) {
        const auto run = space->map.run_at(
            {part->source_address, std::min(kLockedPages, part->destination.page_count)});
        part->destination.page_count = run.page_count;
      }
      if (!part || space->map.state(part->source_address) != PageState::kLocalFile) {
        deferred_.push_back(fault);  // it has changed since
        continue;
      }
    }
    // Without the lock, because a disk may be slow.
    const PageRange source{part->source_address, part->destination.page_count};
    const auto buffer = std::span(local_buffer_).first(source.bytes());
    const bool usable = read_local(*part, buffer);
    const MutexLock lock(mutex_);
    if (!usable) {
      give_up_local(source);
      deferred_.push_back(fault);
    } else if (install_everywhere(source, buffer, Cause::kLocalFile) == Outcome::kChanging) {
      deferred_.push_back(fault);
    } else {
      note_served(fault);
    }
  }
  local_faults_.clear();
}

bool PagerCore::retry_deferred() {
  if (deferred_.empty()) {
    return false;
  }
  retried_.clear();
  std::swap(retried_, deferred_);
  {
    const MutexLock lock(mutex_);
    for (const Fault& fault : retried_) {
      resolve(fault);
    }
    publish();
  }
  resolve_local_faults();
  return deferred_.size() < retried_.size();
}

bool PagerCore::read_replies() {
  bool active = false;
  // A bounded number, so that new faults are not kept waiting by prefetched pages.
  for (int i = 0; i < 8 && urgent_usable_; ++i) {
    const auto message = urgent_link_->try_receive();
    if (!message) {
      lose_urgent_link(message.error());
      break;
    }
    if (!*message) {
      break;
    }
    active = true;
    const auto reply = parse_reply(**message);
    const auto applied = reply ? apply_reply(*reply) : Result<void>(fail(reply.error()));
    if (!applied) {
      lose_urgent_link(applied.error());
    }
  }
  return active;
}

Result<void> PagerCore::apply_reply(const ReplyView& reply) {
  const PageRange range = reply.header.range();
  const std::uint32_t slot = reply.header.tag % kOutstandingCount;
  Outstanding& entry = outstanding_[slot];
  if (entry.left.empty() || entry.tag != reply.header.tag || entry.left.start != range.start ||
      range.page_count > entry.left.page_count) {
    Error error = make_error(ErrorCode::kCorrupt, "match a page reply with its request");
    error.address = range.start;
    return fail(std::move(error));
  }
  const Cause purpose = entry.prefetch ? Cause::kPrefetch : Cause::kFault;
  for (;;) {
    fault_waiting_ = true;
    {
      const MutexLock lock(mutex_);
      fault_waiting_ = false;
      const Outcome progress = reply.header.kind == PageKind::kData
                                   ? install_everywhere(range, reply.content, purpose)
                                   : settle_everywhere(range, reply.header.kind);
      if (progress == Outcome::kSettled) {
        if (!entry.prefetch) {
          latencies_.record(static_cast<std::uint64_t>(
              std::chrono::nanoseconds(Clock::now() - entry.start).count()));
        }
        break;
      }
    }
    if (stop_) {
      return {};
    }
    // The kernel refuses until the events are read and the threads that caused them go on.
    read_spaces();
    ::sched_yield();
  }
  entry.left = PageRange::between(range.end(), entry.left.end());
  ahead_pages_ -= entry.prefetch ? range.page_count : 0;
  if (entry.left.empty()) {
    free_slots_.push_back(slot);
  }
  return {};
}

void PagerCore::drop_gone_spaces() {
  const MutexLock lock(mutex_);
  for (const auto& space : spaces_) {
    space->gone = space->gone || space->userfault.probe() == InstallOutcome::kProcessGone;
  }
  publish();
  std::erase_if(spaces_, [](const auto& space) { return space->gone; });
}

void PagerCore::finish() {
  {
    const MutexLock lock(mutex_);
    // Others may hold duplicates of the descriptors, so that closing ours would not be enough.
    for (const auto& space : spaces_) {
      for (const PagerRegion& region : space->map.regions()) {
        static_cast<void>(space->userfault.unregister_range(region.destination));
      }
    }
    spaces_.clear();
    owed_ = 0;
    done_ = true;
  }
  changed_.notify_all();
  send_control(MessageType::kDone, 0);
  if (options_.on_done) {
    options_.on_done();
  }
}

void PagerCore::sleep_until_something() {
  std::vector<pollfd>& descriptors = poll_descriptors_;
  descriptors.clear();
  descriptors.push_back({kick_.get(), POLLIN, 0});
  if (urgent_usable_) {
    const auto ready = urgent_link_->arm();
    if (!ready || *ready) {
      return;  // try_receive tells
    }
    descriptors.push_back({urgent_link_->poll_fd(), POLLIN, 0});
  }
  {
    const MutexLock lock(mutex_);
    for (const auto& space : spaces_) {
      descriptors.push_back({space->userfault.fd(), POLLIN, 0});
    }
  }
  ::poll(descriptors.data(), descriptors.size(), 1000);
  if ((descriptors.front().revents & POLLIN) != 0) {
    std::uint64_t count = 0;
    static_cast<void>(::read(kick_.get(), &count, sizeof(count)));
  }
}

}  // namespace migrate
