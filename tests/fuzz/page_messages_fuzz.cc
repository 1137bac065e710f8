// Messages between pager and page server: what a parser accepts keeps its promises.
#include <cstdlib>

#include "pager/page_protocol.h"

namespace migrate {
namespace {

void expect(bool condition) {
  if (!condition) {
    std::abort();
  }
}

void check_presence(const PresenceView& view) {
  std::uint64_t from = view.covered.start;
  for (const PageRange& range : view.ranges) {
    expect(!range.empty() && range.valid() && range.start >= from && view.covered.contains(range));
    from = range.end();
  }
}

void check_push(const PushView& view) {
  std::uint64_t bytes = 0;
  for (const PushRun& run : view.runs) {
    expect(run.range().valid() && run.page_count > 0);
    bytes += run.kind == PageKind::kData ? run.range().bytes() : 0;
  }
  expect(bytes == view.content.size());
}

void fuzz(std::span<const std::byte> message) {
  if (const auto request = parse_request(message)) {
    expect(request->range().valid() && request->page_count <= kMaxRequestPages);
  }
  if (const auto reply = parse_reply(message)) {
    const bool data = reply->header.kind == PageKind::kData;
    expect(reply->header.range().valid() &&
           reply->content.size() == (data ? reply->header.range().bytes() : 0));
  }
  PresenceView presence;
  if (parse_presence(message, presence)) {
    check_presence(presence);
  }
  PushView push;
  if (parse_push(message, push)) {
    check_push(push);
  }
  static_cast<void>(message_type(message));
  static_cast<void>(parse_control(message));
}

}  // namespace
}  // namespace migrate

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  migrate::fuzz(std::as_bytes(std::span(data, size)));
  return 0;
}
