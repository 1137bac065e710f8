// Peers that lie: what they send ends their link at most, and a link to an honest peer then goes on
// as if nothing had been said.

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <cstring>
#include <functional>
#include <thread>

#include "tests/pager/moved_memory.h"

namespace migrate::test {
namespace {

// Made before any thread: what the library does to make it only once, ThreadSanitizer cannot see.
[[maybe_unused]] const auto kLogger = spdlog::default_logger();

constexpr std::uint64_t kServedPages = 64;
constexpr int kAnswerMs = 10'000;

template <class T>
std::vector<std::byte> bytes_of(const T& value, std::size_t extra_bytes = 0) {
  std::vector<std::byte> bytes(sizeof(value) + extra_bytes, std::byte{0xee});
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

void send(PageLink& link, const std::vector<std::byte>& message) {
  const std::span<const std::byte> part(message);
  static_cast<void>(link.send(std::span(&part, 1)));
}

/// Page 0 is zero at the source, the others are filled. The job touches page 0 first.
class MaliciousPeer : public testing::Test {
 protected:
  void SetUp() override {
    memory_.start_source([this] { fill(memory_.page(1), kServedPages - 1); });
    memory_.start_destination([this] {
      expect_zero(memory_.base(), 1);
      expect_filled(memory_.page(1), kServedPages - 1);
    });
    memory_.connect(Mode::kDemand);
    memory_.break_links();
    // Both, or one that is noticed late would pass for the end of a liar's link.
    EXPECT_TRUE(reaches_links_lost(2));
  }

  std::uint64_t address(std::uint64_t page) const {
    return reinterpret_cast<std::uint64_t>(memory_.page(page));
  }

  /// From now on the test is the source.
  void take_over() {
    auto [urgent, our_urgent] = make_link_pair();
    auto [bulk, our_bulk] = make_link_pair();
    urgent_ = std::move(our_urgent);
    bulk_ = std::move(our_bulk);
    lost_before_ = memory_.links_lost();
    ASSERT_TRUE(memory_.pager().resume(std::move(urgent), std::move(bulk)));
    memory_.release();
    const auto message = urgent_->receive(0, kAnswerMs);
    ASSERT_TRUE(message);
    const auto request = parse_request(*message);
    ASSERT_TRUE(request);
    request_ = *request;
  }

  bool reaches_links_lost(int count) const {
    for (int i = 0; i < kAnswerMs && memory_.links_lost() < count; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return memory_.links_lost() >= count;
  }

  void expect_link_ends() { EXPECT_TRUE(reaches_links_lost(lost_before_ + 1)); }

  /// What an honest source would answer: the pager may know already that page 0 is zero.
  std::vector<std::byte> true_reply() const;

  void expect_an_honest_source_goes_on() {
    urgent_.reset();
    bulk_.reset();
    memory_.reconnect();
    memory_.server().start_push();
    memory_.expect_job_succeeds();
    memory_.expect_done();
  }

  MovedMemory memory_{kServedPages};
  std::unique_ptr<SocketLink> urgent_;
  std::unique_ptr<SocketLink> bulk_;
  PageRequest request_;
  int lost_before_ = 0;
};

ReplyHeader reply_to(const PageRequest& request) {
  ReplyHeader reply;
  reply.tag = request.tag;
  reply.address = request.address;
  reply.page_count = 1;
  return reply;
}

std::vector<std::byte> MaliciousPeer::true_reply() const {
  ReplyHeader reply = reply_to(request_);
  if (request_.address == address(0)) {
    reply.kind = PageKind::kZero;
    return bytes_of(reply);
  }
  std::vector<std::byte> bytes = bytes_of(reply);
  std::vector<std::byte> content(kPageBytes);
  fill(content.data(), 1, 0, memory_.page((request_.address - address(0)) / kPageBytes));
  bytes.insert(bytes.end(), content.begin(), content.end());
  return bytes;
}

struct Lie {
  const char* name;
  bool urgent;
  std::function<std::vector<std::byte>(const PageRequest&)> message;
};

void PrintTo(const Lie& lie, std::ostream* stream) {
  *stream << lie.name;
}

class LyingSource : public MaliciousPeer, public testing::WithParamInterface<Lie> {};

TEST_P(LyingSource, LosesItsLinkAndNothingElse) {
  take_over();
  send(GetParam().urgent ? *urgent_ : *bulk_, GetParam().message(request_));
  expect_link_ends();
  expect_an_honest_source_goes_on();
}

const Lie kLies[] = {
    {"ReplyNeverAskedFor", true,
     [](const PageRequest& request) {
       ReplyHeader reply = reply_to(request);
       reply.tag += 1;
       return bytes_of(reply, kPageBytes);
     }},
    {"ReplyForAnotherPage", true,
     [](const PageRequest& request) {
       ReplyHeader reply = reply_to(request);
       reply.address += kPageBytes;
       return bytes_of(reply, kPageBytes);
     }},
    {"ReplyOutsideTheProcess", true,
     [](const PageRequest& request) {
       ReplyHeader reply = reply_to(request);
       reply.address = 0x1000;
       return bytes_of(reply, kPageBytes);
     }},
    {"ReplyWithMorePages", true,
     [](const PageRequest& request) {
       ReplyHeader reply = reply_to(request);
       reply.page_count = 2;
       return bytes_of(reply, 2 * kPageBytes);
     }},
    {"ReplyThatIsTooShort", true,
     [](const PageRequest& request) { return bytes_of(reply_to(request), 100); }},
    {"ReplyWithoutAHeader", true, [](const PageRequest&) { return std::vector<std::byte>(3); }},
    {"PushThatIsTooShort", false,
     [](const PageRequest&) {
       PushHeader push;
       push.run_count = 200;
       return bytes_of(push, 40);
     }},
    {"PushBetweenPages", false,
     [](const PageRequest& request) {
       PushHeader push;
       push.run_count = 1;
       auto message = bytes_of(push, sizeof(PushRun) + kPageBytes);
       const PushRun run{request.address + 8, 1, PageKind::kData};
       std::memcpy(message.data() + sizeof(push), &run, sizeof(run));
       return message;
     }},
    {"PresenceOfTheWholeWorld", false,
     [](const PageRequest&) {
       PresenceHeader presence;
       presence.covered_end = ~0xfffULL;
       return bytes_of(presence);
     }},
    {"RequestFromTheSource", false, [](const PageRequest& request) { return bytes_of(request); }},
};

INSTANTIATE_TEST_SUITE_P(All, LyingSource, testing::ValuesIn(kLies),
                         [](const auto& lie) { return std::string(lie.param.name); });

TEST_F(MaliciousPeer, ADuplicateReplyEndsTheLink) {
  take_over();
  send(*urgent_, true_reply());
  send(*urgent_, true_reply());
  expect_link_ends();
  expect_an_honest_source_goes_on();
}

TEST_F(MaliciousPeer, PushesOutsideTheProcessGoNowhere) {
  // A page may have been unmapped since it was sent, so that this is no lie by itself.
  take_over();
  PushHeader push;
  push.run_count = 1;
  push.sequence = 1;
  auto message = bytes_of(push, sizeof(PushRun) + kPageBytes);
  const PushRun run{0x1000, 1, PageKind::kData};
  std::memcpy(message.data() + sizeof(push), &run, sizeof(run));
  send(*bulk_, message);
  expect_an_honest_source_goes_on();
}

/// What a destination can say to a page server.
class LyingDestination : public MaliciousPeer {
 protected:
  template <class Serve>
  void converse(Serve serve) {
    auto [ours, theirs] = make_link_pair();
    urgent_ = std::move(ours);
    server_link_ = std::move(theirs);
    server_ = std::thread([this, serve] { result_ = serve(memory_.server(), *server_link_); });
  }
  void expect_server_ends() {
    server_.join();
    ASSERT_FALSE(result_);
    EXPECT_EQ(result_.error().code, ErrorCode::kCorrupt);
    EXPECT_TRUE(memory_.server().take_confirmed().empty());
    memory_.release();
    expect_an_honest_source_goes_on();
  }
  static Result<void> serve_urgent(PageServer& server, PageLink& link) {
    return server.serve_urgent(link);
  }

  std::unique_ptr<SocketLink> server_link_;
  std::thread server_;
  Result<void> result_;
};

TEST_F(LyingDestination, GetsNoPageOutsideTheProcess) {
  converse(serve_urgent);
  for (const std::uint64_t start :
       {std::uint64_t{0x1000}, address(kServedPages), address(0) - kPageBytes}) {
    PageRequest request;
    request.address = start;
    request.page_count = 1;
    send(*urgent_, bytes_of(request));
    const auto message = urgent_->receive(0, kAnswerMs);
    ASSERT_TRUE(message);
    const auto reply = parse_reply(*message);
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->header.kind, PageKind::kError);
    EXPECT_TRUE(reply->content.empty());
  }
  send(*urgent_, std::vector<std::byte>(1));
  expect_server_ends();
}

TEST_F(LyingDestination, LosesItsLinkByARequestThatCannotBe) {
  converse(serve_urgent);
  PageRequest request;
  request.address = address(0);
  request.page_count = kMaxRequestPages + 1;
  send(*urgent_, bytes_of(request));
  expect_server_ends();
}

TEST_F(LyingDestination, ConfirmsNothingThatWasNotSent) {
  converse([](PageServer& server, PageLink& link) { return server.push(link); });
  PageControl confirm;
  confirm.type = MessageType::kConfirm;
  confirm.sequence = 1000;
  send(*urgent_, bytes_of(confirm));
  expect_server_ends();
}

}  // namespace
}  // namespace migrate::test
