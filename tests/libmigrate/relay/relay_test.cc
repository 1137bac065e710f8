// One place, one home, a link that holds.
#include <pty.h>
#include <sys/wait.h>
#include <termios.h>
#include <utmp.h>

#include <csignal>

#include "tests/libmigrate/relay/relay_world.h"

namespace migrate::relay_testing {
namespace {

TEST_F(RelayWorld, CarriesBytesBothWays) {
  start_usual_home();
  start_place();
  constexpr std::uint64_t kBytes = 8U << 20U;
  Actor to_process;
  Actor from_process;
  Actor both_home;
  Actor both_process;
  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(turn_until([&] {
    to_process.write_some(home_in.get(), kBytes, 50000);
    to_process.read_some(place.ends[kIn].get(), 50000);
    from_process.write_some(place.ends[kOut].get(), kBytes, 50000);
    from_process.read_some(home_out.get(), 50000);
    both_home.write_some(home_both.get(), kBytes / 4);
    both_home.read_some(place.ends[kBoth].get());
    both_process.write_some(place.ends[kBoth].get(), kBytes / 4);
    both_process.read_some(home_both.get());
    return to_process.read == kBytes && from_process.read == kBytes &&
           both_home.read == kBytes / 4 && both_process.read == kBytes / 4;
  }));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  RecordProperty("seconds", std::to_string(took.count()));
  ASSERT_TRUE(turn_until([&] { return place.relay->flushed(); }));
}

TEST_F(RelayWorld, EndOfInputReachesTheProcessAfterTheLastByte) {
  start_usual_home();
  start_place();
  Actor actor;
  actor.write_some(home_in.get(), 50000, 50000);
  home_in.reset();
  turn_times(20);
  ASSERT_TRUE(turn_until([&] {
    actor.read_some(place.ends[kIn].get(), 777);
    return actor.eof;
  }));
  EXPECT_EQ(actor.read, 50000U);
}

TEST_F(RelayWorld, EndOfOutputReachesHomeAfterTheLastByte) {
  start_usual_home();
  start_place();
  Actor actor;
  actor.write_some(place.ends[kOut].get(), 50000, 50000);
  place.ends[kOut].reset();
  ASSERT_TRUE(turn_until([&] {
    actor.read_some(home_out.get(), 777);
    return actor.eof;
  }));
  EXPECT_EQ(actor.read, 50000U);
  ASSERT_TRUE(turn_until([&] { return place.relay->flushed(); }));
  EXPECT_EQ(closed, std::vector<std::uint32_t>{kOut * 10 + wire::RELAY_OUT});
}

TEST_F(RelayWorld, TheProcessGetsEpipeWhenNobodyReadsAtHome) {
  start_usual_home();
  start_place();
  ASSERT_EQ(write(place.ends[kOut].get(), "x", 1), 1);
  ASSERT_TRUE(turn_until([&] {
    char byte = 0;
    return read(home_out.get(), &byte, 1) == 1;
  }));
  home_out.reset();
  ASSERT_TRUE(
      turn_until([&] { return write(place.ends[kOut].get(), "x", 1) < 0 && errno == EPIPE; }));
  EXPECT_TRUE(place.relay->flushed());
}

TEST_F(RelayWorld, HomesWriterGetsEpipeWhenTheProcessClosesItsInput) {
  start_usual_home();
  start_place();
  ASSERT_TRUE(turn_until([&] { return place.relay->established(); }));
  ASSERT_EQ(write(home_in.get(), "x", 1), 1);
  turn_times(20);
  place.ends[kIn].reset();
  ASSERT_TRUE(turn_until([&] { return write(home_in.get(), "x", 1) < 0 && errno == EPIPE; }));
  EXPECT_EQ(closed, std::vector<std::uint32_t>{kIn * 10 + wire::RELAY_IN});
}

TEST_F(RelayWorld, ASlowReaderAtHomeBlocksTheProcess) {
  start_usual_home();
  start_place();
  Actor actor;
  ASSERT_TRUE(turn_until([&, still = 0]() mutable {
    const std::uint64_t before = actor.written;
    actor.write_some(place.ends[kOut].get(), UINT64_MAX);
    still = actor.written == before ? still + 1 : 0;
    return still == 50;
  }));
  EXPECT_LE(actor.written, 4 * kRelayWindowBytes);  // Two pipes, a window, and what is in between.
  const std::uint64_t all = actor.written;
  ASSERT_TRUE(turn_until([&] {
    actor.read_some(home_out.get());
    return actor.read == all;
  }));
}

TEST_F(RelayWorld, TakesLittleInputAhead) {
  start_usual_home();
  start_place();
  Actor actor;
  ASSERT_TRUE(turn_until([&, still = 0]() mutable {
    const std::uint64_t before = actor.written;
    actor.write_some(home_in.get(), UINT64_MAX);
    still = actor.written == before ? still + 1 : 0;
    return still == 50;
  }));
  EXPECT_LE(actor.written, 3 * kRelayWindowBytes);
  const std::uint64_t all = actor.written;
  ASSERT_TRUE(turn_until([&] {
    actor.read_some(place.ends[kIn].get());
    return actor.read == all;
  }));
}

TEST_F(RelayWorld, InputFlowsThoughTheProcessEnlargedItsPipe) {
  start_usual_home();
  start_place();
  ASSERT_GT(fcntl(place.ends[kIn].get(), F_SETPIPE_SZ, 1 << 20), 0);
  Actor actor;
  ASSERT_TRUE(turn_until([&] {
    actor.write_some(home_in.get(), 1U << 20U, 60000);
    actor.read_some(place.ends[kIn].get(), 60000);
    return actor.read == 1U << 20U;
  }));
}

TEST_F(RelayWorld, ExitComesAfterAllOutput) {
  start_usual_home();
  start_place();
  ASSERT_TRUE(turn_until([&] { return place.relay->established(); }));
  Actor actor;
  for (int i = 0; i < 100; ++i) {
    actor.write_some(place.ends[kOut].get(), 1000000, 60000);
    turn();
  }
  place.ends.clear();
  place.relay->report_exit(0x2a00);
  turn_times(100);
  EXPECT_TRUE(exits.empty());  // Home's pipe is full.
  ASSERT_TRUE(turn_until([&] {
    actor.read_some(home_out.get());
    return actor.eof;
  }));
  EXPECT_EQ(actor.read, actor.written);
  ASSERT_TRUE(turn_until([&] { return deputy_relay->finished() && place.relay->flushed(); }));
  EXPECT_EQ(exits, std::vector<int>{0x2a00});
}

TEST_F(RelayWorld, StreamsStayOpenUntilTheDescendantsHaveEnded) {
  start_usual_home();
  start_place();
  ASSERT_TRUE(turn_until([&] { return place.relay->established(); }));
  Actor actor;
  place.relay->report_exit(0x2a00, true);
  ASSERT_TRUE(turn_until([&] { return place.relay->exit_acknowledged(); }));
  EXPECT_EQ(exits, std::vector<int>{0x2a00});
  EXPECT_FALSE(deputy_relay->all_ended());
  EXPECT_TRUE(deputy_relay->streams_open());
  actor.write_some(place.ends[kOut].get(), 1000, 1000);
  ASSERT_TRUE(turn_until([&] {
    actor.read_some(home_out.get());
    return actor.read == 1000;
  }));
  EXPECT_FALSE(actor.eof);
  actor.write_some(place.ends[kOut].get(), 2000, 1000);
  place.ends.clear();
  place.relay->report_descendants_ended();
  EXPECT_FALSE(place.relay->exit_acknowledged());
  ASSERT_TRUE(turn_until([&] {
    actor.read_some(home_out.get());
    return actor.eof && place.relay->exit_acknowledged() && place.relay->flushed();
  }));
  EXPECT_EQ(actor.read, 2000U);
  EXPECT_TRUE(deputy_relay->all_ended());
  EXPECT_FALSE(deputy_relay->streams_open());
  EXPECT_EQ(exits.size(), 1U);  // Told once.
}

TEST_F(RelayWorld, ExitDoesNotWaitForAReaderThatHasGone) {
  start_usual_home();
  start_place();
  Actor actor;
  for (int i = 0; i < 50; ++i) {
    actor.write_some(place.ends[kOut].get(), UINT64_MAX, 60000);
    turn();
  }
  place.ends.clear();
  place.relay->report_exit(SIGKILL);
  turn_times(10);
  EXPECT_TRUE(exits.empty());
  home_out.reset();
  ASSERT_TRUE(turn_until([&] { return deputy_relay->finished() && place.relay->flushed(); }));
  EXPECT_EQ(exits, std::vector<int>{SIGKILL});
}

TEST_F(RelayWorld, StreamsLiveOnForDescendantsAfterTheExit) {
  start_usual_home();
  start_place();
  ASSERT_TRUE(turn_until([&] { return place.relay->established(); }));
  place.relay->report_exit(0, true);
  ASSERT_TRUE(turn_until([&] { return exits.size() == 1; }));
  Actor actor;
  actor.write_some(place.ends[kOut].get(), 100);
  place.ends[kOut].reset();
  ASSERT_TRUE(turn_until([&] {
    actor.read_some(home_out.get());
    return actor.eof;
  }));
  EXPECT_EQ(actor.read, 100U);
}

TEST_F(RelayWorld, TellsJobStateAndLocation) {
  start_usual_home();
  start_place();
  place.relay->report_location("hostB", "s1");
  ASSERT_TRUE(turn_until([&] { return hosts == std::vector<std::string>{"hostB"}; }));
  place.relay->report_job_state(SIGTSTP);
  place.relay->report_job_state(0);
  ASSERT_TRUE(turn_until([&] { return jobs == std::vector<int>{SIGTSTP, 0}; }));
  connection->cut();
  ASSERT_TRUE(turn_until([&] { return !place.relay->connected(); }));
}

// To home itself it would say nothing: home knows what it owes.
TEST_F(RelayWorld, TellsWhatALaterPlaceIsOwed) {
  start_usual_home();
  start_place();
  ASSERT_TRUE(turn_until([&] { return place.relay->established(); }));
  EXPECT_FALSE(deputy_relay->owed());
  Place later = make_place(place.relay->freeze_state());
  const auto link = connect(*later.relay);
  later.relay->activate();
  place = std::move(later);
  ASSERT_TRUE(turn_until([&] { return deputy_relay->epoch() == 2; }));
  ASSERT_TRUE(deputy_relay->owed());
  EXPECT_EQ(deputy_relay->owed()->by, "") << "it has not said it yet";
  place.relay->report_owed(7, "hostB");
  ASSERT_TRUE(turn_until([&] { return deputy_relay->owed()->pages == 7; }));
  EXPECT_EQ(deputy_relay->owed()->by, "hostB");

  HomeRelay successor({}, 0, {});
  successor.adopt(deputy_relay->note());
  EXPECT_EQ(successor.owed().value().pages, 7U);

  link->cut();
  ASSERT_TRUE(turn_until([&] { return !place.relay->connected(); }));
  place.relay->report_owed(0, "hostB");
  EXPECT_EQ(deputy_relay->owed()->pages, 7U);
  connection = connect(*place.relay);
  ASSERT_TRUE(turn_until([&] { return !deputy_relay->owed(); })) << "told on the next link";
}

TEST_F(RelayWorld, RelaysATerminal) {
  int master = -1;
  int slave = -1;
  ASSERT_EQ(openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
  const UniqueFd terminal(master);
  set_nonblocking(master);
  std::vector<HomeRelay::Stream> streams;
  streams.push_back({kBoth, UniqueFd(slave), wire::RELAY_BOTH});
  start_home(std::move(streams));
  start_place();
  ASSERT_EQ(write(master, "hello\n", 6), 6);
  std::array<char, 64> bytes{};
  ssize_t count = 0;
  ASSERT_TRUE(turn_until(
      [&] { return (count = read(place.ends[kBoth].get(), bytes.data(), bytes.size())) > 0; }));
  EXPECT_EQ(std::string(bytes.data(), static_cast<std::size_t>(count)), "hello\n");
  ASSERT_EQ(write(place.ends[kBoth].get(), "world", 5), 5);
  std::string seen;
  ASSERT_TRUE(turn_until([&] {
    count = read(master, bytes.data(), bytes.size());
    seen.append(bytes.data(), count > 0 ? static_cast<std::size_t>(count) : 0);
    return seen == "hello\r\nworld";
  }));
}

TEST(Foreground, IsThatOfTheTerminalsGroup) {
  int master = -1;
  int slave = -1;
  ASSERT_EQ(openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
  const UniqueFd terminal(master);
  struct stat status {};
  ASSERT_EQ(fstat(slave, &status), 0);
  auto [ready, told] = make_pipe();
  const pid_t leader = fork();
  if (leader == 0) {
    login_tty(slave);
    const pid_t background = fork();
    if (background == 0) {
      setpgid(0, 0);
      const pid_t self = getpid();
      _exit(write(told.get(), &self, sizeof self) == sizeof self && pause() == 0 ? 0 : 1);
    }
    pause();
    _exit(0);
  }
  close(slave);
  pid_t background = 0;
  ASSERT_EQ(read(ready.get(), &background, sizeof background), ssize_t{sizeof background});
  EXPECT_TRUE(is_in_foreground(leader, status.st_rdev));
  EXPECT_FALSE(is_in_foreground(background, status.st_rdev));
  EXPECT_TRUE(is_in_foreground(background, status.st_rdev + 1));
  kill(background, SIGKILL);
  kill(leader, SIGKILL);
  waitpid(leader, nullptr, 0);
  EXPECT_FALSE(is_in_foreground(leader, status.st_rdev));
}

}  // namespace
}  // namespace migrate::relay_testing
