#include "libmigrate/proc/proc_text.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <string>
#include <vector>

#include "base/file.h"
#include "pager/page_range.h"
#include "tests/base/code_of.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

/// A child that has taken a name of its own, as anybody may.
class Named {
 public:
  explicit Named(const char* name) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe(ends.data()), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::prctl(PR_SET_NAME, name);
      static_cast<void>(!::write(ends[1], "y", 1));
      for (;;) {
        ::pause();
      }
    }
    char ready = 0;
    EXPECT_EQ(::read(ends[0], &ready, 1), 1);
    ::close(ends[0]);
    ::close(ends[1]);
  }
  ~Named() { end(); }
  Named(const Named&) = delete;
  Named& operator=(const Named&) = delete;

  void end() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(std::exchange(pid_, 0), nullptr, 0);
    }
  }
  pid_t pid() const { return pid_; }
  std::string folder() const { return "/proc/" + std::to_string(pid_); }
  std::string text(const std::string& file) const {
    return read_file(folder() + "/" + file).value();
  }

 private:
  pid_t pid_ = 0;
};

TEST(ProcText, LinesAndWordsAreTakenOffOneByOne) {
  std::string_view text = "one two\n\n\t three\tfour  ";
  std::string_view line = take_line(text);
  EXPECT_EQ(line, "one two");
  EXPECT_EQ(take_line(text), "");
  EXPECT_EQ(take_word(line), "one");
  EXPECT_EQ(take_word(line), "two");
  EXPECT_EQ(take_word(line), "");
  line = take_line(text);  // The last one has no line feed.
  EXPECT_EQ(text, "");
  EXPECT_EQ(take_word(line), "three");
  EXPECT_EQ(take_word(line), "four");
  EXPECT_EQ(take_word(line), "");
  EXPECT_EQ(line, "");
  EXPECT_EQ(take_line(text), "");
}

TEST(ProcText, ANumberIsAWholeWord) {
  EXPECT_EQ(parse_number("0"), 0U);
  EXPECT_EQ(parse_number("7f", 16), 0x7fU);
  EXPECT_EQ(parse_number("7F", 16), 0x7fU);
  EXPECT_EQ(parse_number("18446744073709551615"), ~std::uint64_t{0});
  EXPECT_EQ(parse_number("ffffffffffffffff", 16), ~std::uint64_t{0});
  for (const char* none : {"", " ", "-1", "+1", "1 ", " 1", "1x", "0x1", "1.5", "f"}) {
    EXPECT_EQ(parse_number(none), std::nullopt) << "'" << none << "'";
  }
  EXPECT_EQ(parse_number("18446744073709551616"), std::nullopt);
  EXPECT_EQ(parse_number("10000000000000000", 16), std::nullopt);
}

TEST(ProcText, AFieldIsFoundByTheWholeBeginningOfItsLine) {
  const std::string_view text = "VmRSS:\t  12 kB \nRss:\t99\nEmpty:\nLast: 3 4 5";
  EXPECT_EQ(find_field(text, "VmRSS:"), "12 kB");
  EXPECT_EQ(find_field(text, "Rss:"), "99");  // Not the end of another key.
  EXPECT_EQ(find_field(text, "Empty:"), "");
  EXPECT_EQ(find_field(text, "Nothing:"), std::nullopt);
  EXPECT_EQ(number_field(text, "VmRSS:"), 12U);
  EXPECT_EQ(number_field(text, "Rss:", 16), 0x99U);
  EXPECT_EQ(number_field(text, "Empty:", 10, 8), 8U);
  EXPECT_EQ(number_field(text, "Nothing:", 10, 9), 9U);
  EXPECT_EQ(last_number_field(text, "Last:"), 5U);
  EXPECT_EQ(last_number_field(text, "Rss:"), 99U);
  EXPECT_EQ(last_number_field(text, "Empty:"), 0U);
  EXPECT_EQ(last_number_field(text, "Nothing:"), 0U);
  EXPECT_EQ(last_number_field("NSpid:\t17\tx", "NSpid:"), 0U);
}

TEST(ProcText, ANameDoesNotForgeALineOfStatus) {
  const Named process("x\nUid:\t7\nPid:\t");
  const std::string status = process.text("status");
  EXPECT_EQ(number_field(status, "Uid:"), ::getuid());
  EXPECT_EQ(number_field(status, "Pid:"), static_cast<std::uint64_t>(process.pid()));
}

TEST(ProcText, ANameDoesNotForgeAFieldOfStat) {
  for (const char* name : {"a) R 1 1 (b", "((", "))", "a) Z\n1", " ", ")\n) T 2"}) {
    const Named process(name);
    const std::string stat = process.text("stat");
    const std::vector<std::string_view> fields = stat_fields(stat);
    ASSERT_GE(fields.size(), 40U) << stat;
    EXPECT_EQ(fields[0].size(), 1U) << stat;
    EXPECT_EQ(fields[1], std::to_string(::getpid())) << stat;
  }
}

TEST(ProcText, TextWithoutANameHasNoFieldsOfStat) {
  EXPECT_TRUE(stat_fields("").empty());
  EXPECT_TRUE(stat_fields("17 (job S 1 2").empty());
  EXPECT_TRUE(stat_fields("17 (job)").empty());
  EXPECT_EQ(stat_fields("17 (job) S\n1 2"), std::vector<std::string_view>{"S"});
}

TEST(ParseMaps, KnowsWhatStandsInALine) {
  const auto entries = parse_maps(
      "00400000-00401000 r-xp 00002000 fe:01 1234     /usr/bin/a program\n"
      "7ffff000-fffffffff000 -w-s 00000000 00:05 18446744073709551615 /dev/zero (deleted)\n"
      "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n"
      "ffffffffff700000-ffffffffff701000 rwxp 00000000 00:00 0\n");
  ASSERT_TRUE(entries) << entries.error().message();
  ASSERT_EQ(entries->size(), 4U);
  const MapsEntry& first = entries->at(0);
  EXPECT_EQ(first.start, 0x400000U);
  EXPECT_EQ(first.end, 0x401000U);
  EXPECT_EQ(first.protection, std::uint32_t{PROT_READ | PROT_EXEC});
  EXPECT_FALSE(first.shared);
  EXPECT_EQ(first.offset, 0x2000U);
  EXPECT_EQ(first.device, "fe:01");
  EXPECT_EQ(first.inode, 1234U);
  EXPECT_EQ(first.name, "/usr/bin/a program");
  const MapsEntry& second = entries->at(1);
  EXPECT_EQ(second.protection, std::uint32_t{PROT_WRITE});
  EXPECT_TRUE(second.shared);
  EXPECT_EQ(second.inode, ~std::uint64_t{0});
  EXPECT_EQ(second.name, "/dev/zero (deleted)");
  EXPECT_EQ(entries->at(2).protection, std::uint32_t{PROT_EXEC});
  EXPECT_EQ(entries->at(3).name, "");
}

TEST(ParseMaps, TakesFlagsAndKeysOfSmaps) {
  const auto entries = parse_maps(
      "1000-2000 rw-p 00000000 00:00 0 [heap]\n"
      "Size:                  4 kB\n"
      "ProtectionKey:         3\n"
      "VmFlags: rd wr mr mw me ac \n"
      "2000-3000 r--p 00000000 00:00 0\n"
      "VmFlags: rd\n");
  ASSERT_TRUE(entries) << entries.error().message();
  ASSERT_EQ(entries->size(), 2U);
  EXPECT_EQ(entries->at(0).flags, "rd wr mr mw me ac");
  EXPECT_EQ(entries->at(0).protection_key, 3U);
  EXPECT_EQ(entries->at(1).flags, "rd");
  EXPECT_EQ(entries->at(1).protection_key, 0U);
}

TEST(ParseMaps, TextOfAnotherShapeIsToldAndNotGuessed) {
  for (const char* text : {
           "\n",
           "1000-2000\n",
           "1000 rw-p 0 00:00 0\n",
           "2000-1000 rw-p 00000000 00:00 0\n",
           "1000-1000 rw-p 00000000 00:00 0\n",
           "1000-2000 rw- 00000000 00:00 0\n",
           "1000-2000 rw-pp 00000000 00:00 0\n",
           "1000-2000 rw-p 00000000 00:00 -1\n",
           "1000-2000 rw-p 00000000 00:00 18446744073709551616\n",
           "10000000000000000-20000000000000000 rw-p 00000000 00:00 0\n",
           "1000-2000 rw-p x 00:00 0\n",
           "VmFlags: rd\n1000-2000 rw-p 00000000 00:00 0\n",
       }) {
    const auto entries = parse_maps(text);
    ASSERT_FALSE(entries) << text;
    EXPECT_EQ(entries.error().code, ErrorCode::kCorrupt) << text;
  }
  EXPECT_TRUE(parse_maps("").value().empty());
}

TEST(ParseMaps, ANameIsTheFilesWhateverIsInIt) {
  const test::TemporaryDirectory directory;
  for (const std::string name : {"a b", " two  blanks ", "line\nfeed",
                                 "1000-2000 rw-p 00000000 00:00 0", "gone (deleted)"}) {
    const std::string path = directory.file(name);
    const UniqueFd file = open_file(path, O_RDWR | O_CREAT).value();
    ASSERT_EQ(::ftruncate(file.get(), kPageBytes), 0);
    void* const place = ::mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, file.get(), 0);
    ASSERT_NE(place, MAP_FAILED);
    const auto named = [&] {
      const auto entries = parse_maps(read_file("/proc/self/smaps").value()).value();
      for (const MapsEntry& entry : entries) {
        if (entry.start == reinterpret_cast<std::uint64_t>(place)) {
          return entry.name;
        }
      }
      return std::string("not found");
    };
    EXPECT_EQ(named(), path);
    ASSERT_EQ(::unlink(path.c_str()), 0);
    EXPECT_EQ(named(), path + " (deleted)");
    ::munmap(place, kPageBytes);
  }
}

TEST(ProcFiles, AreReadFromTheirStartEachTime) {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("long");
  const std::string text = std::string(40'000, 'a') + "end";  // More than one read takes.
  const UniqueFd file = open_file(path, O_RDWR | O_CREAT).value();
  ASSERT_TRUE(write_all(file.get(), std::as_bytes(std::span(text))));
  EXPECT_EQ(reread(file.get(), "it").value(), text);
  EXPECT_EQ(reread(file.get(), "it").value(), text);
  const UniqueFd folder = open_file(directory.path(), O_RDONLY | O_DIRECTORY).value();
  EXPECT_EQ(read_file_at(folder.get(), "long").value(), text);
  EXPECT_EQ(test::code_of(read_file_at(folder.get(), "short")), ErrorCode::kNotFound);
  ASSERT_EQ(::symlinkat("/to/there (deleted)", folder.get(), "link"), 0);
  EXPECT_EQ(read_link_at(folder.get(), "link").value(), "/to/there (deleted)");
  EXPECT_FALSE(read_link_at(folder.get(), "long"));
}

TEST(ProcFiles, OfAProcessThatHasEndedAreNotFound) {
  Named process("short-lived");
  const UniqueFd status = open_file(process.folder() + "/status", O_RDONLY).value();
  const UniqueFd threads = open_file(process.folder() + "/task", O_RDONLY | O_DIRECTORY).value();
  const pid_t pid = process.pid();
  EXPECT_TRUE(reread(status.get(), "status"));
  EXPECT_EQ(numbered_entries(threads.get(), "task").value(),
            std::vector<std::uint32_t>{static_cast<std::uint32_t>(pid)});
  EXPECT_EQ(inner_thread_id(pid, pid).value(), static_cast<std::uint32_t>(pid));
  process.end();
  EXPECT_EQ(test::code_of(reread(status.get(), "status")), ErrorCode::kNotFound);
  EXPECT_FALSE(numbered_entries(threads.get(), "task"));
  EXPECT_EQ(test::code_of(inner_thread_id(pid, pid)), ErrorCode::kNotFound);
}

TEST(ProcFiles, NumbersOfDescriptorsAscendHoweverManyThereAre) {
  const UniqueFd folder = open_file("/proc/self/fd", O_RDONLY | O_DIRECTORY).value();
  constexpr std::uint32_t kFirst = 300;
  constexpr std::uint32_t kLast = 800;  // More than one call tells of.
  for (std::uint32_t number = kFirst; number <= kLast; ++number) {
    ASSERT_EQ(::dup2(0, static_cast<int>(number)), static_cast<int>(number));
  }
  const std::vector<std::uint32_t> all = numbered_entries(folder.get(), "fd").value();
  EXPECT_TRUE(std::ranges::is_sorted(all));
  const auto first = std::ranges::find(all, kFirst);
  ASSERT_GE(all.end() - first, kLast - kFirst + 1);
  EXPECT_EQ(first[kLast - kFirst], kLast);
  ASSERT_EQ(::syscall(SYS_close_range, kFirst, kLast, 0), 0);
  const std::vector<std::uint32_t> fewer = numbered_entries(folder.get(), "fd").value();
  EXPECT_EQ(fewer.size() + kLast - kFirst + 1, all.size());
}

}  // namespace
}  // namespace migrate
