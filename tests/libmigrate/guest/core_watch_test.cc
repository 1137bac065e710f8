#include "libmigrate/guest/core_watch.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "base/file.h"

namespace migrate {
namespace {

constexpr int kDumped = SIGABRT | 0x80;  // As waitpid gives it.

/// A process that waits, and becomes another program when it is told to.
class CoreWatchTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::pipe(pipe_.data()), 0);
    process_ = ::fork();
    if (process_ == 0) {
      char byte = 0;
      static_cast<void>(::read(pipe_[0], &byte, 1));
      ::execl("/bin/sleep", "sleep", "1000", nullptr);
      ::_exit(1);
    }
    ASSERT_GT(process_, 0);
    user_.set_uid_real(::getuid());
    user_.set_uid_filesystem(::getuid());
  }

  void TearDown() override {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
    ::close(pipe_[0]);
    ::close(pipe_[1]);
  }

  void become_another_program() {
    ASSERT_EQ(::write(pipe_[1], "x", 1), 1);
    // Its name changes before its stack does: execve is over when it sleeps.
    const std::string stat = "/proc/" + std::to_string(process_) + "/stat";
    while (read_file(stat).value_or("").find("(sleep) S") == std::string::npos) {
      ::usleep(1000);
    }
  }

  void look(bool is_gone = false) {
    now_us_ += 2'001;
    watch_.look(process_, is_gone);
  }

  IncompleteCore end(int status, std::uint64_t owed) {
    return watch_.note_end(process_, status, owed, user_, "sleep 1000");
  }

  std::array<int, 2> pipe_{};
  pid_t process_ = -1;
  wire::Credentials user_;
  std::int64_t now_us_ = 1'000'000;
  CoreWatch watch_{[this] { return now_us_; }};
};

TEST_F(CoreWatchTest, ADumpLacksWhatIsOwed) {
  look();
  const IncompleteCore core = end(kDumped, 7);
  EXPECT_EQ(core.lacks_pages, 7U);
  EXPECT_EQ(core.file, "");  // There is none.
}

TEST_F(CoreWatchTest, WhatWasNeverSeenMayHaveDumpedToo) {
  EXPECT_EQ(end(kDumped, 7).lacks_pages, 7U);
}

TEST_F(CoreWatchTest, NoDumpLacksNothing) {
  look();
  EXPECT_EQ(end(SIGKILL, 7).lacks_pages, 0U);
  EXPECT_EQ(end(0, 7).lacks_pages, 0U);
  EXPECT_EQ(end(kDumped, 0).lacks_pages, 0U);
}

TEST_F(CoreWatchTest, AnotherProgramIsOwedNothing) {
  look();
  EXPECT_FALSE(watch_.has_execed());
  become_another_program();
  look();
  EXPECT_TRUE(watch_.has_execed());
  EXPECT_EQ(end(kDumped, 7).lacks_pages, 0U);
}

TEST_F(CoreWatchTest, ThePagerMayKnowFirst) {
  look(true);
  EXPECT_TRUE(watch_.has_execed());
}

TEST_F(CoreWatchTest, DoesNotLookMoreOftenThanItNeeds) {
  look();
  become_another_program();
  now_us_ += 1'999;
  watch_.look(process_, false);
  EXPECT_FALSE(watch_.has_execed());
  now_us_ += 1;
  watch_.look(process_, false);
  EXPECT_TRUE(watch_.has_execed());
}

TEST_F(CoreWatchTest, OneThatEndsIsNoOther) {
  look();
  ::kill(process_, SIGKILL);
  siginfo_t ended{};
  ::waitid(P_PID, static_cast<id_t>(process_), &ended, WEXITED | WNOWAIT);
  look();
  EXPECT_FALSE(watch_.has_execed());
}

}  // namespace
}  // namespace migrate
