#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "libmigrate/requests/request_json.h"
#include "tests/base/code_of.h"

namespace migrate {
namespace {

using nlohmann::json;
using test::code_of;

/// The error of a request for a move with one member more, or instead.
std::string error_with(const char* member, const json& value) {
  json request = {{"command", "move"}, {"destination", "b:7070"}};
  request[member] = value;
  const auto move = request_as<MoveRequest>(request);
  EXPECT_FALSE(move) << request.dump();
  if (move) {
    return {};
  }
  EXPECT_EQ(move.error().code, ErrorCode::kInvalid);
  return move.error().message();
}

MoveRequest move_with(const char* member, const json& value) {
  const auto move = request_as<MoveRequest>({{"destination", "b:7070"}, {member, value}});
  EXPECT_TRUE(move) << move.error().message();
  return move ? *move : MoveRequest();
}

TEST(MovePlan, AModeIsWhatTheCodeAsks) {
  const MovePlan lazy = parse_mode("lazy").value();
  EXPECT_TRUE(lazy.push && lazy.prefetch && !lazy.all_before_run && !lazy.only_asks);
  const MovePlan demand = parse_mode("demand").value();
  EXPECT_TRUE(!demand.push && !demand.prefetch && !demand.all_before_run);
  const MovePlan eager = parse_mode("eager").value();
  EXPECT_TRUE(eager.push && eager.all_before_run);
  const MovePlan precopy = parse_mode("precopy").value();
  EXPECT_TRUE(precopy.rounds && precopy.push && precopy.all_before_run);
  const MovePlan hybrid = parse_mode("hybrid").value();
  EXPECT_TRUE(hybrid.rounds && hybrid.push && hybrid.prefetch && !hybrid.all_before_run);
  EXPECT_FALSE(lazy.rounds || demand.rounds || eager.rounds);
  EXPECT_EQ(lazy.word, "lazy");
  EXPECT_EQ(MovePlan().word, lazy.word);
}

TEST(MovePlan, OnlyAnOfferMayOnlyAsk) {
  EXPECT_NE(parse_mode("check").error().message().find("\"check\""), std::string::npos);
  EXPECT_TRUE(parse_offered_mode("check").value().only_asks);
  EXPECT_TRUE(check_plan().only_asks);
  EXPECT_EQ(check_plan().word, "check");
}

TEST(MovePlan, AModeThatIsNotKnownIsAnErrorEverywhere) {
  for (const char* word : {"", "Lazy", "lazy ", "postcopy", "checks"}) {
    EXPECT_EQ(parse_mode(word).error().code, ErrorCode::kInvalid) << word;
    EXPECT_EQ(parse_offered_mode(word).error().code, ErrorCode::kInvalid) << word;
  }
}

TEST(MovePlan, WhatAWorkerNotedIsGoneOnWith) {
  EXPECT_TRUE(noted_plan("eager").all_before_run);
  EXPECT_EQ(noted_plan("").word, "lazy");
  EXPECT_EQ(noted_plan("postcopy").word, "lazy");  // With a line in the log.
}

TEST(Requests, TellsWhatIsWanted) {
  for (const char* word :
       {"move", "check", "resolve", "end", "ps", "show", "wait", "hosts", "ping", "here"}) {
    EXPECT_EQ(command_of({{"command", word}}).value(), word);
    const auto asked =
        parse_any({{"command", word}, {"destination", "b:7070"}, {"action", "give-up"}});
    ASSERT_TRUE(asked) << word;
    EXPECT_EQ(std::visit([](const auto& each) { return word_of(each); }, *asked), word);
    EXPECT_EQ(request_for(parse_any(request_for(*asked)).value()), request_for(*asked));
  }
}

TEST(Requests, WhatIsNotKnownIsAnError) {
  for (const json& request : {json::object(), json{{"command", "moves"}}, json{{"command", 7}},
                              json::array({1}), json(), json("move")}) {
    EXPECT_EQ(parse_any(request).error().code, ErrorCode::kInvalid);
    EXPECT_EQ(command_of(request).error().code, ErrorCode::kInvalid) << request.dump();
    EXPECT_EQ(request_as<MoveRequest>(request).error().code, ErrorCode::kInvalid) << request.dump();
    EXPECT_EQ(request_as<ResolveRequest>(request).error().code, ErrorCode::kInvalid)
        << request.dump();
  }
  EXPECT_EQ(request_as<CheckRequest>(json()).error().code, ErrorCode::kInvalid);
}

TEST(Requests, AMoveHasDefaults) {
  const MoveRequest move = request_as<MoveRequest>({{"destination", "b:7070"}}).value();
  EXPECT_EQ(move.plan.word, "lazy");
  EXPECT_EQ(move.wait, MoveWait::kResumed);
  EXPECT_TRUE(move.transport.is_auto);
  EXPECT_EQ(move.retry_seconds, 0);
  EXPECT_FALSE(move.push.bytes_per_second);  // The host's where the process is.
  EXPECT_EQ(move.push.deadline.count(), 0);
}

TEST(Requests, AMoveSaysAllOfIt) {
  const MoveRequest move = request_as<MoveRequest>({{"destination", "b:7070"},
                                                    {"mode", "eager"},
                                                    {"wait", "exit"},
                                                    {"transport", "tcp"},
                                                    {"retry_seconds", 1.5},
                                                    {"bytes_per_second", 0},
                                                    {"deadline_seconds", 0.25}})
                               .value();
  EXPECT_TRUE(move.plan.all_before_run);
  EXPECT_EQ(move.wait, MoveWait::kExit);
  EXPECT_EQ(move.transport, parse_page_transport("tcp").value());
  EXPECT_EQ(move.retry_seconds, 1.5);
  EXPECT_EQ(move.push.bytes_per_second, 0U);
  EXPECT_EQ(move.push.deadline.count(), 250);
}

TEST(Requests, RoundsEndAsTheMoveSays) {
  const MoveRequest as_usual =
      request_as<MoveRequest>({{"destination", "b"}, {"mode", "hybrid"}}).value();
  EXPECT_EQ(as_usual.rounds.most, 5U);
  EXPECT_EQ(as_usual.rounds.downtime.count(), 10'000);
  const json wanted{{"destination", "b"}, {"mode", "precopy"}, {"rounds", 3}, {"downtime_us", 250}};
  const MoveRequest move = request_as<MoveRequest>(wanted).value();
  EXPECT_EQ(move.rounds.most, 3U);
  EXPECT_EQ(move.rounds.downtime.count(), 250);
  const MoveRequest passed_on = request_as<MoveRequest>(request_for(move)).value();
  EXPECT_EQ(passed_on.rounds.most, 3U);
  EXPECT_EQ(passed_on.rounds.downtime.count(), 250);
  for (const json& rounds : {json(0), json(1.5), json(1001), json("3"), json(-1)}) {
    EXPECT_NE(error_with("rounds", rounds).find("rounds"), std::string::npos) << rounds;
  }
  EXPECT_NE(error_with("downtime_us", -1).find("downtime_us"), std::string::npos);
}

TEST(Requests, ACheckIsOfAMode) {
  EXPECT_FALSE(request_as<CheckRequest>(json::object()).value().plan.rounds);
  EXPECT_FALSE(request_as<CheckRequest>({{"mode", "eager"}}).value().plan.rounds);
  const CheckRequest check = request_as<CheckRequest>({{"mode", "precopy"}}).value();
  EXPECT_TRUE(check.plan.rounds);
  EXPECT_TRUE(request_as<CheckRequest>(request_for(check)).value().plan.rounds);
  EXPECT_EQ(request_as<CheckRequest>({{"mode", "fast"}}).error().code, ErrorCode::kInvalid);
}

TEST(Requests, TheErrorNamesTheMemberWhatCameAndWhatMayCome) {
  const std::string mode = error_with("mode", "fast");
  EXPECT_NE(mode.find("fast"), std::string::npos);
  EXPECT_NE(mode.find("lazy, demand, eager, precopy, hybrid or auto"), std::string::npos);
  const std::string wait = error_with("wait", "ever");
  EXPECT_NE(wait.find("wait \"ever\""), std::string::npos);
  EXPECT_NE(wait.find("resumed, done, exit"), std::string::npos);
  EXPECT_NE(error_with("transport", "pigeon").find("pigeon"), std::string::npos);
  EXPECT_NE(error_with("destination", "").find("no destination"), std::string::npos);
  error_with("destination", "b:70700");
}

TEST(Requests, AMemberOfAnotherTypeIsAnError) {
  EXPECT_NE(error_with("mode", 7).find("mode"), std::string::npos);
  error_with("wait", json::array());
  error_with("transport", nullptr);
  error_with("destination", json::object());
  error_with("retry_seconds", "soon");
  error_with("bytes_per_second", true);
  error_with("deadline_seconds", json::array({1}));
}

TEST(Requests, ANumberThatCannotBeIsAnError) {
  error_with("retry_seconds", -1);
  error_with("bytes_per_second", -0.5);
  error_with("deadline_seconds", std::numeric_limits<double>::quiet_NaN());
  EXPECT_EQ(move_with("bytes_per_second", 1e300).push.bytes_per_second, 1'000'000'000'000'000U);
}

TEST(Requests, AnAddressOfATransportAsksForIt) {
  for (const PageTransport* const each : page_transports()) {
    const std::string word = each->word;
    const PageTransportChoice by_it = parse_page_transport(word).value();
    std::string destination = word + "://b:7070";
    EXPECT_EQ(settle_page_transport(destination, "auto").value(), by_it);
    const std::string settled = destination;
    EXPECT_EQ(settled.find(word), std::string::npos);
    EXPECT_EQ(settle_page_transport(destination, word).value(), by_it);
    EXPECT_EQ(destination, settled);  // Who reads it next settles it in the same way.
    destination = word + "://b:7070";
    EXPECT_FALSE(settle_page_transport(destination, "tcp"));
  }
}

TEST(Requests, ACheckMayNameADestination) {
  EXPECT_EQ(request_as<CheckRequest>({{"command", "check"}}).value().destination, "");
  EXPECT_EQ(request_as<CheckRequest>({{"destination", "b:7070"}}).value().destination, "b:7070");
  EXPECT_FALSE(request_as<CheckRequest>({{"destination", "b:port"}}));
  EXPECT_FALSE(request_as<CheckRequest>({{"destination", 7}}));
}

TEST(Requests, WhatLosesSomethingIsRefusedIfAsked) {
  EXPECT_FALSE(request_as<CheckRequest>({{"command", "check"}}).value().strict);
  EXPECT_TRUE(request_as<CheckRequest>({{"strict", true}}).value().strict);
  EXPECT_FALSE(request_as<CheckRequest>({{"strict", 1}}));
  CheckRequest check;
  check.strict = true;
  EXPECT_TRUE(request_as<CheckRequest>(request_for(check)).value().strict);
}

TEST(Requests, AnOperatorDecidesOneOfTwoThings) {
  EXPECT_EQ(request_as<ResolveRequest>({{"action", "give-up"}}).value().action,
            Resolution::kGiveUp);
  EXPECT_EQ(request_as<ResolveRequest>({{"action", "resume-source"}}).value().action,
            Resolution::kResumeSource);
  EXPECT_FALSE(request_as<ResolveRequest>({{"action", ""}}));
  for (const json& action : {json("give up"), json("resume"), json("giveup"), json(1), json()}) {
    EXPECT_FALSE(request_as<ResolveRequest>({{"action", action}})) << action.dump();
  }
  EXPECT_EQ(to_string(Resolution::kGiveUp), "give-up");
}

TEST(Requests, WordsAreReadAsTheyAreWritten) {
  for (const MoveWait wait : {MoveWait::kResumed, MoveWait::kDone, MoveWait::kExit}) {
    EXPECT_EQ(move_with("wait", to_string(wait)).wait, wait);
  }
  for (const std::string& word : page_transport_words()) {
    EXPECT_EQ(to_string(move_with("transport", word).transport), word);
  }
}

/// What is written is read back as the same.
template <typename Request>
void expect_same(const Request& request) {
  const json written = request_for(request);
  const auto back = request_as<Request>(written);
  ASSERT_TRUE(back) << written.dump() << back.error().message();
  EXPECT_EQ(request_for(*back), written);
}

TEST(Requests, AreReadAsTheyAreWritten) {
  expect_same(PsRequest{true});
  expect_same(PingRequest());
  for (const WaitFor wait : {WaitFor::kDone, WaitFor::kExit}) {
    expect_same(WaitRequest{wait});
  }
  for (const Resolution resolution : {Resolution::kGiveUp, Resolution::kResumeSource}) {
    expect_same(ResolveRequest{resolution});
  }
  CheckRequest check;
  expect_same(check);
  check.destination = "b:7070";
  expect_same(check);
}

TEST(Requests, AMoveAtAPointSaysHowLongItWaits) {
  EXPECT_FALSE(move_with("mode", "lazy").point_wait);
  EXPECT_EQ(move_with("point_seconds", 1.5).point_wait, std::chrono::milliseconds(1500));
  EXPECT_EQ(move_with("point_seconds", 0).point_wait, std::chrono::milliseconds(0));
  EXPECT_NE(error_with("point_seconds", -1).find("point_seconds"), std::string::npos);
  const MoveRequest move = move_with("point_seconds", 2.5);
  EXPECT_EQ(request_as<MoveRequest>(request_for(move)).value().point_wait, move.point_wait);
}

TEST(Requests, ATokenIsAWholeNumber) {
  EXPECT_EQ(parse_token(json::object()).value(), 0U);
  EXPECT_EQ(parse_token({{"token", 4503599627370495U}}).value(), 4503599627370495U);
  for (const json& wrong : {json(0), json(-1), json(1.5), json("1"), json(nullptr)}) {
    EXPECT_FALSE(parse_token({{"token", wrong}})) << wrong;
    EXPECT_NE(error_with("token", wrong).find("token"), std::string::npos);
  }
  const MoveRequest move = move_with("token", 17U);
  EXPECT_EQ(request_as<MoveRequest>(request_for(move)).value().asked, 17U);
}

TEST(Requests, AForkIsReadAsItIsWritten) {
  ForkRequest fork;
  fork.destinations = {"b:7070", "c"};
  fork.move.plan = parse_mode("demand").value();
  fork.move.strict = true;
  fork.count = 7;
  expect_same(fork);
  fork.count = 0;
  const ForkRequest back = request_as<ForkRequest>(request_for(fork)).value();
  EXPECT_EQ(back.count, 2U);  // One for each.
  EXPECT_EQ(back.destinations, fork.destinations);
  EXPECT_EQ(back.move.plan.word, "demand");
  for (const char* const wrong :
       {R"({"command":"fork"})", R"({"command":"fork","destinations":[]})",
        R"({"command":"fork","destinations":"b"})", R"({"command":"fork","destinations":[1]})",
        R"({"command":"fork","destinations":["b:7070"],"count":1025})"}) {
    EXPECT_EQ(code_of(request_as<ForkRequest>(json::parse(wrong))), ErrorCode::kInvalid) << wrong;
  }
}

TEST(Requests, AMoveIsReadAsItIsWritten) {
  for (const std::string& mode : mode_words()) {
    for (const std::string& transport : page_transport_words()) {
      for (const std::string& wait : move_wait_words()) {
        MoveRequest move;
        move.destination = "b:7070";
        move.plan = parse_mode(mode).value();
        move.transport = parse_page_transport(transport).value();
        move.wait = parse_move_wait(wait).value();
        move.retry_seconds = 1.5;
        move.strict = true;
        move.push.bytes_per_second = 0;
        move.push.deadline = std::chrono::milliseconds(250);
        move.wish = {.best = Wish::kExposure, .sample = std::chrono::milliseconds(1500)};
        expect_same(move);
      }
    }
  }
  MoveRequest move;
  move.destination = "b:7070";
  // A daemon that passes it on leaves the limit to the host where the process is.
  EXPECT_FALSE(request_for(move).contains("bytes_per_second"));
  expect_same(move);
  move.starts = true;
  move.ships_unknown = true;
  expect_same(move);
}

TEST(Requests, NameAProcess) {
  const auto named = [](const json& request) { return parse_process(request).value(); };
  EXPECT_FALSE(named(json::object()).given());
  EXPECT_EQ(named({{"process", "77"}}).pid, 77);
  EXPECT_EQ(named({{"process", "0077"}}).id, "0077");
  EXPECT_EQ(named({{"process", "12345678"}}).id, "12345678");  // As ps shows ids.
  EXPECT_EQ(named({{"process", "ab12"}}).id, "ab12");
  EXPECT_EQ(named({{"pid", 0}}).pid, 0);
  for (const json& wrong : {json(-1), json("7"), json(1.5), json(1 << 30), json(nullptr)}) {
    EXPECT_FALSE(parse_process({{"pid", wrong}})) << wrong.dump();
  }
  EXPECT_FALSE(parse_process({{"process", 7}}));
}

TEST(Requests, ThatListOrWait) {
  EXPECT_FALSE(request_as<PsRequest>(json::object()).value().all);
  EXPECT_TRUE(request_as<PsRequest>({{"all", true}}).value().all);
  EXPECT_FALSE(request_as<PsRequest>({{"all", "yes"}}));
  EXPECT_FALSE(request_as<WaitRequest>({{"for", "ever"}}));
}

TEST(Words, AnErrorNamesWhatMayCome) {
  const std::string of_wait = parse_move_wait("ever").error().message();
  for (const std::string& word : move_wait_words()) {
    EXPECT_NE(of_wait.find(word), std::string::npos) << of_wait;
  }
  const std::string of_transport = parse_page_transport("pigeon").error().message();
  for (const std::string& word : page_transport_words()) {
    EXPECT_NE(of_transport.find(word), std::string::npos) << of_transport;
  }
  EXPECT_NE(parse_wait_for("ever").error().message().find("exit"), std::string::npos);
}

TEST(Words, AreReadBack) {
  for (const std::string& word : move_wait_words()) {
    EXPECT_EQ(to_string(parse_move_wait(word).value()), word);
  }
  for (const std::string& word : page_transport_words()) {
    EXPECT_EQ(to_string(parse_page_transport(word).value()), word);
  }
  for (const std::string& word : mode_words()) {
    EXPECT_EQ(parse_mode(word).value().word, word);
    if (parse_mode(word).value().decides) {  // Whoever offers or notes one has decided.
      EXPECT_EQ(parse_offered_mode(word).error().code, ErrorCode::kInvalid) << word;
      EXPECT_EQ(noted_plan(word).word, "lazy");
    } else {
      EXPECT_EQ(parse_offered_mode(word).value().word, word);
      EXPECT_EQ(noted_plan(word).word, word);
    }
  }
  EXPECT_EQ(wait_for_words().size(), 2U);
}

TEST(Words, ACheckAsksForTheModeThatItIsOf) {
  EXPECT_TRUE(check_plan(parse_mode("hybrid").value()).rounds);
  EXPECT_TRUE(check_plan(parse_mode("auto").value()).decides);
  EXPECT_FALSE(check_plan().decides);
  CheckRequest check;
  check.plan = parse_mode("auto").value();
  EXPECT_EQ(check.settle().error().code, ErrorCode::kInvalid);  // Nobody knows where to.
  check.destination = "b:7070";
  EXPECT_TRUE(check.settle());
}

TEST(Words, OnlyAnOfferMayOnlyAsk) {
  EXPECT_TRUE(check_plan().only_asks);
  EXPECT_FALSE(parse_mode(check_plan().word));
  EXPECT_TRUE(parse_offered_mode(check_plan().word).value().only_asks);
  EXPECT_EQ(noted_plan("of another version").word, "lazy");  // Its pages must come in any case.
}

}  // namespace
}  // namespace migrate
