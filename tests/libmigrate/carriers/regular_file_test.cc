#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "libmigrate/proc/file_identity.h"
#include "tests/libmigrate/carriers/hosts.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

class RegularFileCarrier : public testing::Test {
 protected:
  void SetUp() override { write("some text"); }

  void write(const std::string& text) const {
    const UniqueFd fd = open_file(path_, O_CREAT | O_TRUNC | O_WRONLY, 0600).value();
    ASSERT_TRUE(write_all(fd.get(), std::as_bytes(std::span(text))));
  }

  UniqueFd open(int flags) const { return open_file(path_, flags).value(); }

  // As found by a source that hashes what is open for reading.
  wire::OpenFile found(int flags) const {
    test::Source source;
    source.hash_limit = 100;
    const UniqueFd fd = open(flags);
    EXPECT_EQ(source.find(fd.get()), 0);
    return source.file(0);
  }

  static Refusals compare(const wire::OpenFile& file, bool same_kernel) {
    const wire::Objects objects;
    return test::Destination(objects).compare(file, same_kernel);
  }

  // Another file with another inode, content, and the same time.
  void replace(const std::string& text) const {
    struct stat before {};
    ASSERT_EQ(::stat(path_.c_str(), &before), 0);
    std::filesystem::rename(path_, path_ + ".before");
    write(text);
    const timespec times[2]{before.st_atim, before.st_mtim};
    ASSERT_EQ(::utimensat(AT_FDCWD, path_.c_str(), times, 0), 0);
  }

  test::TemporaryDirectory directory_;
  std::string path_ = directory_.file("file");
};

TEST_F(RegularFileCarrier, IsOpenedAgainAtItsPosition) {
  const UniqueFd fd = open(O_RDWR | O_APPEND);
  ASSERT_EQ(::lseek(fd.get(), 5, SEEK_SET), 5);
  test::Source source;
  ASSERT_EQ(source.find(fd.get()), 0);
  EXPECT_EQ(source.file(0).kind(), wire::OpenFile::REGULAR);
  EXPECT_EQ(source.file(0).identity().path(), path_);
  EXPECT_EQ(test::flaw_in(source.objects()), "");
  test::Destination destination(source.objects());
  EXPECT_EQ(destination.compare(source.file(0), true), Refusals{});
  const UniqueFd made = destination.make(source.file(0)).value();
  EXPECT_EQ(test::description(made.get()), test::description(fd.get()));
  EXPECT_EQ(test::read_now(made.get()), "text");
}

TEST_F(RegularFileCarrier, SharedLocksAreCarried) {
  const UniqueFd fd = open(O_RDWR);
  ASSERT_EQ(::flock(fd.get(), LOCK_SH), 0);
  struct flock range {};
  range.l_type = F_RDLCK;
  range.l_start = 10;
  range.l_len = 5;
  ASSERT_EQ(::fcntl(fd.get(), F_SETLK, &range), 0);
  range.l_start = 20;
  range.l_len = 0;
  ASSERT_EQ(::fcntl(fd.get(), F_OFD_SETLK, &range), 0);
  test::Source source;
  ASSERT_EQ(source.find(fd.get()), 0);
  wire::OpenFile& file = source.file(0);
  ASSERT_EQ(file.locks_size(), 3);
  EXPECT_EQ(file.locks(0).kind(), wire::FileLock::FLOCK);
  EXPECT_EQ(file.locks(1).kind(), wire::FileLock::PROCESS);
  EXPECT_EQ(file.locks(1).start(), 10U);
  EXPECT_EQ(file.locks(1).end(), 14U);
  EXPECT_EQ(file.locks(2).kind(), wire::FileLock::OPEN_FILE);
  EXPECT_EQ(file.locks(2).end(), std::uint64_t{INT64_MAX});
  EXPECT_EQ(test::flaw_in(source.objects()), "");
  EXPECT_EQ(compare(file, true), Refusals{});
  EXPECT_EQ(compare(file, false), (Refusals{"FILE_DIFFERS", "FILE_LOCK"}));
  file.mutable_locks(1)->set_start(15);
  EXPECT_EQ(test::flaw_in(source.objects()), "locks of a file");
}

TEST_F(RegularFileCarrier, ExclusiveLocksAreNot) {
  const UniqueFd fd = open(O_RDWR);
  ASSERT_EQ(::flock(fd.get(), LOCK_EX), 0);
  test::Source source;
  EXPECT_EQ(source.find(fd.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"FILE_LOCK"});
}

TEST_F(RegularFileCarrier, LocksOfTheProcessAreTakenWhereItReads) {
  const UniqueFd fd = open(O_RDONLY);
  const UniqueFd writer = open(O_WRONLY);
  struct flock range {};
  range.l_type = F_RDLCK;
  ASSERT_EQ(::fcntl(fd.get(), F_SETLK, &range), 0);
  test::Source source;
  ASSERT_EQ(source.find(writer.get()), 0);
  EXPECT_EQ(source.file(0).locks_size(), 0);
  ASSERT_EQ(source.find(fd.get()), 1);
  EXPECT_EQ(source.file(1).locks_size(), 1);
}

TEST_F(RegularFileCarrier, IsNotMadeOrEmptiedAnew) {
  wire::Objects objects;
  wire::OpenFile& file = *objects.add_files() = found(O_RDWR);
  file.set_flags(O_RDWR | O_CREAT | O_TRUNC | O_EXCL);
  test::Destination destination(objects);
  const UniqueFd made = destination.make(file).value();
  EXPECT_EQ(test::read_now(made.get()), "some text");
}

TEST_F(RegularFileCarrier, IsToldByItsContentIfItIsOpenForReading) {
  EXPECT_EQ(found(O_RDONLY).identity().sha256(), sha256("some text"));
  EXPECT_EQ(found(O_RDWR).identity().sha256(), "");
  write(std::string(101, 'x'));
  EXPECT_EQ(found(O_RDONLY).identity().sha256(), "") << "too large to hash";
}

TEST_F(RegularFileCarrier, IsNotHashedAgainInTheFreeze) {
  wire::Objects draft;
  *draft.add_files() = found(O_RDONLY);
  draft.mutable_files(0)->mutable_identity()->set_sha256("the draft's");
  test::Source source(&draft);
  source.hash_limit = 100;
  const UniqueFd fd = open(O_RDONLY);
  ASSERT_EQ(source.find(fd.get()), 0);
  EXPECT_EQ(source.file(0).identity().sha256(), "the draft's");
}

TEST_F(RegularFileCarrier, WhatAnAncestorHasTooIsNoted) {
  test::Source source;
  source.shared = 4;
  const UniqueFd fd = open(O_RDWR);
  ASSERT_EQ(source.find(fd.get()), 0);
  EXPECT_EQ(source.file(0).shared_id(), 4U);
  EXPECT_TRUE(carriers::carrier_of(wire::OpenFile::REGULAR).position_returns);
}

TEST_F(RegularFileCarrier, WhoOnlyAppendsHasNoStateToShare) {
  const auto has_state = carriers::carrier_of(wire::OpenFile::REGULAR).has_state;
  EXPECT_FALSE(has_state(found(O_WRONLY | O_APPEND)));
  EXPECT_TRUE(has_state(found(O_RDWR | O_APPEND)));
  EXPECT_TRUE(has_state(found(O_WRONLY)));
}

TEST_F(RegularFileCarrier, WithAnotherNameItIsRefused) {
  const UniqueFd fd = open(O_RDONLY);
  test::Source source;
  std::filesystem::create_hard_link(path_, path_ + ".other");
  std::filesystem::remove(path_);
  EXPECT_EQ(source.find(fd.get()), -1);
  write("another one");
  EXPECT_EQ(source.find(fd.get()), -1);
  EXPECT_EQ(source.refusals(), (Refusals{"DELETED_FILE", "DELETED_FILE"}));
}

TEST_F(RegularFileCarrier, WithoutANameItTravelsAsMemory) {
  const UniqueFd fd = open(O_RDONLY);
  const UniqueFd unnamed = open_file(directory_.path(), O_TMPFILE | O_RDWR, 0600).value();
  ASSERT_EQ(::write(unnamed.get(), "temporary", 9), 9);
  std::filesystem::remove(path_);
  test::Source source;
  ASSERT_EQ(source.find(fd.get()), 0);
  ASSERT_EQ(source.find(unnamed.get()), 1);
  ASSERT_TRUE(source.capture());
  EXPECT_EQ(source.file(0).kind(), wire::OpenFile::MEMFD);
  EXPECT_TRUE(source.content().ends_with("temporary"));
  EXPECT_NE(source.objects().shared_memories(1).modified_ns(), 0U);
  EXPECT_EQ(test::flaw_in(source.objects()), "");
  test::Destination destination(source.objects(), source.content());
  const UniqueFd made = destination.make(source.file(1)).value();
  EXPECT_EQ(::lseek(made.get(), 0, SEEK_CUR), 9);
  ASSERT_EQ(::lseek(made.get(), 0, SEEK_SET), 0);
  EXPECT_EQ(test::read_now(made.get()), "temporary");
}

TEST_F(RegularFileCarrier, WhatTheKernelShowsIsRefused) {
  const UniqueFd status = open_file("/proc/self/comm", O_WRONLY).value();
  test::Source source;
  EXPECT_EQ(source.find(status.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"PROC_FILE"});
}

TEST_F(RegularFileCarrier, OnOneKernelItMustBeTheVeryFile) {
  const wire::OpenFile file = found(O_RDONLY);
  EXPECT_EQ(compare(file, true), Refusals{});
  replace("some text");
  EXPECT_EQ(compare(file, true), Refusals{"FILE_DIFFERS"});
  std::filesystem::remove(path_);
  EXPECT_EQ(compare(file, true), Refusals{"FILE_MISSING"});
  std::filesystem::create_directory(path_);
  EXPECT_EQ(compare(file, true), Refusals{"FILE_DIFFERS"});
}

TEST_F(RegularFileCarrier, OnAnotherHostTheSameContentOfTheSameTimeWillDo) {
  const wire::OpenFile file = found(O_RDONLY);
  replace("some text");
  EXPECT_EQ(compare(file, false), Refusals{});
  replace("same text");
  EXPECT_EQ(compare(file, false), Refusals{"FILE_DIFFERS"});
  replace("some text");
  const timespec times[2]{{1, 0}, {1, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, path_.c_str(), times, 0), 0);
  EXPECT_EQ(compare(file, false), Refusals{"FILE_DIFFERS"});
}

TEST_F(RegularFileCarrier, WhatIsWrittenToIsNotAnotherHostsFile) {
  EXPECT_EQ(compare(found(O_RDWR), false), Refusals{"FILE_DIFFERS"});
}

TEST_F(RegularFileCarrier, WhatIsGoneByThenIsToldByItsName) {
  const wire::OpenFile file = found(O_RDONLY);
  std::filesystem::remove(path_);
  wire::Objects objects;
  *objects.add_files() = file;
  const auto made = test::Destination(objects).make(file);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().object, path_);
}

TEST_F(RegularFileCarrier, APathThatIsNoneIsMalformed) {
  wire::Objects objects;
  wire::OpenFile& file = *objects.add_files() = found(O_RDONLY);
  EXPECT_EQ(test::flaw_in(objects), "");
  for (const std::string& path : {std::string(), std::string("file"), std::string("/a\0b", 4),
                                  "/" + std::string(4096, 'x')}) {
    file.mutable_identity()->set_path(path);
    EXPECT_NE(test::flaw_in(objects), "") << path;
  }
}

}  // namespace
}  // namespace migrate
