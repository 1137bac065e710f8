#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "pager/page_range.h"

// Messages between pager (destination) and page server (source). One line is one message of a
// PageLink; integers are little-endian; addresses are those of the source process, in bytes.
//
//   urgent link, destination to source:
//     request   := type:u32=1 tag:u32 address:u64 page_count:u32 reserved:u32=0
//   urgent link, source to destination; one or more per request, together covering it in order:
//     reply     := type:u32=2 tag:u32 address:u64 page_count:u32 kind:u32 content
//   bulk link, source to destination, in this order:
//     presence  := type:u32=3 last:u32 covered_start:u64 covered_end:u64 range_count:u32
//     reserved:u32=0
//                  (start:u64 page_count:u64){range_count}
//     push      := type:u32=4 run_count:u32 sequence:u64
//                  (address:u64 page_count:u32 kind:u32){run_count} content{run_count}
//     push_end  := type:u32=5 reserved:u32=0 sequence:u64
//   bulk link, source to destination, before all these and while the process still runs at the
//   source (modes precopy and hybrid): pushes without errors, a push_end after each round of them,
//   which is confirmed, and once the process is frozen
//     kept      := type:u32=9, all else as presence
//   bulk link, destination to source:
//     confirm   := type:u32=6 reserved:u32=0 sequence:u64
//     done      := type:u32=7 reserved:u32=0 sequence:u64=0
//     push_start:= type:u32=8 reserved:u32=0 sequence:u64=0
//   content is page_count * 4096 bytes where kind is data (0), and nothing where kind is zero (1)
//   or error (2: the source cannot read these pages).
//
// What lies in [covered_start, covered_end) and in none of the ranges does not exist at the source.
// What was pushed while the process ran and lies in none of the ranges of kept must not be used.
// confirm{s}: every push up to s is installed; the source may free those pages.

namespace migrate {

static_assert(std::endian::native == std::endian::little, "message structs are used as bytes");

inline constexpr std::uint32_t kMaxRequestPages = 256;  ///< Of one request.
inline constexpr std::uint32_t kMaxPushPages = 256;     ///< With content, of one push: 1 MiB.
inline constexpr std::uint32_t kMaxPushRuns = 256;
inline constexpr std::uint32_t kMaxPresenceRanges = 1U << 16U;

enum class MessageType : std::uint32_t {
  kRequest = 1,
  kReply,
  kPresence,
  kPush,
  kPushEnd,
  kConfirm,
  kDone,
  kPushStart,
  kKept,
};

enum class PageKind : std::uint32_t { kData = 0, kZero = 1, kError = 2 };

struct PageRequest {
  MessageType type = MessageType::kRequest;
  std::uint32_t tag = 0;  ///< Comes back in the replies.
  std::uint64_t address = 0;
  std::uint32_t page_count = 0;
  std::uint32_t reserved = 0;

  PageRange range() const { return {address, page_count}; }
};
static_assert(sizeof(PageRequest) == 24);

struct ReplyHeader {
  MessageType type = MessageType::kReply;
  std::uint32_t tag = 0;
  std::uint64_t address = 0;
  std::uint32_t page_count = 0;
  PageKind kind = PageKind::kData;

  PageRange range() const { return {address, page_count}; }
};
static_assert(sizeof(ReplyHeader) == 24);

/// presence, kept.
struct PresenceHeader {
  MessageType type = MessageType::kPresence;
  std::uint32_t last = 0;
  std::uint64_t covered_start = 0;
  std::uint64_t covered_end = 0;
  std::uint32_t range_count = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(PresenceHeader) == 32);
static_assert(sizeof(PageRange) == 16);

struct PushHeader {
  MessageType type = MessageType::kPush;
  std::uint32_t run_count = 0;
  std::uint64_t sequence = 0;
};
static_assert(sizeof(PushHeader) == 16);

struct PushRun {
  std::uint64_t address = 0;
  std::uint32_t page_count = 0;
  PageKind kind = PageKind::kData;

  PageRange range() const { return {address, page_count}; }
};
static_assert(sizeof(PushRun) == 16);

/// push_end, confirm, done, push_start.
struct PageControl {
  MessageType type = MessageType::kDone;
  std::uint32_t reserved = 0;
  std::uint64_t sequence = 0;
};
static_assert(sizeof(PageControl) == 16);

/// The bytes of one message struct, borrowed.
template <class T>
std::span<const std::byte> message_bytes(const T& message) {
  return std::as_bytes(std::span<const T, 1>(&message, 1));
}

struct ReplyView {
  ReplyHeader header;
  std::span<const std::byte> content;  ///< Borrowed from the message.
};

struct PresenceView {
  PageRange covered;
  bool last = false;
  std::vector<PageRange> ranges;  ///< Ascending, apart from each other, inside `covered`.
};

struct PushView {
  std::uint64_t sequence = 0;
  std::vector<PushRun> runs;           ///< Ascending is not required.
  std::span<const std::byte> content;  ///< Of the data runs, one after the other; borrowed.
};

/// The type of a message, or kCorrupt when it has none.
Result<MessageType> message_type(std::span<const std::byte> message);

/// The parsers check everything that can be checked without knowing the regions: lengths, counts,
/// kinds, addresses. They never trust a count before the length. Errors: kCorrupt.
Result<PageRequest> parse_request(std::span<const std::byte> message);
Result<ReplyView> parse_reply(std::span<const std::byte> message);
/// parse_presence and parse_push reuse the vectors of `view`.
Result<void> parse_presence(std::span<const std::byte> message, PresenceView& view);
/// The same of kept.
Result<void> parse_kept(std::span<const std::byte> message, PresenceView& view);
Result<void> parse_push(std::span<const std::byte> message, PushView& view);
/// push_end, confirm, done and push_start.
Result<PageControl> parse_control(std::span<const std::byte> message);

}  // namespace migrate
