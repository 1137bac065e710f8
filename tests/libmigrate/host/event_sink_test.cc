#include "libmigrate/host/event_sink.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string>

#include "base/file.h"
#include "libmigrate/host/refusals_json.h"
#include "libmigrate/requests/request_json.h"

namespace migrate {
namespace {

using nlohmann::json;

class EventSinkTest : public testing::Test {
 protected:
  EventSinkTest() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
    sink_ = EventSink(UniqueFd(ends[0]));
    client_.reset(ends[1]);
  }
  void say(std::string_view text) {
    ASSERT_TRUE(write_all(client_.get(), std::as_bytes(std::span(text))));
  }

  EventSink sink_;
  UniqueFd client_;
};

TEST_F(EventSinkTest, AClientMayCancel) {
  EXPECT_FALSE(sink_.cancel_asked());
  say(kCancel.substr(0, 5));
  EXPECT_FALSE(sink_.cancel_asked());
  say(kCancel.substr(5));
  EXPECT_TRUE(sink_.cancel_asked());
  EXPECT_TRUE(sink_.cancel_asked()) << "it is not forgotten";
}

TEST_F(EventSinkTest, AClientThatWentAwayOrSaysOtherThingsCancelsNothing) {
  say("cancel");
  say(std::string(10'000, 'x'));
  EXPECT_FALSE(sink_.cancel_asked());
  client_.reset();
  EXPECT_FALSE(sink_.cancel_asked());
  EXPECT_FALSE(EventSink().cancel_asked());
}

TEST_F(EventSinkTest, ARefusalIsOneEverywhere) {
  sink_.finish_refused("NOT_PERMITTED", make_error(ErrorCode::kRefused, "use", "process 7", "ask"));
  const json result = json::parse(read_all(client_.get(), "read").value());
  EXPECT_EQ(result["exit"], MIGRATE_REFUSED);
  EXPECT_EQ(result["refusals"].size(), 1U);
  EXPECT_EQ(result["refusals"][0]["code"], "NOT_PERMITTED");
  EXPECT_EQ(result["refusals"][0]["object"], "process 7");
  EXPECT_EQ(result["error"]["code"], "refused");
}

TEST_F(EventSinkTest, AClientHearsALineOfEachAndTheResultLast) {
  EXPECT_TRUE(sink_.open());
  sink_.send({{"event", "progress"}, {"text", "two\nlines"}});
  sink_.finish(3, {{"state", "refused"}});
  EXPECT_FALSE(sink_.open());
  EXPECT_EQ(read_all(client_.get(), "read").value(),
            "{\"event\":\"progress\",\"text\":\"two\\nlines\"}\n"
            "{\"event\":\"result\",\"exit\":3,\"state\":\"refused\"}\n");
}

TEST_F(EventSinkTest, AnErrorIsToldToPeopleAndPrograms) {
  const Error error = make_error(ErrorCode::kNotFound, "find", "process 7");
  sink_.finish_failed(1, error);
  const auto told = nlohmann::json::parse(read_all(client_.get(), "read").value());
  EXPECT_EQ(told["event"], "result");
  EXPECT_EQ(told["exit"], 1);
  EXPECT_EQ(told["error"]["code"], to_string(ErrorCode::kNotFound));
  EXPECT_EQ(told["error"]["message"], error.message());
}

TEST_F(EventSinkTest, BytesThatAreNoTextDoNotBreakTheLine) {
  sink_.finish(0, {{"command", "a\xff\xfe"}});
  const auto told = nlohmann::json::parse(read_all(client_.get(), "read").value());
  EXPECT_EQ(told["command"], "a\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST_F(EventSinkTest, AClientThatWentAwayIsNoError) {
  ::signal(SIGPIPE, SIG_IGN);  // As in every worker.
  client_.reset();
  sink_.send({{"event", "progress"}});
  EXPECT_FALSE(sink_.open());
  sink_.send({{"event", "progress"}});
  sink_.finish(0, nlohmann::json::object());
  EventSink nobody;
  EXPECT_FALSE(nobody.open());
  nobody.finish(0, nlohmann::json::object());
}

TEST(RefusalsJson, ThoseOfOneCodeAreToldOnce) {
  Refusals refusals{make_refusal("SOCKET", "first"), make_refusal("CHILDREN", "child")};
  constexpr int kMany = 40;
  for (int i = 0; i < kMany; ++i) {
    refusals.push_back(make_refusal("SOCKET", std::to_string(i)));
  }
  const json list = to_json(refusals);
  ASSERT_EQ(list.size(), 2U);
  EXPECT_EQ(list[0]["object"], "first");
  EXPECT_EQ(list[0]["count"], kMany + 1);
  EXPECT_EQ(list[0]["others"].size(), 15U);
  EXPECT_EQ(list[0]["others"][0], "0");
  EXPECT_EQ(list[1]["count"], 1);
  EXPECT_FALSE(list[1].contains("others"));
}

}  // namespace
}  // namespace migrate
