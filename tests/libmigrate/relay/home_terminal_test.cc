// The terminal at home, and a place that is not ours, which says whatever it likes.
#include "libmigrate/relay/home_terminal.h"

#include <gtest/gtest.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>

namespace migrate {
namespace {

class HostilePlace : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = make_pseudo_terminal("/dev/ptmx", 0);
    ASSERT_TRUE(made) << made.error().message();
    user = std::move(*made);
    cooked = read_modes(user.slave.get()).value();
    home.emplace(HomeTerminal::Found{cooked, true, true});
    take();
  }

  void take() {
    home->go_on();
    home->follow(user.slave.get(), true, true, in);
    ASSERT_TRUE(home->is_taken());
  }
  void type(std::string_view bytes) { home->add_typed(bytes, in); }
  bool says(TerminalFrame kind, std::string_view content) {
    return home->apply(user.slave.get(), {kind, content, content.size() + 4}, in).has_value();
  }
  bool returns_from(std::uint64_t offset) {
    std::array<char, sizeof(offset)> bytes;
    std::memcpy(bytes.data(), &offset, bytes.size());
    return says(TerminalFrame::kReturned, {bytes.data(), bytes.size()});
  }
  /// All that a shell would read now.
  std::string waiting() {
    std::string all;
    std::array<char, 4096> bytes;
    for (int i = 0; i < 100; ++i) {
      const ssize_t count = ::read(user.slave.get(), bytes.data(), bytes.size());
      all += count < 0    ? ""
             : count == 0 ? "<end of file>"
                          : std::string(bytes.data(), static_cast<std::size_t>(count));
    }
    return all;
  }

  PseudoTerminal user;
  TerminalModes cooked;
  std::optional<HomeTerminal> home;
  StreamBuffer in;
};

TEST_F(HostilePlace, TypesNothingByWhatHomeHasToldIt) {
  TerminalModes chosen = cooked;
  chosen.local = ICANON;
  constexpr std::string_view kCommand("rm *\n");
  std::memcpy(&chosen.characters.at(5), kCommand.data(), kCommand.size());
  ASSERT_TRUE(says(TerminalFrame::kSettings, chosen.to_bytes()));
  ASSERT_TRUE(returns_from(in.end()));
  ASSERT_TRUE(says(TerminalFrame::kSettings, cooked.to_bytes()));
  const std::uint64_t told = in.end();
  take();  // Home finds the modes that the place has had set, and tells it.
  const std::size_t at = in.view(told, in.size()).find(kCommand);
  ASSERT_NE(at, std::string_view::npos);
  EXPECT_FALSE(returns_from(told + at));
  EXPECT_EQ(waiting(), "");
}

TEST_F(HostilePlace, GivesBackOnceWhatWasTypedOnce) {
  type("make\r");
  ASSERT_TRUE(returns_from(in.first()));
  ASSERT_TRUE(returns_from(in.first()));
  EXPECT_EQ(waiting(), "make\n");
}

TEST_F(HostilePlace, DoesNotChooseWhatIsTakenBack) {
  type("echo rm *\r");
  TerminalModes chosen = cooked;
  chosen.characters.at(VKILL) = 'o';
  chosen.characters.at(VERASE) = ' ';
  ASSERT_TRUE(says(TerminalFrame::kSettings, chosen.to_bytes()));
  in.drop_to(in.end());
  ASSERT_TRUE(says(TerminalFrame::kLine, "r*\n"));
  ASSERT_TRUE(returns_from(in.end()));
  EXPECT_EQ(waiting(), "");
}

TEST_F(HostilePlace, EndsNoShell) {
  ASSERT_TRUE(says(TerminalFrame::kLine, ""));
  ASSERT_TRUE(says(TerminalFrame::kLine, ""));
  ASSERT_TRUE(returns_from(in.end()));
  EXPECT_EQ(waiting(), "");
}

TEST(HomeTerminalEnd, AnEndOfFileThatWasTypedComesBack) {
  PseudoTerminal user = make_pseudo_terminal("/dev/ptmx", 0).value();
  const TerminalModes cooked = read_modes(user.slave.get()).value();
  ASSERT_EQ(::write(user.master.get(), "word\4", 5), 5);
  HomeTerminal home(HomeTerminal::Found{cooked, true, true});
  StreamBuffer in;
  home.follow(user.slave.get(), true, true, in);
  in.drop_to(in.end());
  ASSERT_TRUE(home.apply(user.slave.get(), {TerminalFrame::kLine, "word", 8}, in));
  const std::uint64_t offset = in.end();
  std::string bytes(sizeof(offset), '\0');
  std::memcpy(bytes.data(), &offset, bytes.size());
  ASSERT_TRUE(home.apply(user.slave.get(), {TerminalFrame::kReturned, bytes, 12}, in));
  std::array<char, 64> line;
  EXPECT_EQ(::read(user.slave.get(), line.data(), line.size()), 4);
}

}  // namespace
}  // namespace migrate
