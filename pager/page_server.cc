#include "pager/page_server.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/cheaper_way.h"
#include "base/log.h"
#include "base/polling.h"
#include "pager/internal/page_runs.h"

namespace migrate {
namespace {

constexpr std::size_t kUrgentSlot = 0;
constexpr std::size_t kBulkSlot = 1;
constexpr int kControlPollMs = 20;
// While nothing is to be pushed, each look for what is said takes twice as long as the one before.
constexpr int kLongestControlPollMs = 320;
constexpr std::chrono::milliseconds kOfOneReader{2};  // between requests of one thread
constexpr int kUrgentNice = -10;
// Of processor time that several want; within the worker, faults come first.
constexpr int kPushNice = 10;
constexpr int kHurryPushNice = -5;

}  // namespace

PageServer::PageServer(PageServerOptions options, PageReader& reader,
                       std::vector<ServedRegion> regions, Mapping push_buffer,
                       Mapping urgent_buffer)
    : options_(options),
      reader_(reader),
      regions_(std::move(regions)),
      push_wanted_(options.push || options.push_deadline.count() > 0),
      all_wanted_(options.push_hurries || options.push_deadline.count() > 0),
      push_buffer_(std::move(push_buffer)),
      pace_(options.push_bytes_per_second, options.push_deadline),
      urgent_buffer_(std::move(urgent_buffer)) {
  push_runs_.reserve(kMaxPushPages);
  urgent_runs_.reserve(kMaxRequestPages);
}

Result<std::unique_ptr<PageServer>> PageServer::create(PageServerOptions options,
                                                       PageReader& reader,
                                                       std::vector<ServedRegion> regions) {
  std::sort(regions.begin(), regions.end(), [](const ServedRegion& a, const ServedRegion& b) {
    return a.range.start < b.range.start;
  });
  std::uint64_t from = 0;
  for (const ServedRegion& region : regions) {
    if (region.range.empty() || !region.range.valid() || region.range.start < from) {
      Error error = make_error(ErrorCode::kInvalid, "serve a region");
      error.address = region.range.start;
      return fail(std::move(error));
    }
    from = region.range.end();
  }
  Mapping push_buffer = MIGRATE_TRY(Mapping::create(kMaxPushPages * kPageBytes));
  Mapping urgent_buffer = MIGRATE_TRY(Mapping::create(kMaxRequestPages * kPageBytes));
  return std::unique_ptr<PageServer>(new PageServer(
      options, reader, std::move(regions), std::move(push_buffer), std::move(urgent_buffer)));
}

void PageServer::set_ways(std::vector<PushedRange> ways) {
  ways_ = std::move(ways);
  for (const PushedRange& each : ways_) {
    if (each.way == PushWay::kNever) {
      append_to(never_, each.range);
    }
    pushes_first_ = pushes_first_ || each.way == PushWay::kFirst;
  }
}

void PageServer::use_link(std::size_t slot, PageLink* link) {
  const MutexLock lock(mutex_);
  links_[slot] = link;
  if (link != nullptr && stop_) {
    link->shutdown();
  }
}

void PageServer::request_stop() {
  stop_ = true;
  const MutexLock lock(mutex_);
  for (PageLink* link : links_) {
    if (link != nullptr) {
      link->shutdown();
    }
  }
}

bool PageServer::served(PageRange range) const {
  auto it = std::partition_point(regions_.begin(), regions_.end(), [&](const ServedRegion& region) {
    return region.range.end() <= range.start;
  });
  // A request may cross from one region into the next.
  std::uint64_t from = range.start;
  while (it != regions_.end() && it->range.contains(from)) {
    if (it->range.end() >= range.end()) {
      return true;
    }
    from = it->range.end();
    ++it;
  }
  return false;
}

// Pages that were confirmed and may be freed by now have no answer: a request that was overtaken by
// their push may name some, among others that it does need. The pages count as sent before they are
// read, so that the push does not send them once more meanwhile; a new link begins anew with what
// was not confirmed.
Result<void> PageServer::read_request(PageRange range) {
  std::vector<PageRange> readable{range};
  {
    const MutexLock lock(mutex_);
    order_.note_request(range);
    if (plan_ && plan_->taken(range)) {
      readable = plan_->not_taken(range);
    }
    if (plan_) {
      plan_->mark_sent(range);
    }
  }
  const PageSet zeros = common(never_, {range});
  if (!zeros.empty()) {
    readable = without(readable, zeros);
  }
  MIGRATE_TRY(read_runs(reader_, readable, urgent_buffer_.bytes(), urgent_runs_));
  if (readable.size() == 1 && readable.front() == range) {
    return {};
  }
  std::vector<PushRun> all;
  std::uint64_t from = range.start;
  const auto fill_to = [&](std::uint64_t address) {
    for (; from < address; from += kPageBytes) {
      const bool zero = !common(zeros, {{from, 1}}).empty();
      append_page(all, from, zero ? PageKind::kZero : PageKind::kError);
    }
  };
  for (const PushRun& run : urgent_runs_) {
    fill_to(run.address);
    all.push_back(run);
    from = run.range().end();
  }
  fill_to(range.end());
  urgent_runs_ = std::move(all);
  return {};
}

Result<void> PageServer::answer(PageLink& link, const PageRequest& request) {
  const PageRange range = request.range();
  const bool readable = served(range);
  if (!readable && !warned_.exchange(true)) {
    log::warn(
        "refused a request for pages outside the process: {} at {:#x}; further ones are "
        "refused silently",
        request.page_count, range.start);
  }
  if (readable) {
    MIGRATE_TRY(read_request(range));
  } else {
    urgent_runs_.assign(1, {range.start, request.page_count, PageKind::kError});
  }
  const std::byte* content = urgent_buffer_.bytes().data();
  for (const PushRun& run : urgent_runs_) {
    ReplyHeader header;
    header.tag = request.tag;
    header.address = run.address;
    header.page_count = run.page_count;
    header.kind = run.kind;
    const std::size_t bytes = run.kind == PageKind::kData ? run.range().bytes() : 0;
    const std::array<std::span<const std::byte>, 2> parts{message_bytes(header),
                                                          std::span(content, bytes)};
    MIGRATE_TRY(link.send(std::span(parts).first(bytes > 0 ? 2 : 1)));
    content += bytes;
  }
  const MutexLock lock(mutex_);
  ++statistics_.requests;
  statistics_.requested_pages += request.page_count;
  statistics_.file_pages += count_file_pages(urgent_runs_);
  statistics_.zero_pages += count_pages(urgent_runs_, PageKind::kZero);
  statistics_.unreadable_pages += count_pages(urgent_runs_, PageKind::kError);
  return {};
}

Result<void> PageServer::serve_urgent(PageLink& link) {
  use_link(kUrgentSlot, &link);
  // Threads of the process wait for this one, not for the push. Without permission it stays as it
  // was.
  static_cast<void>(::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kUrgentNice));
  Result<void> result;
  using Clock = std::chrono::steady_clock;
  Polling polling{std::chrono::microseconds(options_.spin_us)};
  // By how long the other side takes from one request to the next: see FaultWaiting.
  constexpr std::size_t kPoll = 0;
  CheaperWay ways(options_.spin_us > 0 ? 2 : 1);
  Clock::time_point last_request{};
  bool asleep = true;  // Until the first request: the process is still being restored.
  while (!stop_ && !done_) {
    const bool polls = !asleep && ways.way() == kPoll;
    const auto limit = polls ? polling.limit() : std::chrono::microseconds(0);
    const auto start = Clock::now();
    const auto message = link.receive(static_cast<std::uint32_t>(limit.count()), 1000);
    const auto now = Clock::now();
    if (polls) {
      polling.note(now - start < limit);
    }
    asleep = !message && message.error().code == ErrorCode::kRetry;
    if (asleep) {
      continue;
    }
    if (!message) {
      result = fail(message.error());
      break;
    }
    const auto request = parse_request(*message);
    if (request && request->page_count == 1) {
      if (now - last_request < kOfOneReader) {
        ways.note(now - last_request);
      }
      last_request = now;
    }
    result = request ? answer(link, *request) : fail(request.error());
    if (!result) {
      break;
    }
  }
  use_link(kUrgentSlot, nullptr);
  return stop_ || done_ ? Result<void>() : result;
}

Result<void> PageServer::scan() {
  {
    const MutexLock lock(mutex_);
    if (plan_) {
      plan_->restart();
      apply_ways();
      return {};
    }
  }
  std::vector<PageRange> present;
  for (const ServedRegion& region : regions_) {
    MIGRATE_TRY(reader_.scan(region, present));
  }
  if (!never_.empty()) {
    present = without(present, never_);
  }
  const MutexLock lock(mutex_);
  plan_.emplace(std::move(present));
  for (const PageRange& range : there_) {
    plan_->mark_there(range);
  }
  statistics_.present_pages = plan_->present_pages();
  apply_ways();
  return {};
}

void PageServer::apply_ways() {
  std::vector<PageRange> first;
  std::vector<PageRange> hot;
  PageSet held;
  for (const PushedRange& each : ways_) {
    if (each.way == PushWay::kFirst) {
      first.push_back(each.range);
    } else if (each.way == PushWay::kHot) {
      hot.push_back(each.range);
    } else if (each.way == PushWay::kOnRequest) {
      append_to(held, each.range);
    }
  }
  if (!push_wanted_ && pushes_first_) {  // Only those that come first are pushed.
    held = without(page_set(plan_->present()), page_set(first));
  }
  if (!all_wanted_) {
    for (const PageRange& range : held) {
      plan_->hold_back(range);
    }
  }
  first.insert(first.end(), hot.begin(), hot.end());
  plan_->prefer(first);
}

void PageServer::release_all() {
  const MutexLock lock(mutex_);
  if (plan_->release()) {
    push_end_sent_ = false;
  }
}

std::uint64_t PageServer::count_file_pages(const std::vector<PushRun>& runs) const {
  std::uint64_t pages = 0;
  for (const PushRun& run : runs) {
    auto region = std::partition_point(
        regions_.begin(), regions_.end(),
        [&](const ServedRegion& each) { return each.range.end() <= run.address; });
    for (; run.kind == PageKind::kData && region != regions_.end() &&
           region->range.start < run.range().end();
         ++region) {
      pages += region->is_all_data ? region->range.intersect(run.range()).page_count : 0;
    }
  }
  return pages;
}

Result<void> PageServer::send_presence(PageLink& link) {
  std::vector<PageRange> present;
  {
    const MutexLock lock(mutex_);
    present = plan_->present();
  }
  const std::uint64_t limit = regions_.empty() ? 0 : regions_.back().range.end();
  std::uint64_t from = regions_.empty() ? 0 : regions_.front().range.start;
  std::size_t sent = 0;
  do {
    const std::size_t count = std::min<std::size_t>(present.size() - sent, kMaxPresenceRanges);
    PresenceHeader header;
    header.range_count = static_cast<std::uint32_t>(count);
    header.last = sent + count == present.size() ? 1 : 0;
    header.covered_start = from;
    header.covered_end = header.last == 1 ? limit : present[sent + count - 1].end();
    const std::array<std::span<const std::byte>, 2> parts{
        message_bytes(header), std::as_bytes(std::span(present).subspan(sent, count))};
    MIGRATE_TRY(link.send(std::span(parts).first(count > 0 ? 2 : 1)));
    from = header.covered_end;
    sent += count;
  } while (sent < present.size());
  return {};
}

Result<bool> PageServer::push_batch(PageLink& link) {
  PushHeader header;
  header.sequence = next_sequence_;
  {
    const MutexLock lock(mutex_);
    if (const auto place = order_.next(kMaxPushPages * kPageBytes)) {
      plan_->follow(*place);
    }
    plan_->next_batch(header.sequence, kMaxPushPages, kMaxPushRuns, push_ranges_);
  }
  if (push_ranges_.empty()) {
    return false;
  }
  ++next_sequence_;
  MIGRATE_TRY(read_runs(reader_, push_ranges_, push_buffer_.bytes(), push_runs_));
  header.run_count = static_cast<std::uint32_t>(push_runs_.size());
  const std::uint64_t data_pages = count_pages(push_runs_, PageKind::kData);
  pace_.sent(Pace::Clock::now(), data_pages * kPageBytes);
  const std::array<std::span<const std::byte>, 3> parts{
      message_bytes(header), std::as_bytes(std::span(push_runs_)),
      push_buffer_.bytes().first(data_pages * kPageBytes)};
  MIGRATE_TRY(link.send(std::span(parts).first(data_pages > 0 ? 3 : 2)));
  const MutexLock lock(mutex_);
  statistics_.pushed_pages += data_pages;
  statistics_.file_pages += count_file_pages(push_runs_);
  statistics_.zero_pages += count_pages(push_runs_, PageKind::kZero);
  statistics_.unreadable_pages += count_pages(push_runs_, PageKind::kError);
  return true;
}

Result<bool> PageServer::await_turn(PageLink& link) {
  std::uint64_t owed = 0;
  {
    const MutexLock lock(mutex_);
    owed = plan_->unsent_pages() * kPageBytes;
  }
  const auto wait = pace_.wait_for(Pace::Clock::now(), owed);
  if (wait <= Pace::Clock::duration::zero()) {
    return true;
  }
  const auto wait_ms = std::chrono::ceil<std::chrono::milliseconds>(wait).count();
  MIGRATE_TRY(receive_control(link, static_cast<int>(std::min<long>(wait_ms, kControlPollMs))));
  return false;
}

Result<void> PageServer::handle_control(std::span<const std::byte> message) {
  const PageControl control = MIGRATE_TRY(parse_control(message));
  switch (control.type) {
    case MessageType::kConfirm: {
      const MutexLock lock(mutex_);
      if (!plan_->confirm(control.sequence)) {
        return fail(make_error(ErrorCode::kCorrupt, "confirm pages that were never sent"));
      }
      statistics_.confirmed_pages = plan_->confirmed_pages();
      return {};
    }
    case MessageType::kDone: {
      done_ = true;
      const MutexLock lock(mutex_);
      if (links_[kUrgentSlot] != nullptr) {
        links_[kUrgentSlot]->shutdown();
      }
      return {};
    }
    case MessageType::kPushStart:
      start_push();
      return {};
    default:
      return fail(make_error(ErrorCode::kCorrupt, "receive on the bulk link"));
  }
}

Result<void> PageServer::receive_control(PageLink& link, int timeout_ms) {
  if (timeout_ms == 0) {
    const auto message = MIGRATE_TRY(link.try_receive());
    return message ? handle_control(*message) : Result<void>();
  }
  const auto message = link.receive(0, timeout_ms);
  if (!message) {
    return message.error().code == ErrorCode::kRetry ? Result<void>() : fail(message.error());
  }
  return handle_control(*message);
}

Result<void> PageServer::push_until_done(PageLink& link) {
  MIGRATE_TRY(scan());
  MIGRATE_TRY(send_presence(link));
  push_end_sent_ = false;
  int idle_poll_ms = kControlPollMs;
  while (!stop_ && !done_) {
    if (all_wanted_) {
      release_all();
    }
    if ((push_wanted_ || pushes_first_) && !push_end_sent_) {
      if (!MIGRATE_TRY(await_turn(link))) {
        continue;
      }
      if (!MIGRATE_TRY(push_batch(link))) {
        PageControl end;
        end.type = MessageType::kPushEnd;
        end.sequence = next_sequence_ - 1;
        const std::span<const std::byte> part = message_bytes(end);
        MIGRATE_TRY(link.send(std::span(&part, 1)));
        push_end_sent_ = true;
      }
      MIGRATE_TRY(receive_control(link, 0));
    } else {
      MIGRATE_TRY(receive_control(link, push_end_sent_ ? 1000 : idle_poll_ms));
      idle_poll_ms = std::min(2 * idle_poll_ms, kLongestControlPollMs);
    }
  }
  return {};
}

Result<void> PageServer::push(PageLink& link) {
  use_link(kBulkSlot, &link);
  const bool hurries = options_.push_hurries || options_.push_deadline.count() > 0;
  const int nice = hurries ? kHurryPushNice : kPushNice;
  static_cast<void>(::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), nice));
  const Result<void> result = push_until_done(link);
  use_link(kBulkSlot, nullptr);
  return stop_ || done_ ? Result<void>() : result;
}

std::vector<PageRange> PageServer::take_confirmed() {
  const MutexLock lock(mutex_);
  return plan_ ? plan_->take_confirmed() : std::vector<PageRange>();
}

PageServerStatistics PageServer::statistics() const {
  const MutexLock lock(mutex_);
  return statistics_;
}

}  // namespace migrate
