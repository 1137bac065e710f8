#include "libmigrate/move/copy_ahead.h"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace migrate {

Result<std::unique_ptr<CopyAhead>> CopyAhead::create(Place place,
                                                     const std::vector<ServedRegion>& regions) {
  std::unique_ptr<CopyAhead> ahead(new CopyAhead(
      MIGRATE_TRY(WriteTracker::create(std::move(place.userfault), std::move(place.pagemap)))));
  ahead->reader_ = MIGRATE_TRY(ProcessPageReader::create(place.process, std::move(place.memory)));
  ahead->tracker_.watch(regions);
  return ahead;
}

// What would be more than the destination takes is left for later; what is there may come again.
PageSet CopyAhead::with_room(const PageSet& pages) const {
  const std::uint64_t used = page_total(ever_);
  const PageSet first_time = without(pages, ever_);
  const std::uint64_t room = most_pages_ > used ? most_pages_ - used : 0;
  return join(common(pages, ever_), first_pages(first_time, room));
}

Result<void> CopyAhead::run(PageLink& link, const Options& options) {
  sender_.emplace(
      MIGRATE_TRY(RoundSender::create(*reader_, options.bytes_per_second, options.still_wanted)));
  most_pages_ = options.most_pages;
  rounds_.emplace(options.limits);
  std::int64_t since_us = now_us();
  PageSet written = MIGRATE_TRY(tracker_.take_written());
  while (!end_) {
    const std::uint64_t before = sender_->bytes_sent();
    const PageSet sent = MIGRATE_TRY(sender_->send(link, with_room(written)));
    ever_ = join(ever_, sent);
    staged_ = join(staged_, sent);
    const std::int64_t until_us = now_us();
    written = MIGRATE_TRY(tracker_.take_written());
    staged_ = without(staged_, written);
    end_ = rounds_->note({.sent_pages = page_total(sent),
                          .sent_bytes = sender_->bytes_sent() - before,
                          .took_us = until_us - since_us,
                          .written_pages = page_total(written)});
    since_us = until_us;
    options.on_round();
    MIGRATE_TRY(options.still_wanted());
  }
  return {};
}

Result<void> CopyAhead::find_kept(const PageSet& lost) {
  kept_ = without(common(staged_, MIGRATE_TRY(tracker_.unwritten())), lost);
  return {};
}

nlohmann::json CopyAhead::report() const {
  nlohmann::json each = nlohmann::json::array();
  for (const Round& round : rounds_ ? rounds_->all() : std::vector<Round>()) {
    each.push_back({{"pages", round.sent_pages},
                    {"bytes", round.sent_bytes},
                    {"us", round.took_us},
                    {"written_pages", round.written_pages}});
  }
  const std::uint64_t ever = page_total(ever_);
  const std::uint64_t kept = page_total(kept_);
  return {
      {"count", each.size()},
      {"each", std::move(each)},
      {"ended_by", end_ ? nlohmann::json(std::string(to_string(*end_))) : nullptr},
      {"bytes", sender_ ? sender_->bytes_sent() : 0},
      {"bytes_per_second", static_cast<std::uint64_t>(rounds_ ? rounds_->send_rate() : 0)},
      {"written_bytes_per_second", static_cast<std::uint64_t>(rounds_ ? rounds_->dirty_rate() : 0)},
      {"staged_pages", ever},
      {"used_pages", kept},
      {"dropped_pages", ever - kept}};
}

}  // namespace migrate
