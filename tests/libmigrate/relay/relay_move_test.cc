// Moves from place to place and links that break, at random moments, with everything under way.
#include <random>

#include "tests/libmigrate/relay/relay_world.h"

namespace migrate::relay_testing {
namespace {

class RelayMoves : public RelayWorld {
 protected:
  int pick(int below) { return std::uniform_int_distribution<int>(0, below - 1)(random); }

  /// What the process and the people at home do, a little of it.
  void act() {
    const auto most = static_cast<std::size_t>(1 + pick(20000));
    switch (pick(6)) {
      case 0:
        to_process.write_some(home_in.get(), kBytes, most);
        break;
      case 1:
        from_process.read_some(home_out.get(), most);
        break;
      case 2:
        both_home.write_some(home_both.get(), kBytes, most);
        break;
      case 3:
        both_process.read_some(home_both.get(), most);
        break;
      default:
        if (pick(20) == 0) {
          signal(++signals_sent);
        }
    }
  }
  void act_process() {
    const auto most = static_cast<std::size_t>(1 + pick(20000));
    switch (pick(4)) {
      case 0:
        to_process.read_some(place.ends[kIn].get(), most);
        break;
      case 1:
        from_process.write_some(place.ends[kOut].get(), kBytes, most);
        break;
      case 2:
        both_home.read_some(place.ends[kBoth].get(), most);
        break;
      default:
        both_process.write_some(place.ends[kBoth].get(), kBytes, most);
    }
  }

  void live(int turns) {
    for (int i = 0; i < turns && !HasFailure(); ++i) {
      act();
      act_process();
      turn(nullptr, pick(2));
    }
  }

  /// Moves on to a new place, or tries and gives up.
  void move_on() {
    const wire::RelayState state = place.relay->freeze_state();
    Place next = make_place(state);
    const auto next_connection = connect(*next.relay);
    for (int i = pick(10); i > 0; --i) {
      act();
      turn(next.relay.get(), pick(2));
    }
    if (pick(4) == 0) {
      place.relay->thaw();
      return;
    }
    next.relay->activate();
    if (pick(2) == 0) {
      turn(next.relay.get(), 0);
    }
    connection = next_connection;
    place = std::move(next);
  }

  void break_link() {
    connection->cut();
    for (int i = pick(10); i > 0; --i) {
      act();
      act_process();
      turn(nullptr, 0);
    }
    connection = connect(*place.relay);
    if (pick(3) == 0) {
      connection->cut();
      connection = connect(*place.relay);
    }
  }

  void finish() {
    ASSERT_TRUE(turn_until([&] {
      act();
      act_process();
      to_process.write_some(home_in.get(), kBytes);
      return to_process.read == kBytes && from_process.read == kBytes && both_home.read == kBytes &&
             both_process.read == kBytes && signals.size() == signals_sent;
    }));
    for (std::uint64_t i = 0; i < signals.size(); ++i) {
      ASSERT_EQ(signals[i], i + 1);
    }
    home_in.reset();
    ASSERT_TRUE(turn_until([&] {
      to_process.read_some(place.ends[kIn].get());
      return to_process.eof;
    }));
    place.ends.clear();
    place.relay->report_exit(7);
    ASSERT_TRUE(turn_until([&] {
      from_process.read_some(home_out.get());
      return from_process.eof && deputy_relay->finished() && place.relay->flushed();
    }));
    EXPECT_EQ(exits, std::vector<int>{7});
  }

  static constexpr std::uint64_t kBytes = 3U << 19U;
  std::mt19937 random{20240229};
  Actor to_process;
  Actor from_process;
  Actor both_home;
  Actor both_process;
  std::uint64_t signals_sent = 0;
};

TEST_F(RelayMoves, AHundredMovesLoseNothing) {
  start_usual_home();
  start_place();
  for (int i = 0; i < 100 && !HasFailure(); ++i) {
    live(pick(30));
    move_on();
  }
  EXPECT_GT(deputy_relay->epoch(), 20U);
  finish();
}

TEST_F(RelayMoves, AHundredBrokenLinksLoseNothing) {
  start_usual_home();
  start_place();
  for (int i = 0; i < 100 && !HasFailure(); ++i) {
    live(pick(30));
    break_link();
  }
  finish();
}

TEST_F(RelayMoves, MovesAndBrokenLinksTogetherLoseNothing) {
  start_usual_home();
  start_place();
  for (int i = 0; i < 150 && !HasFailure(); ++i) {
    live(pick(20));
    if (pick(2) == 0) {
      break_link();
    } else {
      move_on();
    }
  }
  finish();
}

TEST_F(RelayMoves, EndsOfStreamsSurviveMoves) {
  start_usual_home();
  start_place();
  ASSERT_TRUE(turn_until([&] { return place.relay->established(); }));
  to_process.write_some(home_in.get(), 30000, 30000);
  home_in.reset();
  from_process.write_some(place.ends[kOut].get(), 30000, 30000);
  place.ends[kOut].reset();
  turn_times(20);
  to_process.read_some(place.ends[kIn].get(), 5000);
  for (int i = 0; i < 3; ++i) {
    Place next = make_place(place.relay->freeze_state());
    next.ends[kOut].reset();
    connection = connect(*next.relay);
    next.relay->activate();
    place = std::move(next);
    turn_times(i * 5);
  }
  ASSERT_TRUE(turn_until([&] {
    to_process.read_some(place.ends[kIn].get());
    from_process.read_some(home_out.get());
    return to_process.eof && from_process.eof;
  }));
  EXPECT_EQ(to_process.read, 30000U);
  EXPECT_EQ(from_process.read, 30000U);
}

TEST_F(RelayMoves, EpipeSurvivesMoves) {
  start_usual_home();
  start_place();
  ASSERT_TRUE(turn_until([&] { return place.relay->established(); }));
  home_out.reset();
  place.ends[kIn].reset();
  turn_times(20);
  place = make_place(place.relay->freeze_state());
  EXPECT_EQ(write(place.ends[kOut].get(), "x", 1), -1);
  EXPECT_EQ(errno, EPIPE);
  connection = connect(*place.relay);
  place.relay->activate();
  ASSERT_TRUE(turn_until([&] { return place.relay->established(); }));
  EXPECT_EQ(write(home_in.get(), "x", 1), -1);
}

TEST_F(RelayMoves, TheExitComesHomeOverAnotherLink) {
  start_usual_home();
  start_place();
  ASSERT_TRUE(turn_until([&] { return place.relay->established(); }));
  from_process.write_some(place.ends[kOut].get(), 60000, 60000);
  connection->cut();
  place.ends.clear();
  place.relay->report_exit(9);
  turn_times(5);
  EXPECT_FALSE(place.relay->flushed());
  connection = connect(*place.relay);
  ASSERT_TRUE(turn_until([&] {
    from_process.read_some(home_out.get());
    return from_process.eof && place.relay->flushed();
  }));
  EXPECT_EQ(from_process.read, 60000U);
  EXPECT_EQ(exits, std::vector<int>{9});
}

}  // namespace
}  // namespace migrate::relay_testing
