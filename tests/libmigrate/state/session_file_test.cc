#include "libmigrate/state/session_file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>

#include "base/log.h"

namespace migrate {
namespace {

class SessionFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "sessionXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    state_ = pattern;
    std::filesystem::create_directory(SessionFile::directory(state_));
  }
  void TearDown() override { std::filesystem::remove_all(state_); }

  /// A worker that does something with its file and is then killed, or stays until it is.
  template <class Job>
  pid_t start_worker(Job job) {
    const pid_t child = fork();
    if (child == 0) {
      auto file = SessionFile::create(state_, "cell-1");
      if (!file || !job(*file)) {
        _exit(1);
      }
      for (;;) {
        pause();
      }
    }
    for (int i = 0; i < 1000 && SessionFile::list(state_).empty(); ++i) {
      usleep(5000);
    }
    usleep(50'000);
    return child;
  }
  static void kill_worker(pid_t worker) {
    kill(worker, SIGKILL);
    waitpid(worker, nullptr, 0);
  }

  std::string state_;
};

TEST_F(SessionFileTest, IsItsWorkersUntilThatDies) {
  const pid_t worker = start_worker([](SessionFile& file) {
    const bool first = file.save("first").has_value();
    return first && file.save(std::string(10'000, 'x')).has_value() &&
           file.save("third").has_value();
  });
  EXPECT_EQ(SessionFile::open(state_, "cell-1").error().code, ErrorCode::kRefused);
  EXPECT_EQ(SessionFile::create(state_, "cell-1").error().code, ErrorCode::kRefused);
  kill_worker(worker);
  auto file = SessionFile::open(state_, "cell-1");
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_TRUE(file->worker_gone());
  EXPECT_EQ(file->load().value_or(""), "third");
  file->take();
  EXPECT_FALSE(file->worker_gone());
  ASSERT_TRUE(file->save("fourth"));
  EXPECT_EQ(file->load().value_or(""), "fourth");
  file->remove();
  EXPECT_EQ(SessionFile::open(state_, "cell-1").error().code, ErrorCode::kNotFound);
}

TEST_F(SessionFileTest, OthersReadItWholeWhileItIsWritten) {
  EXPECT_EQ(SessionFile::peek(state_, "cell-1").error().code, ErrorCode::kNotFound);
  const pid_t worker = start_worker([](SessionFile& file) {
    static SessionFile writes = std::move(file);
    std::thread([] {
      for (std::size_t i = 0;; ++i) {
        static_cast<void>(writes.save(std::string(1 + i % 5000, static_cast<char>('a' + i % 26))));
      }
    }).detach();
    return true;
  });
  int read = 0;
  for (int i = 0; i < 300; ++i) {
    const auto text = SessionFile::peek(state_, "cell-1");
    if (text && !text->empty()) {
      ++read;
      EXPECT_EQ(text->find_first_not_of(text->front()), std::string::npos) << *text;
    }
  }
  EXPECT_GT(read, 0);
  kill_worker(worker);
}

TEST_F(SessionFileTest, APhaseOutlivesItsWriter) {
  kill_worker(start_worker([](SessionFile& file) {
    file.mark().phase.enter(GuestPhase::kServing);
    file.mark().phase.note_end(SIGSEGV);
    return true;
  }));
  const auto file = SessionFile::open(state_, "cell-1");
  ASSERT_TRUE(file);
  EXPECT_EQ(file->mark().phase.guest(), GuestPhase::kEnded);
  EXPECT_EQ(file->mark().phase.wait_status(), SIGSEGV);
}

TEST_F(SessionFileTest, BeginsInTheFirstPhaseOfItsKind) {
  EXPECT_EQ(SessionFile::create(state_, "cell-2")->mark().phase.guest(), GuestPhase::kPrepared);
  EXPECT_EQ(SessionFile::create(state_, "home-2")->mark().phase.home(), HomePhase::kOffered);
}

TEST_F(SessionFileTest, SetsAsideWhatAnotherVersionWrote) {
  kill_worker(start_worker([](SessionFile& file) {
    file.mark().magic = 0x31304e53'5347494dULL;  // "MIGSSN01"
    return true;
  }));
  testing::internal::CaptureStderr();
  start_logging("test");
  EXPECT_TRUE(SessionFile::list(state_).empty());
  const std::string told = testing::internal::GetCapturedStderr();
  EXPECT_NE(told.find("was written by another version of migrated"), std::string::npos) << told;
  EXPECT_TRUE(SessionFile::is_damaged(state_, "cell-1"));
}

TEST_F(SessionFileTest, ForgetsThatOfAnotherVersionAndAnEarlierBoot) {
  kill_worker(start_worker([](SessionFile& file) {
    file.mark().magic = 0x31304e53'5347494dULL;
    file.mark().boot[0] = 'x';
    return true;
  }));
  EXPECT_TRUE(SessionFile::list(state_).empty());
  EXPECT_FALSE(SessionFile::is_damaged(state_, "cell-1"));
}

TEST_F(SessionFileTest, SetsAsideAPhaseThatThereIsNot) {
  kill_worker(start_worker([](SessionFile& file) {
    file.mark().phase.become_home();
    return true;
  }));
  EXPECT_EQ(SessionFile::open(state_, "cell-1").error().code, ErrorCode::kCorrupt);
  EXPECT_TRUE(SessionFile::list(state_).empty());
  EXPECT_TRUE(SessionFile::is_damaged(state_, "cell-1"));
}

TEST_F(SessionFileTest, ForgetsWhatIsOfAnEarlierBoot) {
  kill_worker(start_worker([](SessionFile& file) {
    file.mark().boot[0] = 'x';
    return true;
  }));
  EXPECT_EQ(SessionFile::open(state_, "cell-1").error().code, ErrorCode::kCorrupt);
  EXPECT_TRUE(SessionFile::list(state_).empty());
  EXPECT_EQ(SessionFile::open(state_, "cell-1").error().code, ErrorCode::kNotFound);
}

TEST_F(SessionFileTest, AFileThatIsCutOffIsSetAside) {
  ASSERT_TRUE(SessionFile::create(state_, "cell-3"));
  std::filesystem::resize_file(SessionFile::directory(state_) + "/cell-3.session", 100);
  EXPECT_EQ(SessionFile::open(state_, "cell-3").error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(SessionFile::peek(state_, "cell-3").error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(SessionFile::list(state_, {"cell-3"}), std::vector<std::string>{"cell-3"});
  EXPECT_TRUE(SessionFile::list(state_).empty());
  EXPECT_TRUE(SessionFile::is_damaged(state_, "cell-3"));
}

TEST_F(SessionFileTest, ATextThatIsNotThereIsAnError) {
  auto file = SessionFile::create(state_, "cell-3").value();
  EXPECT_EQ(file.load().value(), "");  // Nothing was written yet.
  ASSERT_TRUE(file.save(std::string(5000, 'x')));
  std::filesystem::resize_file(SessionFile::directory(state_) + "/cell-3.session", 5000);
  EXPECT_EQ(file.load().error().code, ErrorCode::kCorrupt);  // Torn.
  ASSERT_TRUE(file.save("y"));
  EXPECT_EQ(file.load().value(), "y");
  file.mark().length[file.mark().slot] = ~std::uint64_t{0};
  EXPECT_EQ(file.load().error().code, ErrorCode::kCorrupt);
  file.mark().slot = 2;
  EXPECT_EQ(file.load().error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(SessionFile::peek(state_, "cell-3").error().code, ErrorCode::kCorrupt);
}

TEST_F(SessionFileTest, TextsOfAnyLengthTakeTurns) {
  auto file = SessionFile::create(state_, "cell-3").value();
  for (const std::size_t length : {1U, 9000U, 3U, 20'000U, 8000U, 0U, 40'000U, 1U}) {
    const std::string text(length, static_cast<char>('a' + length % 26));
    ASSERT_TRUE(file.save(text));
    const std::uint64_t saves = file.mark().saves;
    ASSERT_TRUE(file.save(text));
    EXPECT_EQ(file.mark().saves, saves) << "what is there already is not written again";
    EXPECT_EQ(file.load().value(), text);
    EXPECT_EQ(SessionFile::peek(state_, "cell-3").value(), text);
  }
}

TEST_F(SessionFileTest, TheDirectoryHasANameOfItsOwn) {
  EXPECT_EQ(SessionFile::incarnation(state_).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(SessionFile::prepare(state_));
  const std::string first = SessionFile::incarnation(state_).value();
  EXPECT_TRUE(first.starts_with(boot_id() + "/"));
  ASSERT_TRUE(SessionFile::prepare(state_));
  EXPECT_EQ(SessionFile::incarnation(state_).value(), first);
  const std::string id = SessionFile::directory(state_) + "/id";
  std::filesystem::resize_file(id, 3);  // The disk was full.
  EXPECT_EQ(SessionFile::incarnation(state_).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(SessionFile::prepare(state_));
  EXPECT_NE(SessionFile::incarnation(state_).value(), first);
  EXPECT_TRUE(SessionFile::list(state_).empty());  // It is no session.
  std::filesystem::remove_all(state_);
  EXPECT_FALSE(SessionFile::prepare(state_));
}

TEST(SessionPhase, HowItEndedIsSaidOnce) {
  SessionPhase phase;
  EXPECT_EQ(phase.enter(GuestPhase::kServing), GuestPhase::kServing);
  EXPECT_EQ(phase.enter(GuestPhase::kEnded, 3 << 8), GuestPhase::kEnded);
  EXPECT_EQ(phase.enter(GuestPhase::kEndedIndependent, SIGKILL), GuestPhase::kEndedIndependent);
  EXPECT_EQ(phase.wait_status(), 3 << 8);
  EXPECT_EQ(phase.note_end(SIGSEGV), GuestPhase::kEndedIndependent);
  EXPECT_EQ(phase.wait_status(), 3 << 8);
}

}  // namespace
}  // namespace migrate
