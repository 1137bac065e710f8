#include "libmigrate/pages/page_feed.h"

#include "base/log.h"
#include "libmigrate/image/address_space.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/pages/channel_link.h"
#include "libmigrate/pages/exposed_memory.h"

namespace migrate {
namespace {

constexpr std::uint64_t kSmallSegmentPages = 16;
constexpr std::uint64_t kMostFirstPages = 64;

RegionKind region_kind(const wire::Mapping& mapping) {
  switch (mapping.kind()) {
    case wire::Mapping::FILE_COPY:
      return RegionKind::kFileCopy;
    case wire::Mapping::SHARED_MEMORY:
      return RegionKind::kSharedMemory;
    default:
      return RegionKind::kAnonymous;
  }
}

}  // namespace

std::vector<ServedRegion> served_regions(const wire::Objects& objects,
                                         const wire::ProcessImage& image) {
  std::vector<ServedRegion> regions;
  for (const wire::Mapping& mapping : image.mappings()) {
    if (is_paged(objects, mapping)) {
      regions.push_back({.range = PageRange::between(mapping.start(), mapping.end()),
                         .kind = region_kind(mapping),
                         .object_offset = mapping.offset(),
                         .is_all_data = mapping.was_file()});
    }
  }
  return regions;
}

std::vector<PushedRange> pushed_ranges(const wire::ProcessImage& image) {
  std::vector<PushedRange> ranges;
  for (const wire::AdvisedRange& each : image.advised()) {
    if (each.way() == wire::AdvisedRange::BY_MODE) {
      continue;
    }
    ranges.push_back({.range = PageRange::between(each.start(), each.end()),
                      .way = each.way() == wire::AdvisedRange::FIRST   ? PushWay::kFirst
                             : each.way() == wire::AdvisedRange::HOT   ? PushWay::kHot
                             : each.way() == wire::AdvisedRange::NEVER ? PushWay::kNever
                                                                       : PushWay::kOnRequest});
  }
  return ranges;
}

std::vector<AccessAdvice> access_advice(const wire::ProcessImage& image) {
  std::vector<AccessAdvice> advice;
  for (const wire::AccessRange& each : image.access()) {
    if (each.pattern() == wire::AccessRange::SEQUENTIAL ||
        each.pattern() == wire::AccessRange::RANDOM) {
      advice.push_back({.range = PageRange::between(each.start(), each.end()),
                        .pattern = each.pattern() == wire::AccessRange::RANDOM
                                       ? AccessPattern::kRandom
                                       : AccessPattern::kSequential});
    }
  }
  return advice;
}

std::vector<PagerRegion> pager_regions(const wire::Objects& objects,
                                       const wire::ProcessImage& image) {
  std::vector<PagerRegion> regions;
  for (const wire::Mapping& mapping : image.mappings()) {
    if (is_paged(objects, mapping)) {
      regions.push_back({.destination = PageRange::between(mapping.start(), mapping.end()),
                         .source_address = mapping.start(),
                         .kind = region_kind(mapping),
                         .local_file = mapping.file(),
                         .file_offset = mapping.offset(),
                         .withheld_from_child =
                             (mapping.advice() & (wire::WIPE_ON_FORK | wire::DONT_FORK)) != 0});
    }
  }
  return regions;
}

std::vector<PageRange> pages_touched_first(const wire::ProcessImage& image) {
  std::vector<PageRange> ranges;
  std::uint64_t left = kMostFirstPages;
  std::uint64_t end_of_file_copy = 0;
  for (const wire::Mapping& mapping : image.mappings()) {
    const PageRange range = PageRange::between(mapping.start(), mapping.end());
    const bool file_copy = mapping.kind() == wire::Mapping::FILE_COPY;
    const bool zero_data = mapping.kind() == wire::Mapping::ANONYMOUS &&
                           (mapping.advice() & wire::DROPPABLE) == 0 &&
                           mapping.start() == end_of_file_copy && mapping.name().empty();
    if ((file_copy || zero_data) && range.page_count <= std::min(left, kSmallSegmentPages)) {
      ranges.push_back(range);
      left -= range.page_count;
    }
    end_of_file_copy = file_copy ? mapping.end() : 0;
  }
  return ranges;
}

Result<std::unique_ptr<PageFeed>> PageFeed::create(pid_t process, UniqueFd memory,
                                                   const wire::Image& image,
                                                   const PageServerOptions& options) {
  std::unique_ptr<PageFeed> feed(new PageFeed());
  feed->reader_ = MIGRATE_TRY(ProcessPageReader::create(process, std::move(memory)));
  feed->process_ = process;
  feed->regions_ = served_regions(image.objects(), only_process(image));
  feed->server_ = MIGRATE_TRY(PageServer::create(options, *feed->reader_, feed->regions_));
  feed->server_->set_ways(pushed_ranges(only_process(image)));
  return feed;
}

PageFeed::~PageFeed() {
  stop();
}

void PageFeed::serve(std::shared_ptr<Channel> urgent) {
  urgent_ = std::move(urgent);
  urgent_link_ = std::make_shared<OfferingLink>(urgent_);
  exposed_ = false;
  urgent_thread_ = std::thread([this, channel = urgent_, link = urgent_link_] {
    if (auto served = server_->serve_urgent(*link); !served) {
      note_broken("urgent channel", *channel, served.error());
    }
  });
}

void PageFeed::expose_memory() {
  if (exposed_ || !urgent_) {
    return;
  }
  exposed_ = true;
  if (auto connection = std::dynamic_pointer_cast<OneSidedChannel>(urgent_)) {
    ends_exposing_ = false;
    exposing_thread_ = std::thread([this, connection = std::move(connection), link = urgent_link_] {
      link->offer(expose_shared_memory(process_, regions_, *connection, ends_exposing_));
    });
  }
}

void PageFeed::follow(pid_t process) {
  process_ = process;
  reader_->follow(process);
}

void PageFeed::push(std::shared_ptr<Channel> bulk, std::chrono::microseconds pause) {
  bulk_ = std::move(bulk);
  bulk_thread_ = std::thread([this, channel = bulk_, pause] {
    std::this_thread::sleep_for(pause);
    ChannelLink link(channel);
    if (auto pushed = server_->push(link); !pushed) {
      note_broken("bulk channel", *channel, pushed.error());
    }
  });
}

// A peer that breaks the format is cut off; one that was lost comes back.
void PageFeed::note_broken(const char* which, Channel& channel, const Error& error) {
  if (error.code == ErrorCode::kCorrupt) {
    log::warn("{}: {}", which, error.message());
  } else {
    log::debug("{}: {}", which, error.message());
  }
  channel.shutdown();
  broken_ = true;
}

void PageFeed::stop() {
  if (server_) {
    server_->request_stop();
  }
  disconnect();
}

void PageFeed::disconnect() {
  ends_exposing_ = true;
  for (const auto& channel : {urgent_, bulk_}) {
    if (channel) {
      channel->shutdown();
      earlier_bytes_ += channel->bytes_sent();
    }
  }
  for (std::thread* thread : {&urgent_thread_, &bulk_thread_, &exposing_thread_}) {
    if (thread->joinable()) {
      thread->join();
    }
  }
  urgent_link_.reset();
  urgent_.reset();
  bulk_.reset();
  broken_ = false;
}

std::uint64_t PageFeed::wire_bytes() const {
  return earlier_bytes_ + (urgent_ ? urgent_->bytes_sent() : 0) + (bulk_ ? bulk_->bytes_sent() : 0);
}

}  // namespace migrate
