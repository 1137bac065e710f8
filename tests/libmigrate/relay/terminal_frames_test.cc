#include "libmigrate/relay/terminal_frames.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "libmigrate/proc/terminal.h"
#include "libmigrate/relay/home_terminal.h"

namespace migrate {
namespace {

TEST(TerminalFrames, PlainBytesComeBackWhateverTheyAre) {
  std::string bytes;
  for (int byte = 0; byte < 512; ++byte) {
    bytes.push_back(static_cast<char>(byte));
  }
  bytes += "\xFF\xFF\xFF";
  std::string frames;
  add_plain(frames, bytes);
  std::string plain;
  std::string_view left(frames);
  while (!left.empty()) {
    const auto unit = first_unit(left);
    ASSERT_TRUE(unit && *unit);
    ASSERT_EQ((*unit)->kind, TerminalFrame::kPlain);
    plain.append((*unit)->content);
    left.remove_prefix((*unit)->bytes);
  }
  EXPECT_EQ(plain, bytes);
}

TEST(TerminalFrames, AFrameIsReadWhenItIsWhole) {
  std::string frames;
  add_frame(frames, TerminalFrame::kLine, "ls\n");
  add_plain(frames, "x");
  for (std::size_t length = 0; length < 7; ++length) {
    const auto unit = first_unit(std::string_view(frames).substr(0, length));
    ASSERT_TRUE(unit);
    EXPECT_FALSE(*unit) << length;
  }
  const auto unit = first_unit(frames);
  ASSERT_TRUE(unit && *unit);
  EXPECT_EQ((*unit)->kind, TerminalFrame::kLine);
  EXPECT_EQ((*unit)->content, "ls\n");
  EXPECT_EQ((*unit)->bytes, 7U);
}

TEST(TerminalFrames, WhatAKindCannotBeIsCorrupt) {
  const std::vector<std::string> wrong{std::string("\xFFx\0\0", 4),
                                       std::string("\xFFm\x01\0", 4),
                                       std::string("\xFFg\x01\0", 4),
                                       std::string("\xFFl\x01\x10", 4),
                                       std::string("\xFF"
                                                   "d\0\0",
                                                   4),
                                       std::string("\xFF\0\0\0", 4)};
  for (const std::string& bytes : wrong) {
    EXPECT_FALSE(first_unit(bytes)) << testing::PrintToString(bytes);
  }
}

TEST(TypedBefore, OnlyWhatWasTypedLastGoesBack) {
  TerminalModes lines;
  lines.local = 2;                // ICANON
  lines.characters.at(2) = 0x7F;  // VERASE
  lines.characters.at(3) = 0x15;  // VKILL
  lines.characters.at(4) = 0x04;  // VEOF
  const std::vector<TerminalInput> last{{"ls\n", true}, {"pw", false}};
  EXPECT_EQ(typed_before(last, "make\rls\rpw", lines), last);
  EXPECT_EQ(typed_before(last, "make\rlt\x7fs\rpx\x7fw", lines), last);
  EXPECT_EQ(typed_before(last, "make\rnothing\x15ls\rpw", lines), last);
  EXPECT_TRUE(typed_before(last, "make\rls\rpwd", lines).empty());
  EXPECT_EQ(typed_before(last, "make\rrm\rpw", lines), std::vector<TerminalInput>({last[1]}));
  EXPECT_TRUE(typed_before({{"rm -rf\n", true}}, "", lines).empty());
  const std::vector<TerminalInput> ended{{"word", true}, {"", true}};
  EXPECT_EQ(typed_before(ended, "word\x04\x04", lines), ended);
  EXPECT_TRUE(typed_before({{"", true}}, "", lines).empty()) << "an end of file";
  const std::vector<TerminalInput> chosen{{"r", true}, {"m *\n", true}};
  EXPECT_EQ(typed_before(chosen, "rim *\r", lines), std::vector<TerminalInput>({chosen[1]}))
      << "some of the characters only";
}

TEST(WholeUnits, EndBeforeAFrameThatIsCut) {
  std::string frames;
  add_plain(frames, "ab\xFF");
  add_frame(frames, TerminalFrame::kLine, "ls\n");
  add_frame(frames, TerminalFrame::kGoOn, {});
  const std::vector<std::size_t> ends{0, 1, 2, 2, 2, 2, 2, 7, 7, 7, 7, 7, 7, 7, 14, 14, 14, 14, 18};
  ASSERT_EQ(frames.size() + 1, ends.size());
  for (std::size_t most = 0; most < ends.size(); ++most) {
    EXPECT_EQ(whole_units(frames, most), ends[most]) << most;
  }
}

}  // namespace
}  // namespace migrate
