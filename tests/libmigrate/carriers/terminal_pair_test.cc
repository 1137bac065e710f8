#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/file.h"
#include "libmigrate/proc/terminal.h"
#include "tests/libmigrate/carriers/hosts.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

void say(int fd, const std::string& text) {
  ASSERT_EQ(::write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
}

// After the kernel has passed on what was written to the other side.
std::string hear(int fd) {
  pollfd polled{fd, POLLIN, 0};
  ::poll(&polled, 1, 0);
  return (polled.revents & POLLIN) != 0 ? test::read_now(fd) : "nothing";
}

bool has_hung_up(int master) {
  pollfd polled{master, 0, 0};
  return ::poll(&polled, 1, 0) > 0 && (polled.revents & POLLHUP) != 0;
}

/// A pseudo-terminal of ours that is found, captured, and made anew under the same number when the
/// old one is gone. One test at a time, whatever process it is in: between those another would take
/// the number.
class TerminalPair : public testing::Test {
 protected:
  TerminalPair()
      : lock_(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC)),
        is_alone_(::flock(lock_.get(), LOCK_EX) == 0),
        old_(make_pseudo_terminal("/dev/ptmx", 0).value()) {
    if (!can_type_input()) {
      skip_ = true;
    }
  }
  void SetUp() override {
    ASSERT_TRUE(is_alone_);
    if (skip_) {
      GTEST_SKIP() << "putting input back needs CAP_SYS_ADMIN";
    }
  }

  int master() const { return old_.master.get(); }
  int slave() const { return old_.slave.get(); }
  void change_modes(tcflag_t local, bool wanted) const {
    TerminalModes modes = read_modes(slave()).value();
    modes.local = wanted ? modes.local | local : modes.local & ~local;
    ASSERT_TRUE(write_modes(slave(), modes));
  }

  /// Moves both sides, or the master alone if the other is closed.
  void move() {
    test::Source source;
    ASSERT_GE(source.find(master()), 0) << testing::PrintToString(source.refusals());
    const bool is_open = old_.slave.valid();
    if (is_open) {
      ASSERT_EQ(source.find(slave()), 1) << testing::PrintToString(source.refusals());
      EXPECT_EQ(source.private_terminals.size(), 1U);
    }
    ASSERT_TRUE(source.capture());
    ASSERT_EQ(source.objects().terminal_pairs_size(), 1);
    still_there_ = hear(master());
    old_.master.reset();
    old_.slave.reset();
    test::Destination destination(source.objects());
    new_.master = destination.make(source.file(0)).value();
    if (is_open) {
      new_.slave = destination.make(source.file(1)).value();
    }
  }

  UniqueFd lock_;
  bool is_alone_;
  PseudoTerminal old_;
  PseudoTerminal new_;
  std::string still_there_;  // What the old master had to read when all was captured.
  bool skip_ = false;
};

TEST_F(TerminalPair, IsTheSameAgain) {
  struct stat before {};
  ASSERT_EQ(::fchmod(slave(), 0640), 0);
  ASSERT_EQ(::fchown(slave(), 7, 8), 0);
  ASSERT_EQ(::fstat(slave(), &before), 0);
  ASSERT_TRUE(write_size(slave(), {30, 90, 3, 4}));
  change_modes(ECHO | ICANON, false);
  const TerminalModes modes = read_modes(slave()).value();
  const int yes = 1;
  ASSERT_EQ(::ioctl(master(), TIOCPKT, &yes), 0);
  ASSERT_EQ(::fcntl(master(), F_SETFL, 0), 0);
  move();
  struct stat after {};
  ASSERT_EQ(::fstat(new_.slave.get(), &after), 0);
  EXPECT_EQ(after.st_rdev, before.st_rdev);
  EXPECT_EQ(after.st_mode, before.st_mode);
  EXPECT_EQ(after.st_uid, 7U);
  EXPECT_EQ(after.st_gid, 8U);
  EXPECT_EQ(read_modes(new_.slave.get()).value(), modes);
  EXPECT_EQ(read_size(new_.master.get()).value(), (TerminalSize{30, 90, 3, 4}));
  int packets = 0;
  ASSERT_EQ(::ioctl(new_.master.get(), TIOCGPKT, &packets), 0);
  EXPECT_EQ(packets, 1);
  EXPECT_EQ(::fcntl(new_.master.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(::fcntl(new_.slave.get(), F_GETFL) & O_NONBLOCK, 0);
  say(new_.master.get(), "x");
  EXPECT_EQ(hear(new_.slave.get()), "x");
}

TEST_F(TerminalPair, WhatWaitsBothWaysGoesAlongAndStaysWhereItWas) {
  say(slave(), "printed\n");
  say(master(), "line\nhalf");
  move();
  EXPECT_EQ(still_there_, "printed\r\nline\r\nhalf");  // With the echo of what was typed.
  EXPECT_EQ(hear(new_.master.get()), still_there_);
  EXPECT_EQ(hear(new_.slave.get()), "line\n");
  EXPECT_EQ(hear(new_.slave.get()), "nothing");
  say(new_.master.get(), "\177-line\n");  // The half can be edited.
  EXPECT_EQ(hear(new_.slave.get()), "hal-line\n");
}

TEST_F(TerminalPair, AsMuchOutputAsThereCanBeGoesAlong) {
  std::string all;
  for (ssize_t count = 1; count > 0;) {
    const std::string piece = std::to_string(all.size()) + " of output, ";
    count = ::write(slave(), piece.data(), piece.size());
    all += piece.substr(0, static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  }
  EXPECT_GT(all.size(), kMostTerminalInput);
  move();
  std::string heard;
  for (std::string part = hear(new_.master.get()); part != "nothing";
       part = hear(new_.master.get())) {
    heard += part;
  }
  EXPECT_EQ(heard, all);
}

TEST_F(TerminalPair, AMasterWhoseOtherSideIsClosedIsSoAgain) {
  say(slave(), "last words\n");
  const int yes = 1;
  old_.slave.reset();
  ASSERT_EQ(::ioctl(master(), TIOCSPTLCK, &yes), 0);
  ASSERT_TRUE(has_hung_up(master()));
  move();
  EXPECT_TRUE(has_hung_up(new_.master.get()));
  EXPECT_EQ(hear(new_.master.get()), "last words\r\n");
  int locked = 0;
  ASSERT_EQ(::ioctl(new_.master.get(), TIOCGPTLCK, &locked), 0);
  EXPECT_EQ(locked, 1);
}

TEST_F(TerminalPair, OneThatWasNeverOpenedIsRefusedAndLeftAsItIs) {
  const UniqueFd unopened = open_file("/dev/ptmx", O_RDWR | O_NOCTTY).value();
  test::Source source;
  EXPECT_EQ(source.find(unopened.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"TERMINAL_PAIR"});
  EXPECT_FALSE(has_hung_up(unopened.get()));
}

TEST_F(TerminalPair, SpecialSettingsAreRefused) {
  ASSERT_EQ(::ioctl(slave(), TIOCEXCL), 0);
  test::Source source;
  EXPECT_EQ(source.find(slave()), -1);
  ASSERT_EQ(::ioctl(slave(), TIOCNXCL), 0);
  ASSERT_EQ(::ioctl(master(), TIOCEXCL), 0);
  EXPECT_EQ(source.find(master()), -1);
  EXPECT_EQ(source.refusals(), (Refusals{"TERMINAL_PAIR", "TERMINAL_PAIR"}));
}

TEST_F(TerminalPair, OutputThatIsStoppedStaysSo) {
  say(slave(), "before");
  ASSERT_EQ(::ioctl(slave(), TCXONC, TCOOFF), 0);
  move();
  EXPECT_EQ(hear(new_.master.get()), "before");
  EXPECT_EQ(::write(new_.slave.get(), "x", 1), -1);
  say(new_.master.get(), "\021");  // ^Q undoes no tcflow(3).
  hear(new_.slave.get());
  EXPECT_EQ(::write(new_.slave.get(), "x", 1), -1);
  ASSERT_EQ(::ioctl(new_.slave.get(), TCXONC, TCOON), 0);
  say(new_.slave.get(), "x");
}

TEST_F(TerminalPair, OutputThatACharacterHasStoppedIsLetFlowByOne) {
  say(master(), "typed\n\023");
  move();
  EXPECT_EQ(::write(new_.slave.get(), "x", 1), -1);
  EXPECT_EQ(hear(new_.slave.get()), "typed\n");
  say(new_.master.get(), "\021");
  hear(new_.slave.get());
  say(new_.slave.get(), "x");
}

TEST_F(TerminalPair, APacketThatWasNotReadIsWaitedFor) {
  const int yes = 1;
  ASSERT_EQ(::ioctl(master(), TIOCPKT, &yes), 0);
  ASSERT_EQ(::ioctl(slave(), TCFLSH, TCIFLUSH), 0);
  test::Source source;
  EXPECT_EQ(source.find(master()), -1);
  EXPECT_EQ(hear(master()), std::string(1, TIOCPKT_FLUSHREAD));
  EXPECT_GE(source.find(master()), 0);
  EXPECT_EQ(source.refusals(), Refusals{"TERMINAL_BUSY"});
}

TEST_F(TerminalPair, WhatAPeerSendsIsLookedAt) {
  wire::Objects objects;
  wire::OpenFile& file = *objects.add_files();
  file.set_kind(wire::OpenFile::TERMINAL_PAIR);
  EXPECT_EQ(test::flaw_in(objects), "terminal_pairs");
  wire::TerminalPair& pair = *objects.add_terminal_pairs();
  EXPECT_EQ(test::flaw_in(objects), "modes of a terminal pair");
  pair.set_modes(read_modes(slave()).value().to_bytes());
  EXPECT_EQ(test::flaw_in(objects), "");
  file.set_object(1);
  EXPECT_EQ(test::flaw_in(objects), "a closed side of a terminal pair");
  pair.set_instance(1);
  EXPECT_EQ(test::flaw_in(objects), "");
  pair.set_number(kMostTerminalNumber + 1);
  EXPECT_EQ(test::flaw_in(objects), "a terminal pair");
}

}  // namespace
}  // namespace migrate
