#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/file.h"
#include "tests/libmigrate/carriers/hosts.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

class InotifyCarrier : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "only root may open files by their handles";
    }
    for (const char* name : {"a", "b", "c"}) {
      std::filesystem::create_directory(directory_.file(name));
    }
    ASSERT_TRUE(watch("a", IN_CREATE) == 1 && watch("b", IN_CREATE) == 2 &&
                watch("c", IN_DELETE | IN_EXCL_UNLINK) == 3);
    ASSERT_EQ(::inotify_rm_watch(fd_.get(), 2), 0);
    test::read_now(fd_.get());
  }
  int watch(const char* name, std::uint32_t mask) const {
    return ::inotify_add_watch(fd_.get(), directory_.file(name).c_str(), mask);
  }
  static inotify_event next(int fd) {
    inotify_event event{};
    const std::string bytes = test::read_now(fd);
    EXPECT_GE(bytes.size(), sizeof(event));
    bytes.copy(reinterpret_cast<char*>(&event), sizeof(event));
    return event;
  }

  test::TemporaryDirectory directory_;
  const UniqueFd fd_{::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
};

TEST_F(InotifyCarrier, WatchesKeepTheirNumbersAndWhatTheyWatch) {
  test::Source source;
  ASSERT_EQ(source.find(fd_.get()), 0) << ::testing::PrintToString(source.refusals());
  ASSERT_EQ(source.file(0).file_watches_size(), 2);
  EXPECT_EQ(source.file(0).file_watches(0).file().path(), directory_.file("a"));
  EXPECT_EQ(test::flaw_in(source.objects()), "");
  test::Destination destination(source.objects());
  EXPECT_EQ(destination.compare(source.file(0), true), Refusals());
  const auto made = destination.make(source.file(0));
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(test::description(made->get()), test::description(fd_.get()));
  EXPECT_EQ(test::read_now(made->get()), "");
  std::ofstream(directory_.file("a/new")) << "x";
  EXPECT_EQ(next(made->get()).wd, 1);
  std::ofstream(directory_.file("c/new")) << "x";
  EXPECT_EQ(test::read_now(made->get()), "");
  std::filesystem::remove(directory_.file("c/new"));
  EXPECT_EQ(next(made->get()).wd, 3);
}

TEST_F(InotifyCarrier, EventsThatWaitAreNotLost) {
  std::ofstream(directory_.file("a/new")) << "x";
  test::Source source;
  EXPECT_EQ(source.find(fd_.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"INOTIFY_EVENTS"});
}

TEST_F(InotifyCarrier, WhatWasRemovedIsRefused) {
  std::ofstream(directory_.file("file")) << "x";
  ASSERT_EQ(watch("file", IN_MODIFY), 4);
  const UniqueFd open = open_file(directory_.file("file"), O_RDONLY).value();
  std::filesystem::remove(directory_.file("file"));
  test::read_now(fd_.get());
  test::Source source;
  EXPECT_EQ(source.find(fd_.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"INOTIFY"});
}

TEST_F(InotifyCarrier, TheDestinationNeedsThePaths) {
  test::Source source;
  ASSERT_EQ(source.find(fd_.get()), 0);
  std::filesystem::remove(directory_.file("c"));
  test::Destination destination(source.objects());
  EXPECT_EQ(destination.compare(source.file(0), true), Refusals{"FILE_MISSING"});
}

TEST_F(InotifyCarrier, OtherNumbersAndMasksAreMalformed) {
  test::Source source;
  ASSERT_EQ(source.find(fd_.get()), 0);
  wire::FileWatch& watch = *source.file(0).mutable_file_watches(0);
  watch.set_number(3);
  EXPECT_NE(test::flaw_in(source.objects()), "");
  watch.set_number(1);
  watch.set_mask(1U << 30U);
  EXPECT_NE(test::flaw_in(source.objects()), "");
  watch.set_mask(1);
  watch.mutable_file()->set_path("a");
  EXPECT_NE(test::flaw_in(source.objects()), "");
}

}  // namespace
}  // namespace migrate
