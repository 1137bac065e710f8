// What a process has open of itself: files of its own folder of /proc, a pidfd, paths.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

#include "base/file.h"
#include "libmigrate/proc/proc_text.h"
#include "tests/libmigrate/carriers/hosts.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

// A test whose destination is this very process finds its own files again.
UniqueFd made_again(int fd) {
  test::Source source;
  const int index = source.find(fd);
  EXPECT_EQ(index, 0) << (source.refusals().empty() ? "" : source.refusals().front());
  if (index != 0) {
    return UniqueFd();
  }
  EXPECT_EQ(test::flaw_in(source.objects()), "");
  test::Destination destination(source.objects());
  auto made = destination.make(source.file(0));
  EXPECT_TRUE(made) << made.error().message();
  return made ? std::move(*made) : UniqueFd();
}

TEST(OwnProcFile, ItsFolderAndWhatItMayRead) {
  for (const char* path : {"/proc/self/status", "/proc/self/maps", "/proc/self", "/proc/self/fd",
                           "/proc/meminfo", "/proc/stat"}) {
    const UniqueFd file = open_file(path, O_RDONLY).value();
    const UniqueFd made = made_again(file.get());
    EXPECT_EQ(test::description(made.get()), test::description(file.get())) << path;
  }
}

TEST(OwnProcFile, GoesOnWhereItWas) {
  const UniqueFd file = open_file("/proc/self/limits", O_RDONLY).value();
  ASSERT_EQ(::lseek(file.get(), 6, SEEK_SET), 6);
  const UniqueFd made = made_again(file.get());
  EXPECT_EQ(test::read_now(made.get()), test::read_now(file.get()));
}

TEST(OwnProcFile, AllElseIsRefused) {
  const std::string parent = "/proc/" + std::to_string(::getppid()) + "/status";
  for (const char* path : {parent.c_str(), "/proc/self/mountstats", "/proc/cmdline",
                           "/proc/sys/kernel/hostname", "/proc/self/task"}) {
    const auto file = open_file(path, O_RDONLY);
    ASSERT_TRUE(file) << path;
    test::Source source;
    EXPECT_EQ(source.find(file->get()), std::string(path) == "/proc/self/task" ? 0 : -1) << path;
  }
  const UniqueFd written = open_file("/proc/self/comm", O_RDWR).value();
  test::Source source;
  EXPECT_EQ(source.find(written.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"PROC_FILE"});
}

TEST(OwnProcFile, APathThatIsNoneOfTheseIsMalformed) {
  wire::Objects objects;
  wire::OpenFile& file = *objects.add_files();
  file.set_kind(wire::OpenFile::PROC_FILE);
  file.set_object(7);
  for (const char* path : {"", "/proc/8/maps", "/proc/7/mem", "/proc/7/root/etc/shadow",
                           "/proc/7/../1/environ", "/proc/kcore", "/etc/shadow", "/proc/7/fd/3"}) {
    file.mutable_identity()->set_path(path);
    EXPECT_NE(test::flaw_in(objects), "") << path;
  }
  file.mutable_identity()->set_path("/proc/7/maps");
  EXPECT_EQ(test::flaw_in(objects), "");
  file.set_flags(O_RDWR);
  EXPECT_NE(test::flaw_in(objects), "");
}

TEST(OwnPidfd, ItsOwnIsMadeAndOthersAreRefused) {
  const UniqueFd own(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), O_NONBLOCK)));
  const UniqueFd made = made_again(own.get());
  EXPECT_EQ(test::description(made.get()), test::description(own.get()));
  const auto details = read_file("/proc/self/fdinfo/" + std::to_string(made.get()));
  EXPECT_EQ(number_field(details.value_or(""), "Pid:"), static_cast<std::uint64_t>(::getpid()));
  const UniqueFd other(static_cast<int>(::syscall(SYS_pidfd_open, ::getppid(), 0)));
  test::Source source;
  EXPECT_EQ(source.find(other.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"PIDFD"});
}

TEST(PathDescriptor, OfFilesAndFoldersIsMade) {
  for (const char* path : {"/", "/etc/passwd"}) {
    const UniqueFd file = open_file(path, O_PATH).value();
    const UniqueFd made = made_again(file.get());
    EXPECT_EQ(test::description(made.get()), test::description(file.get())) << path;
    EXPECT_NE(::fcntl(made.get(), F_GETFL) & O_PATH, 0);
  }
  wire::OpenFile file;
  file.set_flags(O_PATH);
  EXPECT_FALSE(carriers::carrier_of(wire::OpenFile::REGULAR).has_state(file));
}

TEST(PathDescriptor, OfAllElseIsRefused) {
  for (const char* path : {"/dev/null", "/dev/stdin", "/proc/self/status"}) {
    const UniqueFd file = open_file(path, O_PATH | O_NOFOLLOW).value();
    test::Source source;
    EXPECT_EQ(source.find(file.get()), -1) << path;
  }
}

}  // namespace
}  // namespace migrate
