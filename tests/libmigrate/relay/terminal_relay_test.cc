// A terminal: a user at its master, a deputy at its slave, and a pseudo-terminal where the process
// is.
#include <sys/ioctl.h>
#include <termios.h>

#include <csignal>

#include "libmigrate/proc/terminal.h"
#include "tests/libmigrate/relay/relay_world.h"

namespace migrate::relay_testing {
namespace {

constexpr std::uint32_t kTerminal = 7;

class RelayedTerminal : public RelayWorld {
 protected:
  void SetUp() override {
    auto made = make_pseudo_terminal("/dev/ptmx", 0);
    ASSERT_TRUE(made) << made.error().message();
    user = std::move(*made);
    ASSERT_TRUE(write_size(user.master.get(), {24, 80, 0, 0}));
  }

  /// The process leaves home, where its terminal is as it is now.
  void leave_home() {
    const TerminalModes modes = read_modes(user.slave.get()).value();
    std::vector<HomeRelay::Stream> streams;
    streams.push_back({kTerminal, user.slave.duplicate().value(), wire::RELAY_BOTH,
                       HomeTerminal::Found{modes, true, true}});
    start_home(std::move(streams));
    specs = {{kTerminal, wire::RELAY_BOTH, true}};
    arrive(make_relay_state(specs), modes);
  }

  /// It arrives at a place, which is linked to home.
  void arrive(const wire::RelayState& state, const TerminalModes& modes) {
    GuestRelay::Handlers handlers;
    handlers.on_foreground = [this](bool foreground) { foregrounds.push_back(foreground); };
    handlers.on_signal = [this](std::span<const std::byte>) {
      signal_came_after = foregrounds.size();
    };
    auto relay = GuestRelay::create(state, std::move(handlers));
    ASSERT_TRUE(relay);
    Place next;
    next.relay = std::move(*relay);
    TerminalParts parts;
    parts.stream = kTerminal;
    parts.pair = make_pseudo_terminal("/dev/ptmx", 0).value();
    parts.modes = modes;
    parts.size = {24, 80, 0, 0};
    parts.permissions = 0620;
    std::vector<TerminalParts> all;
    all.push_back(std::move(parts));
    auto ends = next.relay->create_endpoints(::getuid(), ::getgid(), std::move(all));
    ASSERT_TRUE(ends) << ends.error().message();
    ASSERT_TRUE(ends->at(0).is_terminal);
    next.ends[kTerminal] = std::move(ends->at(0).process_end);
    place = std::move(next);
    connection = connect(*place.relay);
    place.relay->activate();
  }

  int process() { return place.ends[kTerminal].get(); }

  void type(std::string_view bytes) {
    ASSERT_EQ(::write(user.master.get(), bytes.data(), bytes.size()),
              static_cast<ssize_t>(bytes.size()));
  }
  /// What the user has seen so far.
  const std::string& screen() {
    std::array<char, 4096> bytes{};
    ssize_t count = 0;
    while ((count = ::read(user.master.get(), bytes.data(), bytes.size())) > 0) {
      seen.append(bytes.data(), static_cast<std::size_t>(count));
    }
    return seen;
  }
  bool shows(std::string_view words) { return screen().find(words) != std::string::npos; }
  /// One read, or "nothing".
  static std::string read_from(int fd) {
    std::array<char, 4096> bytes{};
    const ssize_t count = ::read(fd, bytes.data(), bytes.size());
    return count < 0 ? "nothing" : std::string(bytes.data(), static_cast<std::size_t>(count));
  }
  ::testing::AssertionResult reads(const std::string& expected) {
    std::string got;
    const auto came = turn_until([&] {  // Each byte may come by itself.
      const std::string part = read_from(process());
      got += part == "nothing" ? "" : part;
      return part != "nothing" && got.size() >= expected.size();
    });
    if (!came) {
      return came;
    }
    return got == expected ? ::testing::AssertionSuccess()
                           : ::testing::AssertionFailure() << testing::PrintToString(got);
  }
  void write_as_process(std::string_view bytes) {
    ASSERT_EQ(::write(process(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  bool is_raw() {
    const auto modes = read_modes(user.slave.get());
    return modes && !modes->edits_lines() && modes->local == 0;
  }
  void set_raw(int fd) { ASSERT_TRUE(write_modes(fd, raw_modes(read_modes(fd).value()))); }

  PseudoTerminal user;
  std::string seen;
  std::vector<bool> foregrounds;
  std::size_t signal_came_after = 0;
};

TEST_F(RelayedTerminal, IsOneForTheProcess) {
  leave_home();
  EXPECT_EQ(::isatty(process()), 1);
  EXPECT_EQ(read_size(process()).value(), (TerminalSize{24, 80, 0, 0}));
  ASSERT_TRUE(turn_until([&] { return is_raw(); }));
  type("hello\r");
  EXPECT_TRUE(reads("hello\n"));
  EXPECT_TRUE(turn_until([&] { return shows("hello\r\n"); })) << "the echo";
  write_as_process("answer\n");
  EXPECT_TRUE(turn_until([&] { return shows("answer\r\n"); }));
  EXPECT_FALSE(shows("\r\r\n"));
}

TEST_F(RelayedTerminal, WhatWasTypedBeforeIsReadOnceAndShownOnce) {
  type("first\rsec");
  while (!shows("sec")) {
  }
  leave_home();
  EXPECT_TRUE(reads("first\n"));
  type("ond\r");
  EXPECT_TRUE(reads("second\n"));
  ASSERT_TRUE(turn_until([&] { return shows("second\r\n"); }));
  EXPECT_EQ(screen(), "first\r\nsecond\r\n");
}

TEST_F(RelayedTerminal, ChangesOfModesAndSizeGoBothWays) {
  const TerminalModes before = read_modes(user.slave.get()).value();
  leave_home();
  ASSERT_TRUE(turn_until([&] { return is_raw(); }));
  set_raw(process());
  type("\x03\x1A\xFF");
  EXPECT_TRUE(reads("\x03\x1A\xFF"));
  ASSERT_TRUE(write_size(user.master.get(), {50, 120, 0, 0}));
  ASSERT_TRUE(turn_until([&] { return read_size(process()).value().rows == 50; }));
  ASSERT_TRUE(write_size(process(), {10, 20, 0, 0}));
  ASSERT_TRUE(turn_until([&] { return read_size(user.slave.get()).value().columns == 20; }));
  TerminalModes last = before;
  last.characters.at(VINTR) = 9;
  ASSERT_TRUE(write_modes(process(), last));
  place.relay->report_exit(0);
  ASSERT_TRUE(turn_until([&] { return deputy_relay->finished(); }));
  EXPECT_EQ(read_modes(user.slave.get()).value(), last) << "as the process left it";
}

TEST_F(RelayedTerminal, MovedInRawModesItIsCookedAgainAfterTheEnd) {
  const TerminalModes cooked = read_modes(user.slave.get()).value();
  set_raw(user.slave.get());
  leave_home();
  EXPECT_FALSE(read_modes(process()).value().edits_lines());
  ASSERT_TRUE(write_modes(process(), cooked));
  write_as_process("bye\n");
  place.relay->report_exit(0);
  ASSERT_TRUE(turn_until([&] { return deputy_relay->finished(); }));
  EXPECT_EQ(read_modes(user.slave.get()).value(), cooked);
  EXPECT_TRUE(shows("bye\r\n"));
}

TEST_F(RelayedTerminal, WhatNobodyReadGoesBackAtTheEnd) {
  leave_home();
  ASSERT_TRUE(turn_until([&] { return is_raw(); }));
  type("read\r");
  EXPECT_TRUE(reads("read\n"));
  type("for the shell\rpar");
  ASSERT_TRUE(turn_until([&] { return shows("par"); }));
  place.relay->report_exit(0);
  ASSERT_TRUE(turn_until([&] { return deputy_relay->finished(); }));
  EXPECT_EQ(read_from(user.slave.get()), "for the shell\n");
  EXPECT_EQ(read_from(user.slave.get()), "nothing");
  type("t\r");
  std::string line = "nothing";
  EXPECT_TRUE(turn_until([&] { return (line = read_from(user.slave.get())) != "nothing"; }));
  EXPECT_EQ(line, "part\n");
}

TEST_F(RelayedTerminal, AStoppedProcessLeavesItToTheShell) {
  const TerminalModes cooked = read_modes(user.slave.get()).value();
  set_raw(user.slave.get());
  leave_home();
  ASSERT_TRUE(turn_until([&] { return !foregrounds.empty(); }));
  type("x");
  EXPECT_TRUE(reads("x"));
  ASSERT_TRUE(write_modes(process(), cooked));
  write_as_process("stopped\n");
  place.relay->report_job_state(SIGTSTP);
  ASSERT_TRUE(turn_until([&] { return jobs == std::vector<int>{SIGTSTP}; }));
  EXPECT_TRUE(shows("stopped\r\n")) << "before the shell says so";
  EXPECT_EQ(read_modes(user.slave.get()).value(), cooked);
  type("ls\r");
  turn_times(20);
  EXPECT_EQ(read_from(user.slave.get()), "ls\n") << "the shell's";
  // The shell sets modes, and lets it go on.
  TerminalModes other = cooked;
  other.characters.at(VINTR) = 9;
  ASSERT_TRUE(write_modes(user.slave.get(), other));
  foregrounds.clear();
  std::array<std::byte, kSiginfoBytes> siginfo{};
  siginfo_t information{};
  information.si_signo = SIGCONT;
  std::memcpy(siginfo.data(), &information, siginfo.size());
  ASSERT_TRUE(deputy_relay->send_signal(siginfo));
  ASSERT_TRUE(turn_until([&] { return signal_came_after != 0; }))
      << "the foreground comes before the signal";
  EXPECT_EQ(foregrounds, std::vector<bool>{true});
  EXPECT_EQ(read_modes(process()).value(), other);
  place.relay->report_job_state(0);
  ASSERT_TRUE(turn_until([&] { return is_raw(); }));
  type("again\r");
  EXPECT_TRUE(reads("again\n"));
}

TEST_F(RelayedTerminal, UnreadInputTravelsOnAndComesBackIfTheMoveFails) {
  leave_home();
  ASSERT_TRUE(turn_until([&] { return is_raw(); }));
  type("one\rtwo\rthr");
  ASSERT_TRUE(turn_until([&] { return shows("thr"); }));
  const TerminalModes modes = read_modes(process()).value();
  static_cast<void>(place.relay->freeze_state());
  EXPECT_EQ(read_from(process()), "nothing");
  place.relay->thaw();
  turn();
  EXPECT_EQ(read_from(process()), "one\n");
  const wire::RelayState state = place.relay->freeze_state();
  arrive(state, modes);
  EXPECT_EQ(read_from(process()), "two\n");
  EXPECT_EQ(read_from(process()), "nothing");
  type("ee\r");
  EXPECT_TRUE(reads("three\n"));
  ASSERT_TRUE(turn_until([&] { return shows("three\r\n"); }));
  EXPECT_EQ(screen(), "one\r\ntwo\r\nthree\r\n");
}

TEST_F(RelayedTerminal, WhatTheProcessHasClosedIsTheShellsAgainAfterTheNextMove) {
  const TerminalModes before = read_modes(user.slave.get()).value();
  leave_home();
  ASSERT_TRUE(turn_until([&] { return is_raw(); }));
  write_as_process("bye\n");
  place.ends.clear();
  Place next;
  next.relay = std::move(*GuestRelay::create(place.relay->freeze_state(), {}));
  ASSERT_TRUE(next.relay->create_endpoints(::getuid(), ::getgid()));
  place = std::move(next);
  connection = connect(*place.relay);
  place.relay->activate();
  ASSERT_TRUE(turn_until([&] { return closed.size() == 2; }));
  EXPECT_TRUE(shows("bye\r\n"));
  EXPECT_EQ(read_modes(user.slave.get()).value(), before);
}

// Given back and taken again, it could come behind what is typed meanwhile.
TEST_F(RelayedTerminal, WhatIsTypedDuringAMoveWaitsForTheNextPlace) {
  leave_home();
  ASSERT_TRUE(turn_until([&] { return is_raw(); }));
  const TerminalModes modes = read_modes(process()).value();
  const wire::RelayState state = place.relay->freeze_state();
  connection->cut();
  type("one\r");
  turn_times(5);
  EXPECT_TRUE(is_raw());
  type("two\r");
  arrive(state, modes);
  EXPECT_TRUE(reads("one\n"));
  EXPECT_TRUE(reads("two\n"));
  ASSERT_TRUE(turn_until([&] { return shows("two\r\n"); }));
  EXPECT_EQ(screen(), "one\r\ntwo\r\n");
}

TEST_F(RelayedTerminal, HasItsModesWhileTheLinkIsLost) {
  const TerminalModes before = read_modes(user.slave.get()).value();
  leave_home();
  ASSERT_TRUE(turn_until([&] { return is_raw(); }));
  connection->cut();
  ASSERT_TRUE(turn_until([&] { return read_modes(user.slave.get()).value() == before; }));
  type("meanwhile\r");
  turn_times(5);
  connection = connect(*place.relay);
  EXPECT_TRUE(reads("meanwhile\n"));
  EXPECT_TRUE(is_raw());
}

TEST_F(RelayedTerminal, IsHungUpWithTheUsers) {
  leave_home();
  ASSERT_TRUE(turn_until([&] { return is_raw(); }));
  user.slave.reset();
  user.master.reset();
  EXPECT_TRUE(reads("")) << "the end of file";
}

TEST_F(RelayedTerminal, APlaceTypesNothing) {
  leave_home();
  ASSERT_TRUE(turn_until([&] { return is_raw(); }));
  type("typed\r");
  EXPECT_TRUE(reads("typed\n"));
  // A place that is not ours: it says that more was typed and not read.
  ASSERT_TRUE(put_input(process(), {{"rm -rf /\n", true}}, read_modes(process()).value()));
  place.relay->report_exit(0);
  ASSERT_TRUE(turn_until([&] { return deputy_relay->finished(); }));
  EXPECT_EQ(read_from(user.slave.get()), "nothing");
}

class WorkerThatDied : public RelayedTerminal, public ::testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(HadNoted, WorkerThatDied, ::testing::Bool());

TEST_P(WorkerThatDied, LeavesTheTerminalToTheNext) {
  const TerminalModes before = read_modes(user.slave.get()).value();
  leave_home();
  ASSERT_TRUE(turn_until([&] { return is_raw(); }));
  wire::HomeRelayState noted = deputy_relay->note();
  if (!GetParam()) {  // It died between taking the terminal and noting that.
    noted.mutable_streams(0)->mutable_terminal()->clear_raw_modes();
  }
  const TerminalModes raw = read_modes(user.slave.get()).value();
  deputy_relay.reset();
  ASSERT_TRUE(write_modes(user.slave.get(), raw));  // As by a worker that was killed.
  std::vector<HomeRelay::Stream> streams;
  streams.push_back({kTerminal, user.slave.duplicate().value(), wire::RELAY_BOTH,
                     HomeTerminal::Found{raw, true, true}});
  start_home(std::move(streams));
  deputy_relay->adopt(noted);
  connection = connect(*place.relay);
  type("on\r");
  EXPECT_TRUE(reads("on\n"));
  place.relay->report_exit(0);
  ASSERT_TRUE(turn_until([&] { return deputy_relay->finished(); }));
  EXPECT_EQ(read_modes(user.slave.get()).value(), before);
}

}  // namespace
}  // namespace migrate::relay_testing
