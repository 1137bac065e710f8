#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "libmigrate/cell/cell.h"
#include "libmigrate/guest/clear_session.h"
#include "libmigrate/state/session_file.h"

namespace migrate {
namespace {

class AdoptionTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "adoptionXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    context_.state_directory = pattern;
    ASSERT_TRUE(SessionFile::prepare(pattern));
    init_ = fork();
    if (init_ == 0) {
      prctl(PR_SET_NAME, kInitName);
      for (;;) {
        pause();
      }
    }
  }
  void TearDown() override {
    kill(init_, SIGKILL);
    waitpid(init_, nullptr, 0);
    std::filesystem::remove_all(context_.state_directory);
  }

  /// Clears a session that names the init so; whether the init was killed.
  bool clear(std::uint64_t start) {
    SessionFile file =
        SessionFile::create(context_.state_directory, cell_session_name(to_hex(session_))).value();
    file.mark().init = init_;
    file.mark().init_start = start;
    clear_session(context_, file, session_);
    constexpr int kMs = 20;
    usleep(kMs * 1000);
    return waitpid(init_, nullptr, WNOHANG) == init_;
  }

  WorkerContext context_;
  SessionId session_ = random_session_id().value();
  pid_t init_ = 0;
};

TEST_F(AdoptionTest, ALaterInitWithThePidOfADeadOneLives) {
  EXPECT_FALSE(clear(start_time(init_) - 1));
}

TEST_F(AdoptionTest, TheInitOfAProcessThatNeverRanIsKilled) {
  EXPECT_TRUE(clear(start_time(init_)));
}

}  // namespace
}  // namespace migrate
