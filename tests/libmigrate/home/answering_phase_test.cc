// Every kind of letter in every phase: whoever asks for something gets one answer.
#include <algorithm>
#include <array>
#include <future>
#include <iterator>
#include <utility>

#include "libmigrate/requests/json_member.h"
#include "tests/libmigrate/home/home_world.h"

namespace migrate::home_testing {
namespace {

/// When a letter comes.
enum class When {
  kMoveFails,  // while a move is tried
  kMoves,
  kInDoubt,
  kServing,
  kIndependent,
  kEnding,
  kChildrenLeft,
  kEnded,
  kKilled,
  kStayed,
  kOver,
};
constexpr std::array<When, 11> kAlways{When::kMoveFails,    When::kMoves,       When::kInDoubt,
                                       When::kServing,      When::kIndependent, When::kEnding,
                                       When::kChildrenLeft, When::kEnded,       When::kKilled,
                                       When::kStayed,       When::kOver};

class HomeLetters : public HomeWorld {
 protected:
  /// A life in which `comes` is done once, at that time. Every request that is passed on is
  /// answered by the place.
  void live_with(When when, const std::function<void()>& comes) {
    answers_ = true;
    asking(MoveWait::kResumed);
    switch (when) {
      case When::kMoveFails:
        doings_.outcome = MoveOutcome::kFailed;
        comes();
        break;
      case When::kMoves:
        comes();
        in("Serving", [this] { later(100, [this] { exits(0); }); });
        break;
      case When::kInDoubt:
        doings_.outcome = MoveOutcome::kInDoubt;
        in("InDoubt", comes);
        in("InDoubt", [this] { later(5000, [this] { doings_.fate = Fate::kNeverRan; }); });
        break;
      case When::kIndependent:
        doings_.done = true;
        [[fallthrough]];
      case When::kServing:
        in("Serving", comes);
        in("Serving", [this] { later(100, [this] { exits(0); }); });
        break;
      case When::kEnding:
        in("Serving", [this] { exits(0); });
        doings_.in_step = {"end as 0 in Ending", comes};
        break;
      case When::kChildrenLeft:
        in("Serving", [this] { exits(0, true); });
        in("ChildrenLeft", comes);
        in("ChildrenLeft", [this] { later(500, [this] { children_end(); }); });
        break;
      case When::kEnded:
      case When::kOver:
        in("Serving", [this] { exits(0); });
        in(when == When::kEnded ? "Ended" : "Over", comes);
        break;
      case When::kKilled:
        doings_.outcome = MoveOutcome::kInDoubt;
        in("InDoubt", [] { die(); });
        ASSERT_FALSE(move_away());
        doings_.found = Found::kGone;
        in("Killed", comes);
        in("Killed", [this] {
          later(3000, [this] {
            wire::Verdict verdict;
            verdict.set_fate(wire::Verdict::ENDED);
            doings_.verdicts.emplace_back(verdict);
          });
        });
        ASSERT_TRUE(take_over());
        return;
      case When::kStayed:
        doings_.outcome = MoveOutcome::kFailed;
        doings_.die_after = "attempt";
        ASSERT_FALSE(move_away());
        doings_.found = Found::kRunsOn;
        in("Over", comes);
        ASSERT_TRUE(take_over());
        return;
    }
    ASSERT_TRUE(move_away());
  }

  /// Each client, who asks at that time, gets this one answer.
  void expect(When when, const std::vector<std::function<Client&()>>& asks, int exit_code) {
    SCOPED_TRACE(static_cast<int>(when));
    std::vector<Client*> clients;
    live_with(when, [&] {
      std::transform(asks.begin(), asks.end(), std::back_inserter(clients),
                     [](const auto& ask) { return &ask(); });
    });
    EXPECT_EQ(clients.size(), asks.size());
    for (Client* client : clients) {
      EXPECT_EQ(client->exit(), exit_code) << client->error();
    }
    start_anew();
  }
  std::function<Client&()> asking_for(const std::string& text) {
    return [this, text]() -> Client& { return ask(text); };
  }

  /// What is answered to a request that is carried out where the process is.
  static int to_request(When when) {
    switch (when) {
      case When::kMoves:
      case When::kServing:
      case When::kIndependent:
        return MIGRATE_DONE;
      case When::kMoveFails:
      case When::kStayed:
        return MIGRATE_FAILED;
      default:
        return MIGRATE_ERROR;
    }
  }
  /// The last phase looks at nothing that is asked.
  static bool is_over(When when) {
    return when == When::kMoveFails || when == When::kStayed || when == When::kOver;
  }
  static int to_give_up(When when) {
    switch (when) {
      case When::kInDoubt:
      case When::kKilled:
        // Of one in doubt the stand-in destination says nothing when it is asked once more.
        return MIGRATE_DONE;
      case When::kMoves:
      case When::kServing:
      case When::kIndependent:
      case When::kChildrenLeft:
        return MIGRATE_REFUSED;  // It answers.
      default:
        return to_request(when);
    }
  }
  static int to_resume(When when) {
    return when == When::kKilled ? MIGRATE_REFUSED : to_give_up(when);
  }
};

TEST_F(HomeLetters, RequestsThatGoToTheProcess) {
  for (const When when : kAlways) {
    expect(when,
           {asking_for(R"({"command":"move"})"), asking_for(R"({"command":"check"})"),
            asking_for(R"({"command":"end"})")},
           to_request(when));
  }
}

TEST_F(HomeLetters, GiveUp) {
  for (const When when : kAlways) {
    expect(when, {[this]() -> Client& { return resolve("give-up"); }}, to_give_up(when));
  }
}

TEST_F(HomeLetters, ResumeSource) {
  for (const When when : kAlways) {
    expect(when, {[this]() -> Client& { return resolve("resume-source"); }}, to_resume(when));
  }
}

TEST_F(HomeLetters, ResolveOfNobodyKnown) {
  for (const When when : kAlways) {
    expect(when, {asking_for(R"({"command":"resolve","action":"give-up"})")},
           is_over(when) ? to_request(when) : MIGRATE_REFUSED);
  }
}

TEST_F(HomeLetters, WhatCannotBeUnderstood) {
  const json no_action = {{"command", "resolve"}, {"asker", to_json(Asker{.user = 0})}};
  for (const When when : kAlways) {
    expect(when,
           {asking_for(R"({"command":"dance"})"), asking_for(R"({"command":7})"), asking_for("{}"),
            asking_for("no JSON"), asking_for(""), asking_for("[1]"), asking_for(no_action.dump())},
           is_over(when) ? to_request(when) : MIGRATE_USAGE);
  }
}

TEST_F(HomeLetters, PeersWithAnotherPurposeAreHungUpOn) {
  for (const When when : kAlways) {
    SCOPED_TRACE(static_cast<int>(when));
    std::unique_ptr<Channel> peer;
    live_with(when, [&] { peer = connect(Purpose::kUrgent); });
    ASSERT_NE(peer, nullptr);
    const auto heard = peer->receive(0, 0);
    ASSERT_FALSE(heard);
    EXPECT_EQ(heard.error().code, ErrorCode::kPeerLost);
    start_anew();
  }
}

// The other host hangs up when it has its answer, for which the worker waits a moment.
TEST_F(HomeLetters, RequestsOfOtherHostsAreRefused) {
  for (const When when : kAlways) {
    SCOPED_TRACE(static_cast<int>(when));
    std::future<json> result;
    live_with(when, [&] {
      result = std::async(std::launch::async, [peer = connect(Purpose::kCommand)]() mutable {
        json heard;
        if (const auto bytes = peer->receive(0, 5000)) {
          heard = parse_object({reinterpret_cast<const char*>(bytes->data()), bytes->size()});
        }
        peer.reset();
        return heard;
      });
    });
    ASSERT_TRUE(result.valid());
    EXPECT_EQ(result.get()["exit"], is_over(when) ? to_request(when) : MIGRATE_REFUSED);
    start_anew();
  }
}

// Who calls and says nothing changes nothing, and is not waited for.
TEST_F(HomeLetters, CallersAreTaken) {
  for (const When when : kAlways) {
    SCOPED_TRACE(static_cast<int>(when));
    std::unique_ptr<Channel> peer;
    live_with(when, [&] { peer = connect(Purpose::kHome); });
    EXPECT_NE(peer, nullptr);
    start_anew();
  }
}

}  // namespace
}  // namespace migrate::home_testing
