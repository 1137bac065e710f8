#include "pager/staging.h"

namespace migrate {
namespace {

Error out_of_order() {
  return make_error(ErrorCode::kCorrupt, "take in pages ahead of their process", {},
                    "a message out of order");
}

}  // namespace

Result<bool> Staging::take(PageLink& link, std::span<const std::byte> message) {
  const MessageType type = MIGRATE_TRY(message_type(message));
  if (keeping_ && type != MessageType::kKept) {
    return fail(out_of_order());
  }
  switch (type) {
    case MessageType::kPush:
      MIGRATE_TRY(parse_push(message, push_));
      MIGRATE_TRY(pager_.stage(push_, memory_.get(), most_pages_));
      return false;
    case MessageType::kPushEnd: {
      const PageControl end = MIGRATE_TRY(parse_control(message));
      MIGRATE_TRY(end_round(link, end.sequence));
      return false;
    }
    case MessageType::kKept:
      MIGRATE_TRY(parse_kept(message, view_));
      MIGRATE_TRY(note_kept(view_));
      return view_.last;
    default:
      return fail(out_of_order());
  }
}

Result<void> Staging::end_round(PageLink& link, std::uint64_t sequence) {
  ++rounds_;
  PageControl confirm;
  confirm.type = MessageType::kConfirm;
  confirm.sequence = sequence;
  const std::span<const std::byte> part = message_bytes(confirm);
  return link.send(std::span(&part, 1));
}

// However many messages there are: no page is listed twice, so that what the list takes is bounded
// by what was staged, which is looked at when it is used.
Result<void> Staging::note_kept(const PresenceView& view) {
  if (view.covered.start < kept_until_) {
    return fail(out_of_order());
  }
  keeping_ = true;
  kept_until_ = view.covered.end();
  for (const PageRange& range : view.ranges) {
    append_to(kept_, range);
  }
  if (page_total(view.ranges) > most_pages_ || kept_.size() > most_pages_) {
    return fail(make_error(ErrorCode::kCorrupt, "take in pages ahead of their process", {},
                           "more pages are kept than were taken"));
  }
  return {};
}

}  // namespace migrate
