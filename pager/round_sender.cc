#include "pager/round_sender.h"

#include <algorithm>
#include <array>
#include <thread>
#include <utility>

#include "pager/internal/page_runs.h"

namespace migrate {
namespace {

constexpr int kConfirmLookMs = 200;
constexpr int kConfirmTimeoutMs = 30'000;
constexpr std::chrono::milliseconds kLongestPause{20};

}  // namespace

RoundSender::RoundSender(PageReader& reader, std::uint64_t bytes_per_second,
                         std::function<Result<void>()> still_wanted, Mapping buffer)
    : reader_(reader),
      still_wanted_(std::move(still_wanted)),
      buffer_(std::move(buffer)),
      pace_(bytes_per_second, std::chrono::milliseconds(0)) {}

Result<RoundSender> RoundSender::create(PageReader& reader, std::uint64_t bytes_per_second,
                                        std::function<Result<void>()> still_wanted) {
  return RoundSender(reader, bytes_per_second, std::move(still_wanted),
                     MIGRATE_TRY(Mapping::create(kMaxPushPages * kPageBytes)));
}

Result<PageSet> RoundSender::send(PageLink& link, const PageSet& pages) {
  PageSet sent;
  std::vector<PageRange> batch;
  std::uint64_t room = kMaxPushPages;
  std::uint64_t left_bytes = page_total(pages) * kPageBytes;
  const auto flush = [&]() -> Result<void> {
    MIGRATE_TRY(still_wanted_());
    MIGRATE_TRY(await_turn(left_bytes));
    MIGRATE_TRY(send_batch(link, batch, sent));
    left_bytes -= page_total(batch) * kPageBytes;
    batch.clear();
    room = kMaxPushPages;
    return {};
  };
  for (PageRange range : pages) {
    while (!range.empty()) {
      const PageRange piece{range.start, std::min(range.page_count, room)};
      batch.push_back(piece);
      room -= piece.page_count;
      range = PageRange::between(piece.end(), range.end());
      if (room == 0) {
        MIGRATE_TRY(flush());
      }
    }
  }
  if (!batch.empty()) {
    MIGRATE_TRY(flush());
  }
  PageControl end;
  end.type = MessageType::kPushEnd;
  end.sequence = sequence_;
  const std::span<const std::byte> part = message_bytes(end);
  MIGRATE_TRY(link.send(std::span(&part, 1)));
  MIGRATE_TRY(await_confirmation(link));
  return sent;
}

Result<void> RoundSender::await_turn(std::uint64_t bytes_left) {
  for (;;) {
    const auto wait = pace_.wait_for(Pace::Clock::now(), bytes_left);
    if (wait <= Pace::Clock::duration::zero()) {
      return {};
    }
    std::this_thread::sleep_for(std::min<Pace::Clock::duration>(wait, kLongestPause));
    MIGRATE_TRY(still_wanted_());
  }
}

Result<void> RoundSender::send_batch(PageLink& link, const std::vector<PageRange>& ranges,
                                     PageSet& sent) {
  // What cannot be read was unmapped since, or is no memory: it is not sent.
  MIGRATE_TRY(read_runs(reader_, ranges, buffer_.bytes(), runs_));
  std::erase_if(runs_, [](const PushRun& run) { return run.kind == PageKind::kError; });
  // Each range may have become several runs, of which a message holds so many.
  const std::byte* content = buffer_.bytes().data();
  for (std::span<const PushRun> left(runs_); !left.empty();) {
    const auto some = left.first(std::min<std::size_t>(left.size(), kMaxPushRuns));
    left = left.subspan(some.size());
    PushHeader header;
    header.run_count = static_cast<std::uint32_t>(some.size());
    header.sequence = ++sequence_;
    std::size_t bytes = 0;
    for (const PushRun& run : some) {
      bytes += run.kind == PageKind::kData ? run.range().bytes() : 0;
      append_to(sent, run.range());
    }
    const std::array<std::span<const std::byte>, 3> parts{
        message_bytes(header), std::as_bytes(some), std::span(content, bytes)};
    MIGRATE_TRY(link.send(std::span(parts).first(bytes > 0 ? 3 : 2)));
    content += bytes;
    bytes_sent_ += sizeof(header) + some.size_bytes() + bytes;
    pace_.sent(Pace::Clock::now(), bytes);
  }
  return {};
}

Result<void> RoundSender::await_confirmation(PageLink& link) {
  for (int waited_ms = 0; waited_ms < kConfirmTimeoutMs; waited_ms += kConfirmLookMs) {
    MIGRATE_TRY(still_wanted_());
    const auto message = link.receive(0, kConfirmLookMs);
    if (!message && message.error().code == ErrorCode::kRetry) {
      continue;
    }
    const PageControl control =
        MIGRATE_TRY(parse_control(MIGRATE_TRY(Result<std::span<const std::byte>>(message))));
    if (control.type != MessageType::kConfirm || control.sequence != sequence_) {
      return fail(make_error(ErrorCode::kCorrupt, "wait until a round has arrived"));
    }
    return {};
  }
  return fail(make_error(ErrorCode::kRetry, "wait until a round has arrived"));
}

Result<void> RoundSender::send_kept(PageLink& link, const PageSet& kept) {
  std::uint64_t from = kept.empty() ? 0 : kept.front().start;
  std::size_t sent = 0;
  do {
    const std::size_t count = std::min<std::size_t>(kept.size() - sent, kMaxPresenceRanges);
    PresenceHeader header;
    header.type = MessageType::kKept;
    header.range_count = static_cast<std::uint32_t>(count);
    header.last = sent + count == kept.size() ? 1 : 0;
    header.covered_start = from;
    header.covered_end = count == 0 ? from : kept[sent + count - 1].end();
    const std::array<std::span<const std::byte>, 2> parts{
        message_bytes(header), std::as_bytes(std::span(kept).subspan(sent, count))};
    MIGRATE_TRY(link.send(std::span(parts).first(count > 0 ? 2 : 1)));
    from = header.covered_end;
    sent += count;
  } while (sent < kept.size());
  return {};
}

}  // namespace migrate
