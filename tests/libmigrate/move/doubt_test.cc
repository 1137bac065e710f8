// How a doubt ends, for each fate and each decision of an operator.
#include "libmigrate/move/doubt.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string>
#include <utility>

namespace migrate {
namespace {

/// A move that is in doubt, or not any more.
class StandInMove final : public Departure {
 public:
  const SessionId& session() const override { return session_; }
  std::string destination() const override { return "there"; }
  const Error& error() const override { return error_; }
  Fate fate() const override { return fate_; }
  int wait_status() const override { return 0; }
  const std::string& waits_for() const override { return waits_for_; }
  std::int64_t waits_since_us() const override { return 0; }
  bool done() const override { return false; }
  std::uint64_t owed_pages() const override { return 0; }
  int control_fd() const override { return -1; }
  Original handle() override { return Original::kHere; }
  void ask_once_more() override {
    ++asked;
    fate_ = answer;
  }
  void confirm_runs() override { fate_ = Fate::kRuns; }
  Result<void> resume_here() override {
    ++resumed;
    return resumes ? Result<void>() : fail(make_error(ErrorCode::kSystem, "resume"));
  }
  void stop_serving() override {}
  Result<void> hide() override { return {}; }
  nlohmann::json result() const override { return {}; }
  nlohmann::json progress_event() const override { return {}; }

  void know(Fate fate) { fate_ = answer = fate; }

  Fate answer = Fate::kUnknown;  // if asked once more
  int asked = 0;
  int resumed = 0;
  bool resumes = true;

 private:
  SessionId session_{};
  Error error_ = make_error(ErrorCode::kPeerLost, "hear from", "there");
  std::string waits_for_;
  Fate fate_ = Fate::kUnknown;
};

class DoubtEndTest : public testing::Test {
 protected:
  /// Ends it, by what an operator decided if he did; his answer is the exit code, -1 if none came.
  DoubtEnd end(std::optional<Resolution> resolution = {}) {
    Decision decision;
    std::array<int, 2> ends{-1, -1};
    if (resolution) {
      EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
      decision.resolution = resolution;
      decision.client = EventSink(UniqueFd(ends[0]));
    }
    const UniqueFd reader(ends[1]);
    const DoubtEnd ended = end_doubt(move_, decision, "job");
    EXPECT_FALSE(decision.made());
    std::array<char, 4096> text{};
    const ssize_t length = resolution ? ::read(reader.get(), text.data(), text.size()) : 0;
    exit_ = -1;
    if (length > 0) {
      exit_ = nlohmann::json::parse(std::string(text.data(), static_cast<std::size_t>(length)))
                  .value("exit", -1);
    }
    return ended;
  }

  StandInMove move_;
  int exit_ = -1;
};

TEST_F(DoubtEndTest, ByWhatTheDestinationSays) {
  move_.know(Fate::kRuns);
  EXPECT_EQ(end(), DoubtEnd::kThere);
  move_.know(Fate::kEnded);
  EXPECT_EQ(end(), DoubtEnd::kThere);
  EXPECT_EQ(move_.resumed, 0);
  move_.know(Fate::kNeverRan);
  EXPECT_EQ(end(), DoubtEnd::kHere);
  EXPECT_EQ(move_.resumed, 1);
  EXPECT_EQ(move_.asked, 0);
}

TEST_F(DoubtEndTest, ByAnOperatorWhoGivesItUp) {
  EXPECT_EQ(end(Resolution::kGiveUp), DoubtEnd::kGivenUp);
  EXPECT_EQ(exit_, MIGRATE_DONE);
  EXPECT_EQ(move_.asked, 1);
  EXPECT_EQ(move_.resumed, 0);
}

TEST_F(DoubtEndTest, ByAnOperatorWhoResumesIt) {
  EXPECT_EQ(end(Resolution::kResumeSource), DoubtEnd::kHere);
  EXPECT_EQ(exit_, MIGRATE_DONE);
  EXPECT_EQ(move_.resumed, 1);
}

TEST_F(DoubtEndTest, ByAnOperatorAndItCannotBeResumed) {
  move_.resumes = false;
  EXPECT_EQ(end(Resolution::kResumeSource), DoubtEnd::kHere);
  EXPECT_EQ(exit_, MIGRATE_FAILED);
}

TEST_F(DoubtEndTest, TheDestinationsWordCountsMoreThanAnOperators) {
  move_.answer = Fate::kRuns;
  EXPECT_EQ(end(Resolution::kResumeSource), DoubtEnd::kThere);
  EXPECT_EQ(exit_, MIGRATE_REFUSED);
  EXPECT_EQ(move_.resumed, 0);
  move_.know(Fate::kUnknown);
  move_.answer = Fate::kNeverRan;
  EXPECT_EQ(end(Resolution::kGiveUp), DoubtEnd::kHere);
  EXPECT_EQ(exit_, MIGRATE_REFUSED);
  EXPECT_EQ(move_.resumed, 1);
}

TEST_F(DoubtEndTest, ADecisionIsDueWhenTheProcessCouldHaveCalled) {
  Decision decision;
  EXPECT_FALSE(decision.is_due());
  decision.resolution = Resolution::kGiveUp;
  EXPECT_FALSE(decision.is_due());
  decision.made_us -= 2'100'000;
  EXPECT_TRUE(decision.is_due());
  refuse_decision(decision, "job", "it is not in doubt");
  EXPECT_FALSE(decision.made() || decision.is_due());
}

TEST_F(DoubtEndTest, IsToldWithTheHostThatDoesNotAnswer) {
  const Error error = doubt_error(move_, "job");
  EXPECT_EQ(error.code, ErrorCode::kPeerLost);
  EXPECT_NE(error.message().find("until there says"), std::string::npos) << error.message();
}

}  // namespace
}  // namespace migrate
