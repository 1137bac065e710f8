#include "pager/page_protocol.h"

#include <cstring>
#include <utility>

namespace migrate {
namespace {

tl::unexpected<Error> corrupt(const char* operation, std::uint64_t address = 0) {
  Error error = make_error(ErrorCode::kCorrupt, operation);
  error.address = address;
  return fail(std::move(error));
}

/// Copies a struct from the front of `message` and moves on; false if it is too short.
template <class T>
bool take_struct(std::span<const std::byte>& message, T& value) {
  if (message.size() < sizeof(T)) {
    return false;
  }
  std::memcpy(&value, message.data(), sizeof(T));
  message = message.subspan(sizeof(T));
  return true;
}

bool known_kind(PageKind kind) {
  return kind == PageKind::kData || kind == PageKind::kZero || kind == PageKind::kError;
}

Result<void> parse_ranges(std::span<const std::byte> message, MessageType type,
                          PresenceView& view) {
  PresenceHeader header;
  if (!take_struct(message, header) || header.type != type || header.last > 1 ||
      header.reserved != 0 || header.range_count > kMaxPresenceRanges ||
      message.size() != header.range_count * sizeof(PageRange)) {
    return corrupt("read which pages are present");
  }
  view.covered = PageRange::between(header.covered_start, header.covered_end);
  if (header.covered_end % kPageBytes != 0 || header.covered_end < header.covered_start ||
      !view.covered.valid()) {
    return corrupt("read the range that presence covers", header.covered_start);
  }
  view.last = header.last == 1;
  view.ranges.resize(header.range_count);
  if (!view.ranges.empty()) {
    std::memcpy(view.ranges.data(), message.data(), message.size());
  }
  std::uint64_t from = view.covered.start;
  for (const PageRange& range : view.ranges) {
    if (range.empty() || !range.valid() || range.start < from || range.end() > view.covered.end()) {
      return corrupt("read a range of present pages", range.start);
    }
    from = range.end();
  }
  return {};
}

}  // namespace

Result<MessageType> message_type(std::span<const std::byte> message) {
  MessageType type{};
  if (!take_struct(message, type) || type < MessageType::kRequest || type > MessageType::kKept) {
    return corrupt("read the type of a page message");
  }
  return type;
}

Result<PageRequest> parse_request(std::span<const std::byte> message) {
  PageRequest request;
  if (!take_struct(message, request) || !message.empty() || request.type != MessageType::kRequest ||
      request.reserved != 0) {
    return corrupt("read a page request");
  }
  if (request.page_count == 0 || request.page_count > kMaxRequestPages ||
      !request.range().valid()) {
    return corrupt("read the range of a page request", request.address);
  }
  return request;
}

Result<ReplyView> parse_reply(std::span<const std::byte> message) {
  ReplyView view;
  if (!take_struct(message, view.header) || view.header.type != MessageType::kReply ||
      !known_kind(view.header.kind)) {
    return corrupt("read a page reply");
  }
  const PageRange range = view.header.range();
  if (range.empty() || range.page_count > kMaxRequestPages || !range.valid()) {
    return corrupt("read the range of a page reply", range.start);
  }
  const std::uint64_t expected = view.header.kind == PageKind::kData ? range.bytes() : 0;
  if (message.size() != expected) {
    return corrupt("read the content of a page reply", range.start);
  }
  view.content = message;
  return view;
}

Result<void> parse_presence(std::span<const std::byte> message, PresenceView& view) {
  return parse_ranges(message, MessageType::kPresence, view);
}

Result<void> parse_kept(std::span<const std::byte> message, PresenceView& view) {
  return parse_ranges(message, MessageType::kKept, view);
}

Result<void> parse_push(std::span<const std::byte> message, PushView& view) {
  PushHeader header;
  if (!take_struct(message, header) || header.type != MessageType::kPush || header.run_count == 0 ||
      header.run_count > kMaxPushRuns || message.size() < header.run_count * sizeof(PushRun)) {
    return corrupt("read pushed pages");
  }
  view.sequence = header.sequence;
  view.runs.resize(header.run_count);
  const std::size_t runs_bytes = header.run_count * sizeof(PushRun);
  std::memcpy(view.runs.data(), message.data(), runs_bytes);
  view.content = message.subspan(runs_bytes);
  std::uint64_t data_pages = 0;
  for (const PushRun& run : view.runs) {
    if (run.page_count == 0 || run.page_count > kMaxPushPages || !run.range().valid() ||
        !known_kind(run.kind)) {
      return corrupt("read a run of pushed pages", run.address);
    }
    data_pages += run.kind == PageKind::kData ? run.page_count : 0;
  }
  if (data_pages > kMaxPushPages || view.content.size() != data_pages * kPageBytes) {
    return corrupt("read the content of pushed pages", view.runs.front().address);
  }
  return {};
}

Result<PageControl> parse_control(std::span<const std::byte> message) {
  PageControl control;
  const std::size_t size = message.size();
  if (!take_struct(message, control) || size != sizeof(control) || control.reserved != 0) {
    return corrupt("read a page control message");
  }
  switch (control.type) {
    case MessageType::kPushEnd:
    case MessageType::kConfirm:
      return control;
    case MessageType::kDone:
    case MessageType::kPushStart:
      if (control.sequence == 0) {
        return control;
      }
      break;
    default:
      break;
  }
  return corrupt("read a page control message");
}

}  // namespace migrate
