#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "libmigrate/requests/request_json.h"
#include "libmigrate/requests/status_words.h"
#include "libmigrate/requests/words.h"
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
  for (const char* word : {"move", "check", "resolve", "end", "ps", "show", "wait", "hosts", "ping",
                           "here", "identity", "watch", "kill", "link", "drain"}) {
    EXPECT_EQ(command_of({{"command", word}}).value(), word);
    const auto asked =
        parse_any({{"command", word}, {"destination", "b:7070"}, {"action", "give-up"}});
    ASSERT_TRUE(asked) << word;
    EXPECT_EQ(std::visit([](const auto& each) { return word_of(each); }, *asked), word);
    EXPECT_EQ(request_for(parse_any(request_for(*asked)).value()), request_for(*asked));
  }
}

TEST(Requests, AGivenNameIsAWordThatIsNoPidAndNoOption) {
  const auto named = [](const std::string& name) {
    return request_as<NameRequest>({{"action", "get"}, {"name", name}});
  };
  for (const char* good : {"solver", "a", "0x", "3d-solver_2.run"}) {
    EXPECT_TRUE(named(good)) << good;
  }
  for (const char* bad : {"", "12", "-x", "a b", "a/b", "a@b", "a\n", "n\xc3\xa4me"}) {
    EXPECT_EQ(named(bad).error().code, ErrorCode::kInvalid) << bad;
  }
  EXPECT_TRUE(named(std::string(64, 'x')));
  EXPECT_FALSE(named(std::string(65, 'x')));
  EXPECT_TRUE(request_as<NameRequest>({{"action", "list"}}));
  EXPECT_FALSE(request_as<NameRequest>({{"action", "give"}, {"name", "solver"}}));
}

TEST(Requests, ASignalIsOneThatThereIs) {
  EXPECT_EQ(request_as<KillRequest>(json::object()).value().signal, 15U);
  EXPECT_TRUE(request_as<KillRequest>({{"signal", 0}}));
  for (const json& bad : {json(65), json(-1), json("TERM"), json(1.5)}) {
    EXPECT_EQ(request_as<KillRequest>({{"signal", bad}}).error().code, ErrorCode::kInvalid);
  }
  EXPECT_FALSE(request_as<LinkRequest>({{"signal", 0}}));
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
  expect_same(DrainRequest{DrainAction::kBegin, {"0", "1000"}});
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

TEST(Requests, EachMemberOfAMoveComesBack) {
  const json written = json::parse(R"({"command":"move","mode":"auto","wait":"done",
      "destination":"b:7071","transport":"tcp","retry_seconds":2.5,"strict":true,
      "bytes_per_second":1000,"deadline_seconds":0.5,"rounds":7,"downtime_us":300,
      "wish":"bytes","sample_seconds":0.75,"point_seconds":1.25,"hook_seconds":3.5,"token":99,
      "policy":[{"place":"p:1","action":"eager","kind":"heap","name":"","min_bytes":1,
      "max_bytes":2}],"network":"place","starts":true,"ships_unknown":true})");
  const MoveRequest move = request_as<MoveRequest>(written).value();
  EXPECT_TRUE(move.plan.decides && move.strict && move.starts && move.ships_unknown);
  EXPECT_EQ(move.wait, MoveWait::kDone);
  EXPECT_EQ(move.network, NetworkOf::kPlace);
  EXPECT_EQ(move.wish.best, Wish::kBytes);
  EXPECT_EQ(move.wish.sample.count(), 750);
  EXPECT_EQ(move.point_wait->count(), 1250);
  EXPECT_EQ(move.hook_wait->count(), 3500);
  EXPECT_EQ(move.asked, 99U);
  EXPECT_EQ(move.policy.front().kind, MemoryKind::kHeap);
  EXPECT_EQ(request_for(move), written);  // Nothing is dropped on the way to a worker.
}

TEST(Requests, EachMemberOfACheckComesBack) {
  for (const auto& [word, detail] : kDetails) {
    json written = json::parse(R"({"command":"check","destination":"b:7070","strict":true,
        "mode":"auto","wish":"exposure","sample_seconds":0.25,"network":"place","starts":true,
        "policy":[{"place":"p:1","action":"ship","name":"/a","min_bytes":0,"max_bytes":9,
        "known":false}]})");
    written["detail"] = word;
    const CheckRequest check = request_as<CheckRequest>(written).value();
    EXPECT_EQ(check.detail, detail);
    EXPECT_EQ(check.wish.best, Wish::kExposure);
    EXPECT_EQ(check.network, NetworkOf::kPlace);
    EXPECT_EQ(check.policy.front().known, false);
    EXPECT_EQ(request_for(check), written);
  }
  EXPECT_EQ(request_as<CheckRequest>({{"detail", "all"}}).error().object, "detail \"all\"");
}

TEST(Requests, WhoAsksIsNotTakenFromTheRequest) {
  const MoveRequest move =
      request_as<MoveRequest>(
          {{"destination", "b"}, {"uid", 0}, {"pid", 1}, {"asker", 0}, {"at_point", 1}})
          .value();
  EXPECT_EQ(move.pid, MoveRequest().pid);
  EXPECT_EQ(move.uid, MoveRequest().uid);
  EXPECT_EQ(move.at_point, 0U);
  for (const char* member : {"uid", "pid", "asker", "at_point"}) {
    EXPECT_FALSE(request_for(move).contains(member)) << member;
  }
}

TEST(Requests, ACommandThatIsNotKnownIsToldAllThatAre) {
  const Error error = command_of({{"command", "moves"}}).error();
  EXPECT_EQ(error.object, "command \"moves\"");
  EXPECT_EQ(error.remedy,
            "use one of: move, check, resolve, end, ps, show, wait, fork, hosts, ping, here, "
            "identity, watch, kill, name, link, drain");
  EXPECT_EQ(command_of({{"command", 7}}).error().object, "command of type number");
  EXPECT_FALSE(command_of(json::parse(kCancel)));  // A line that takes back is no request.
}

TEST(Requests, WhatIsWaitedForIsKnownOfABadMoveToo) {
  EXPECT_EQ(wait_of({{"wait", "exit"}, {"destination", 7}}), MoveWait::kExit);
  EXPECT_EQ(wait_of({{"wait", "ever"}}), MoveWait::kResumed);
  EXPECT_EQ(wait_of({{"wait", 7}}), MoveWait::kResumed);
  EXPECT_EQ(wait_of(json::array()), MoveWait::kResumed);
}

TEST(Requests, AProcessIsNamedAsItIsRead) {
  json request = json::object();
  name_process(request, {});
  EXPECT_EQ(request, json::object());
  name_process(request, {.id = "ab12", .pid = 0});
  EXPECT_EQ(request, json::parse(R"({"process":"ab12","pid":0})"));
  const ProcessName both = parse_process(request).value();
  EXPECT_EQ(both.id, "ab12");
  EXPECT_EQ(both.pid, 0);
  // A pid in the place of an id is what counts, whatever else stands there.
  const ProcessName digits = parse_process({{"process", "4194304"}, {"pid", 9}}).value();
  EXPECT_EQ(digits.pid, 4194304);
  EXPECT_EQ(digits.id, "");
  const Error error = parse_process({{"pid", -1}}).error();
  EXPECT_EQ(error.object, "pid -1");
  EXPECT_EQ(error.remedy, "write the number of a process, or 0 for your own");
  EXPECT_EQ(parse_process(json::array()).error().code, ErrorCode::kInvalid);
}

TEST(StatusWords, EachStatusHasItsMeaningAndAnyOtherIsAnError) {
  for (const StatusWords& each : kStatusWords) {
    EXPECT_STREQ(meaning_of(each.status), each.meaning);
    EXPECT_NE(std::string_view(each.meaning).back(), '.');
  }
  EXPECT_STREQ(meaning_of(MIGRATE_REFUSED), "refused; the process runs on where it was");
  for (const int status : {-1, 99, std::numeric_limits<int>::max()}) {
    EXPECT_STREQ(meaning_of(status), meaning_of(MIGRATE_ERROR)) << status;
  }
}

TEST(Words, ListsAreForPeople) {
  EXPECT_EQ(list_modes(), "lazy, demand, eager, precopy, hybrid or auto");
  EXPECT_EQ(list_words(kWishes), "stop, exposure, bytes");
  EXPECT_EQ(words_in(kDetails), (std::vector<std::string>{"verdict", "rules", "files", "links"}));
  EXPECT_FALSE(find_mode("check"));  // Nobody may choose it.
  EXPECT_FALSE(find_word("", kWishes));
}

TEST(Words, ATransportsErrorNamesBoth) {
  std::string destination = std::string(page_transports()[0]->word) + "://b:7070";
  const std::string before = destination;
  const Error error = settle_page_transport(destination, "tcp").error();
  EXPECT_EQ(error.object, before + " by transport tcp");
  EXPECT_EQ(error.remedy,
            "leave out " + std::string(page_transports()[0]->word) + ":// or the transport");
  EXPECT_EQ(destination, before);  // Unchanged, as whoever asks wrote it.
  EXPECT_FALSE(settle_page_transport(destination, "carrier-pigeon"));
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
