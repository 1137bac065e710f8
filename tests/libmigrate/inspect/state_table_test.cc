// docs/state.md against the table, and the table against the kernel that this runs on.
// MIGRATE_WRITE_DOCS=1 writes the document anew.
#include "libmigrate/inspect/state_table.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "base/file.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate {
namespace {

using Names = std::vector<std::string>;

const std::string kDocument = std::string(MIGRATE_SOURCE_DIR) + "/docs/state.md";

/// What comes before the colon of each line.
Names keys_of(const std::string& text) {
  Names keys;
  std::string_view left = text;
  while (!left.empty()) {
    const std::string_view line = take_line(left);
    keys.emplace_back(line.substr(0, line.find(':')));
  }
  return keys;
}

Names keys_of_file(const std::string& path) {
  return keys_of(read_file(path).value());
}

TEST(StateTable, IsWhatTheDocumentSays) {
  if (std::getenv("MIGRATE_WRITE_DOCS") != nullptr) {
    std::filesystem::remove(kDocument);
    const UniqueFd file = open_file(kDocument, O_WRONLY | O_CREAT, 0644).value();
    const std::string text = state_document();
    ASSERT_TRUE(write_all(file.get(), std::as_bytes(std::span(text))));
  }
  EXPECT_EQ(read_file(kDocument).value(), state_document())
      << "run this test with MIGRATE_WRITE_DOCS=1";
}

TEST(StateTable, EveryLineOfStatusIsKnown) {
  EXPECT_EQ(unknown_state("status", keys_of_file("/proc/self/status")), Names());
}

TEST(StateTable, EveryFileOfTheProcessIsKnown) {
  EXPECT_EQ(unknown_state("/proc/PID", list_directory("/proc/self").value()), Names());
}

TEST(StateTable, EveryLimitIsKnown) {
  const std::string text = read_file("/proc/self/limits").value();
  std::string_view left = text;
  take_line(left);
  Names limits;
  while (!left.empty()) {
    constexpr std::size_t kNameBytes = 25;
    const std::string_view name = take_line(left).substr(0, kNameBytes);
    limits.emplace_back(name.substr(0, name.find_last_not_of(' ') + 1));
  }
  EXPECT_EQ(unknown_state("limits", limits), Names());
}

TEST(StateTable, EveryFlagOfAMappingIsKnown) {
  const std::string text = read_file("/proc/self/smaps").value();
  std::string_view left = text;
  Names flags;
  while (!left.empty()) {
    std::string_view line = take_line(left);
    if (take_word(line) == "VmFlags:") {
      for (auto flag = take_word(line); !flag.empty(); flag = take_word(line)) {
        flags.emplace_back(flag);
      }
    }
  }
  EXPECT_FALSE(flags.empty());
  EXPECT_EQ(unknown_state("VmFlags", flags), Names());
}

TEST(StateTable, EveryLineOfADescriptorIsKnown) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  std::array<int, 2> sockets{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, sockets.data()), 0);
  sigset_t none{};
  std::vector<UniqueFd> all;
  for (const int fd : {ends[0], ends[1], sockets[0], sockets[1], ::eventfd(0, 0),
                       ::epoll_create1(0), ::timerfd_create(CLOCK_MONOTONIC, 0),
                       ::signalfd(-1, &none, 0), ::memfd_create("x", MFD_ALLOW_SEALING)}) {
    ASSERT_GE(fd, 0);
    all.emplace_back(fd);
  }
  epoll_event event{};
  ASSERT_EQ(::epoll_ctl(all[5].get(), EPOLL_CTL_ADD, ends[0], &event), 0);
  for (const UniqueFd& fd : all) {
    EXPECT_EQ(
        unknown_state("fdinfo", keys_of_file("/proc/self/fdinfo/" + std::to_string(fd.get()))),
        Names());
  }
}

TEST(StateTable, EveryGetterOfPrctlIsKnown) {
  const auto header = read_file("/usr/include/linux/prctl.h");
  ASSERT_TRUE(header) << header.error().message();  // No compiler is there without it.
  const std::regex getter("#define\\s+(PR_GET_\\w+)");
  Names names;
  for (auto at = std::sregex_iterator(header->begin(), header->end(), getter);
       at != std::sregex_iterator(); ++at) {
    names.push_back((*at)[1]);
  }
  EXPECT_FALSE(names.empty());
  EXPECT_EQ(unknown_state("prctl", names), Names());
}

TEST(StateTable, AnAttributeThatIsNotInItIsNoticed) {
  Names lines = keys_of_file("/proc/self/status");
  lines.emplace_back("Made_up");
  EXPECT_EQ(unknown_state("status", lines), Names{"Made_up"});
}

// What is refused names the code of its refusal, if x86-64 has it at all.
TEST(StateTable, RefusalsAreThoseThatThereAre) {
  const std::vector<RefusalKind> kinds = refusal_kinds();
  const std::regex code("\\b[A-Z][A-Z_0-9]{2,}\\b");
  for (const StateEntry& entry : state_table()) {
    if (entry.fate != StateFate::kRefused || entry.how == "not on x86-64") {
      continue;
    }
    const std::string how(entry.how);
    std::smatch found;
    ASSERT_TRUE(std::regex_search(how, found, code)) << entry.name;
    EXPECT_TRUE(std::any_of(kinds.begin(), kinds.end(),
                            [&](const RefusalKind& kind) { return kind.code == found.str(); }))
        << entry.name << ": " << found.str();
  }
}

}  // namespace
}  // namespace migrate
