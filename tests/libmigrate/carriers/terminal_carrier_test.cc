#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <utility>

#include "base/file.h"
#include "libmigrate/proc/terminal.h"
#include "tests/libmigrate/carriers/hosts.h"

namespace migrate {
namespace {

UniqueFd open_again(int fd, int flags) {
  return open_file("/proc/self/fd/" + std::to_string(fd), flags | O_NOCTTY).value();
}

/// A pseudo-terminal whose master somebody else has.
class ElsewhereFed {
 public:
  ElsewhereFed() {
    PseudoTerminal pair = make_pseudo_terminal("/dev/ptmx", 0).value();
    slave_ = std::move(pair.slave);
    holder_ = ::fork();
    if (holder_ == 0) {
      for (;;) {
        ::pause();
      }
    }
  }
  ElsewhereFed(const ElsewhereFed&) = delete;
  ElsewhereFed& operator=(const ElsewhereFed&) = delete;
  ~ElsewhereFed() { hang_up(); }

  int slave() const { return slave_.get(); }
  void hang_up() {
    if (holder_ > 0) {
      ::kill(holder_, SIGKILL);
      ::waitpid(holder_, nullptr, 0);
    }
    holder_ = -1;
  }

 private:
  UniqueFd slave_;
  pid_t holder_ = -1;
};

TEST(TerminalCarrier, AllOpenFilesOfOneAreOneStream) {
  const ElsewhereFed pair;
  const ElsewhereFed other;
  ASSERT_TRUE(write_size(pair.slave(), {30, 90, 3, 4}));
  const UniqueFd reader = open_again(pair.slave(), O_RDONLY);
  test::Source source;
  ASSERT_EQ(source.find(pair.slave()), 0);
  ASSERT_EQ(source.find(reader.get()), 1);
  ASSERT_EQ(source.find(other.slave()), 2);
  source.settle();
  ASSERT_EQ(source.objects().terminals_size(), 2);
  for (const int file : {0, 1}) {
    EXPECT_EQ(source.file(file).kind(), wire::OpenFile::TERMINAL);
    EXPECT_EQ(source.file(file).object(), source.objects().terminals(0).stream());
    EXPECT_FALSE(source.file(file).takes_control());
  }
  EXPECT_EQ(source.file(2).object(), source.objects().terminals(1).stream());
  EXPECT_NE(source.file(2).object(), source.file(0).object());
  const wire::Terminal& terminal = source.objects().terminals(0);
  EXPECT_EQ(terminal.rows(), 30U);
  EXPECT_EQ(terminal.columns(), 90U);
  EXPECT_EQ(terminal.modes(), read_modes(pair.slave()).value().to_bytes());
  EXPECT_FALSE(terminal.is_controlling());
  EXPECT_EQ(test::flaw_in(source.objects()), "");
}

TEST(TerminalCarrier, OneOfAnEarlierMoveKeepsItsStream) {
  const ElsewhereFed pair;
  test::Source source;
  source.known_terminals[terminal_device(pair.slave()).value()] = 17;
  ASSERT_EQ(source.find(pair.slave()), 0);
  source.settle();
  EXPECT_EQ(source.file(0).object(), 17U);
}

TEST(TerminalCarrier, OnlyPlainOnesAreCarried) {
  ElsewhereFed pair;
  ASSERT_EQ(::ioctl(pair.slave(), TIOCEXCL), 0);
  test::Source source;
  EXPECT_EQ(source.find(pair.slave()), -1);
  ASSERT_EQ(::ioctl(pair.slave(), TIOCNXCL), 0);
  pair.hang_up();
  EXPECT_EQ(source.find(pair.slave()), -1);
  EXPECT_EQ(source.refusals(), (std::vector<std::string>{"TERMINAL_STATE", "TERMINAL_STATE"}));
}

TEST(TerminalCarrier, TheProcessGetsAnOpenFileOfItsOwn) {
  const PseudoTerminal pair = make_pseudo_terminal("/dev/ptmx", 0).value();
  wire::Objects objects;
  wire::Terminal& terminal = *objects.add_terminals();
  terminal.set_stream(17);
  terminal.set_modes(read_modes(pair.slave.get()).value().to_bytes());
  wire::OpenFile& file = *objects.add_files();
  file.set_kind(wire::OpenFile::TERMINAL);
  file.set_object(17);
  file.set_flags(O_WRONLY);
  test::Destination destination(objects);
  destination.relays[17] = pair.slave.get();
  const UniqueFd made = destination.make(file).value();
  EXPECT_EQ(::isatty(made.get()), 1);
  EXPECT_EQ(::fcntl(made.get(), F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_WRONLY);
}

TEST(TerminalCarrier, WhatAPeerSendsIsLookedAt) {
  wire::Objects objects;
  wire::OpenFile& file = *objects.add_files();
  file.set_kind(wire::OpenFile::TERMINAL);
  file.set_object(17);
  EXPECT_NE(test::flaw_in(objects).find("terminal"), std::string::npos);
  wire::Terminal& terminal = *objects.add_terminals();
  terminal.set_stream(17);
  terminal.set_modes("short");
  EXPECT_NE(test::flaw_in(objects).find("modes"), std::string::npos);
}

}  // namespace
}  // namespace migrate
