#include "libmigrate/proc/terminal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "libmigrate/proc/terminal_of_process.h"

namespace migrate {
namespace {

class Terminal : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = make_pseudo_terminal("/dev/ptmx", 0);
    ASSERT_TRUE(made) << made.error().message();
    pair = std::move(*made);
  }

  int slave() const { return pair.slave.get(); }
  TerminalModes modes() const { return read_modes(slave()).value(); }

  void type(std::string_view bytes) const {
    ASSERT_EQ(::write(pair.master.get(), bytes.data(), bytes.size()),
              static_cast<ssize_t>(bytes.size()));
  }
  std::string read_once() const {
    std::array<char, 5000> bytes{};
    const ssize_t count = ::read(slave(), bytes.data(), bytes.size());
    return count < 0 ? "nothing" : std::string(bytes.data(), static_cast<std::size_t>(count));
  }
  std::string shown() const {
    std::array<char, 5000> bytes{};
    const ssize_t count = ::read(pair.master.get(), bytes.data(), bytes.size());
    return count < 0 ? "" : std::string(bytes.data(), static_cast<std::size_t>(count));
  }

  PseudoTerminal pair;
};

TEST_F(Terminal, ModesAreThoseThatTheCLibrarySees) {
  termios wanted{};
  ASSERT_EQ(::tcgetattr(slave(), &wanted), 0);
  wanted.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  wanted.c_cc[VINTR] = 7;
  ASSERT_EQ(::tcsetattr(slave(), TCSANOW, &wanted), 0);
  const TerminalModes seen = modes();
  EXPECT_EQ(seen.local, wanted.c_lflag);
  EXPECT_EQ(seen.input, wanted.c_iflag);
  EXPECT_EQ(seen.characters.at(VINTR), 7);
  EXPECT_TRUE(seen.edits_lines());
  EXPECT_TRUE(seen.changes_output());
  EXPECT_EQ(read_modes(pair.master.get()).value(), seen) << "its master tells the slave's";
}

TEST_F(Terminal, SpeedsAreExact) {
  TerminalModes wanted = modes();
  wanted.control = (wanted.control & ~static_cast<std::uint32_t>(CBAUD)) | 0010000;  // BOTHER
  wanted.input_speed = 31250;
  wanted.output_speed = 31250;
  ASSERT_TRUE(write_modes(pair.master.get(), wanted));
  EXPECT_EQ(modes().output_speed, 31250U);
  const auto read = TerminalModes::from_bytes(modes().to_bytes());
  ASSERT_TRUE(read);
  EXPECT_EQ(*read, modes());
  EXPECT_FALSE(TerminalModes::from_bytes("short"));
}

TEST_F(Terminal, SizeIsThatOfBothSides) {
  const TerminalSize wanted{40, 132, 1000, 700};
  ASSERT_TRUE(write_size(pair.master.get(), wanted));
  EXPECT_EQ(read_size(slave()).value(), wanted);
}

TEST_F(Terminal, LinesAndAPartOfOneAreTakenAndPutBackAsTheyWere) {
  const TerminalModes before = modes();
  type("first\rsecond\x04third, wr\x7fong\rhal");
  const auto taken = take_input(slave(), before);
  ASSERT_TRUE(taken);
  while (!shown().empty()) {
  }
  const std::vector<TerminalInput> expected{
      {"first\n", true}, {"second", true}, {"third, wong\n", true}, {"hal", false}};
  EXPECT_EQ(*taken, expected);
  EXPECT_EQ(modes(), raw_modes(before));
  ASSERT_TRUE(put_input(slave(), *taken, before));
  EXPECT_EQ(modes(), before);
  EXPECT_EQ(shown(), "") << "it was echoed already";
  EXPECT_EQ(read_once(), "first\n");
  EXPECT_EQ(read_once(), "second");
  EXPECT_EQ(read_once(), "third, wong\n");
  EXPECT_EQ(read_once(), "nothing");
  type("\x7f\x7fm\r");  // The part can still be edited.
  EXPECT_EQ(read_once(), "hm\n");
}

TEST_F(Terminal, AnEndOfFileThatWaitsIsPutBackAsOne) {
  const TerminalModes before = modes();
  type("\x04");
  const auto taken = take_input(slave(), before);
  ASSERT_TRUE(taken);
  EXPECT_EQ(*taken, std::vector<TerminalInput>({{"", true}}));
  ASSERT_TRUE(put_input(slave(), *taken, before));
  EXPECT_EQ(read_once(), "");
  EXPECT_EQ(read_once(), "nothing");
}

TEST_F(Terminal, RawInputIsTakenAndPutBackByteForByte) {
  TerminalModes raw = raw_modes(modes());
  raw.local |= static_cast<std::uint32_t>(ECHO);
  ASSERT_TRUE(write_modes(slave(), raw));
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) {
    bytes.push_back(static_cast<char>(byte));
  }
  type(bytes);
  const auto taken = take_input(slave(), raw);
  ASSERT_TRUE(taken);
  while (!shown().empty()) {
  }
  EXPECT_EQ(*taken, std::vector<TerminalInput>({{bytes, false}}));
  ASSERT_TRUE(put_input(slave(), *taken, raw));
  EXPECT_EQ(shown(), "");
  EXPECT_EQ(read_once(), bytes);
}

TEST_F(Terminal, ControlCharactersThatWereTypedLiterallyStaySo) {
  const TerminalModes before = modes();
  type(
      "a\x16\x03"
      "b\x16\x04"
      "c\r");
  const auto taken = take_input(slave(), before);
  ASSERT_TRUE(taken);
  EXPECT_EQ(*taken, std::vector<TerminalInput>({{"a\x03"
                                                 "b\x04"
                                                 "c\n",
                                                 true}}));
  ASSERT_TRUE(put_input(slave(), *taken, before));
  EXPECT_EQ(read_once(),
            "a\x03"
            "b\x04"
            "c\n");
}

TEST_F(Terminal, APlainOneHasNoPeculiarity) {
  EXPECT_EQ(peculiarity_of_terminal(slave()), "");
  ASSERT_EQ(::ioctl(slave(), TIOCEXCL), 0);
  EXPECT_NE(peculiarity_of_terminal(slave()).find("TIOCEXCL"), std::string::npos);
  ASSERT_EQ(::ioctl(slave(), TIOCNXCL), 0);
  termios locked{};
  locked.c_lflag = ECHO;
  ASSERT_EQ(::ioctl(slave(), TIOCSLCKTRMIOS, &locked), 0);
  EXPECT_NE(peculiarity_of_terminal(slave()).find("locked"), std::string::npos);
  locked.c_lflag = 0;
  ASSERT_EQ(::ioctl(slave(), TIOCSLCKTRMIOS, &locked), 0);
  pair.master.reset();
  EXPECT_EQ(peculiarity_of_terminal(slave()), "it was hung up");
}

TEST_F(Terminal, IsNumberedAsWantedIfThatIsFree) {
  unsigned number = 0;
  ASSERT_EQ(::ioctl(pair.master.get(), TIOCGPTN, &number), 0);
  const unsigned wanted = number + 2;
  const auto other = make_pseudo_terminal("/dev/ptmx", wanted);
  ASSERT_TRUE(other);
  ASSERT_EQ(::ioctl(other->master.get(), TIOCGPTN, &number), 0);
  EXPECT_GE(number, wanted);
  const auto same = make_pseudo_terminal("/dev/ptmx", number);
  ASSERT_TRUE(same) << "another number, if that is taken";
}

TEST_F(Terminal, ItsDeviceIsThatOfItsNode) {
  struct stat status {};
  ASSERT_EQ(::fstat(slave(), &status), 0);
  EXPECT_EQ(terminal_device(slave()).value(), status.st_rdev);
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_FALSE(terminal_device(null.get()));
}

TEST(TerminalOfProcess, TellsWhetherItLeadsItsSession) {
  const UniqueFd self(::open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto own = read_terminal_of_process(self.get(), "stat");
  ASSERT_TRUE(own);
  EXPECT_EQ(own->leads_session, ::getsid(0) == ::getpid());
}

}  // namespace
}  // namespace migrate
