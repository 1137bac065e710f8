#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/move/control_channel.h"
#include "libmigrate/move/kept_memory.h"
#include "libmigrate/proto/image.pb.h"
#include "pager/page_protocol.h"
#include "transport/channel.h"
#include "transport/memory_channel.h"
#include "transport/preamble.h"

namespace migrate::handover_testing {

using Body = wire::ControlMessage::BodyCase;

/// A few pages of this process, which stand for those of a frozen one.
class StandInMemory final : public KeptMemory {
 public:
  static constexpr std::uint64_t kPages = 4;

  StandInMemory()
      : bytes_(::mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    std::memset(bytes_, 7, kPages * kPageBytes);
    wire::Mapping& mapping = *mutable_only_process(image_).add_mappings();
    mapping.set_start(start());
    mapping.set_end(start() + kPages * kPageBytes);
    mapping.set_kind(wire::Mapping::ANONYMOUS);
  }
  ~StandInMemory() override { ::munmap(bytes_, kPages * kPageBytes); }

  std::uint64_t start() const { return reinterpret_cast<std::uint64_t>(bytes_); }

  Result<std::unique_ptr<PageFeed>> make_feed(const PageServerOptions& options) override {
    ++feeds;
    fed_with = options;
    return gone ? fail(make_error(ErrorCode::kNotFound, "read the memory"))
                : PageFeed::create(::getpid(), open_file("/proc/self/mem", O_RDONLY).value(),
                                   image_, options);
  }
  void note_confirmed(std::size_t, const std::vector<PageRange>& ranges) override {
    for (const PageRange& range : ranges) {
      confirmed_pages += range.page_count;
    }
  }
  void leave(std::size_t) override { ++left; }

  int feeds = 0;
  PageServerOptions fed_with;  // the last feed
  std::uint64_t confirmed_pages = 0;
  int left = 0;
  bool gone = false;

 private:
  void* bytes_;
  wire::Image image_;
};

/// The far end of one connection.
class FarEnd {
 public:
  explicit FarEnd(std::unique_ptr<Channel> channel) : channel_(std::move(channel)) {}

  void send(std::span<const std::byte> bytes) { ASSERT_TRUE(channel_->send_one(bytes)); }
  /// The next message; empty if the source has closed the connection, or says nothing.
  std::string receive(int timeout_ms) {
    auto message = channel_->receive(0, timeout_ms);
    return message ? std::string(reinterpret_cast<const char*>(message->data()), message->size())
                   : std::string();
  }
  bool is_closed() {
    auto message = channel_->try_receive();
    return !message && message.error().code == ErrorCode::kPeerLost;
  }
  void cut() { channel_->shutdown(); }

 private:
  std::unique_ptr<Channel> channel_;
};

/// A destination without a process: what it is to say on its next control connection is `says`.
class StandInDestination {
 public:
  static constexpr int kLookMs = 2000;

  Result<std::unique_ptr<Channel>> connect(Purpose purpose, const SessionId& session) {
    purposes.push_back(purpose);
    sessions.push_back(session);
    if (unreachable || refused == purpose) {
      return fail(make_error(ErrorCode::kPeerLost, "connect to", "the stand-in"));
    }
    auto [here, there] = MIGRATE_TRY(make_memory_channels());
    if (purpose == Purpose::kUrgent) {
      urgent.emplace(std::move(there));
    } else if (purpose == Purpose::kBulk) {
      bulk.emplace(std::move(there));
    } else {
      control.emplace(std::move(there), "source");
      for (const wire::ControlMessage& message : std::exchange(says, {})) {
        EXPECT_TRUE(control->send(message));
      }
    }
    return std::move(here);
  }

  void say(const wire::ControlMessage& message) { EXPECT_TRUE(control->send(message)); }
  void say_nonsense() {
    const std::byte nonsense[] = {std::byte{9}, std::byte{9}};
    EXPECT_TRUE(control->channel().send_one(nonsense));
  }
  /// What the source says next; none if it has closed the connection.
  std::optional<wire::ControlMessage> hear(int timeout_ms = kLookMs) {
    auto message = control->receive(0, timeout_ms);
    return message ? std::optional(std::move(*message)) : std::nullopt;
  }
  /// Skips what the source says until that.
  bool hears(Body wanted) {
    for (auto message = hear(); message; message = hear()) {
      if (message->body_case() == wanted) {
        return true;
      }
    }
    return false;
  }
  bool hears_nothing() { return control->try_receive().value_or(std::nullopt) == std::nullopt; }
  void cut_control() { control->channel().shutdown(); }

  /// Takes everything that is pushed, and confirms it: all pages but those that were asked for.
  void take_pushes() {
    PushView push;
    for (std::string message = bulk->receive(kLookMs); !message.empty();
         message = bulk->receive(kLookMs)) {
      const auto bytes = std::as_bytes(std::span(message));
      const MessageType type = message_type(bytes).value();
      if (type == MessageType::kPush) {
        EXPECT_TRUE(parse_push(bytes, push));
        for (const PushRun& run : push.runs) {
          confirmed_pages += run.page_count;
        }
      } else if (type == MessageType::kPushEnd) {
        PageControl confirm;
        confirm.type = MessageType::kConfirm;
        confirm.sequence = parse_control(bytes).value().sequence;
        bulk->send(message_bytes(confirm));
        return;
      }
    }
    ADD_FAILURE() << "nothing was pushed";
  }
  /// Asks for the page at `address`, and gets it.
  bool gets_page(std::uint64_t address) {
    PageRequest request;
    request.address = address;
    request.page_count = 1;
    urgent->send(message_bytes(request));
    const std::string reply = urgent->receive(kLookMs);
    return reply.size() == sizeof(ReplyHeader) + kPageBytes && reply.back() == 7;
  }

  std::size_t count(Purpose purpose) const {
    return static_cast<std::size_t>(std::count(purposes.begin(), purposes.end(), purpose));
  }

  std::vector<wire::ControlMessage> says;
  bool unreachable = false;
  std::optional<Purpose> refused;
  std::vector<Purpose> purposes;
  std::vector<SessionId> sessions;
  std::optional<ControlChannel> control;
  std::optional<FarEnd> urgent;
  std::optional<FarEnd> bulk;
  std::uint64_t confirmed_pages = 0;
};

// What a destination says. Its incarnation is "first".
wire::ControlMessage offer_reply();
wire::ControlMessage connected();
wire::ControlMessage restored();
wire::ControlMessage running();
wire::ControlMessage failed();
wire::ControlMessage progress(std::uint64_t owed_pages, bool done = false);
wire::ControlMessage verdict(wire::Verdict::Fate fate, const std::string& incarnation);

}  // namespace migrate::handover_testing
