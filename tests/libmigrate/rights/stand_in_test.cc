#include "libmigrate/rights/stand_in.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <string>

#include "base/file.h"

namespace migrate {
namespace {

constexpr uid_t kUser = 64011;
constexpr uid_t kStranger = 64012;

/// A child that has done `change`, and waits to be killed.
class Child {
 public:
  explicit Child(const std::function<bool()>& change) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe(ends.data()), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      const char done = change() ? 'y' : 'n';
      if (::write(ends[1], &done, 1) != 1) {
        ::_exit(1);
      }
      for (;;) {
        ::pause();
      }
    }
    char done = 'n';
    EXPECT_EQ(::read(ends[0], &done, 1), 1);
    EXPECT_EQ(done, 'y');
    ::close(ends[0]);
    ::close(ends[1]);
  }
  ~Child() { end(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void end() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
      ended_ = pid_;
      pid_ = 0;
    }
  }
  pid_t pid() const { return pid_ > 0 ? pid_ : ended_; }

 private:
  pid_t pid_ = 0;
  pid_t ended_ = 0;
};

/// The child that this process has had for the shortest time.
pid_t last_child() {
  const std::string id = std::to_string(::getpid());
  const std::string children = read_file("/proc/" + id + "/task/" + id + "/children").value();
  return std::stoi(children.substr(children.rfind(' ', children.size() - 2) + 1));
}

bool become(uid_t id) {
  return ::setresgid(id, id, id) == 0 && ::setresuid(id, id, id) == 0;
}
bool show() {
  return ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0;
}

Asker user(uid_t id) {
  return Asker{.user = id, .group = id};
}
Asker root() {
  return Asker{.user = 0, .group = 0, .groups = {}, .capabilities = ~std::uint64_t{0}};
}

ErrorCode code_of(const Result<void>& result) {
  return result ? ErrorCode::kRetry : result.error().code;  // kRetry: none of those expected
}

class StandInTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root, to become others";
    }
  }
};

TEST_F(StandInTest, ItsUserMayUseAPlainProcess) {
  const Child child([] { return become(kUser) && show(); });
  EXPECT_TRUE(may_attach(user(kUser), child.pid()));
  EXPECT_TRUE(may_attach(root(), child.pid()));
  EXPECT_EQ(code_of(may_attach(user(kStranger), child.pid())), ErrorCode::kRefused);
}

TEST_F(StandInTest, NobodyButRootMayUseWhatIsHidden) {
  const Child child([] { return become(kUser); });
  EXPECT_EQ(code_of(may_attach(user(kUser), child.pid())), ErrorCode::kRefused);
  EXPECT_TRUE(may_attach(root(), child.pid()));
}

TEST_F(StandInTest, OneGroupMoreIsEnoughToBeRefused) {
  const Child child([] {
    return ::setresgid(kUser, kStranger, kStranger) == 0 && ::setresuid(kUser, kUser, kUser) == 0 &&
           show();
  });
  EXPECT_EQ(code_of(may_attach(user(kUser), child.pid())), ErrorCode::kRefused);
}

TEST_F(StandInTest, RootWithoutCapabilitiesIsAskedLikeOthers) {
  const Child child([] { return become(kUser) && show(); });
  EXPECT_EQ(code_of(may_attach(Asker{.user = 0, .group = 0}, child.pid())), ErrorCode::kRefused);
}

TEST_F(StandInTest, CapabilitiesOfOthersAreNotBelieved) {
  const Child child([] { return become(kUser) && show(); });
  Asker stranger = user(kStranger);
  stranger.capabilities = ~std::uint64_t{0};
  EXPECT_EQ(code_of(may_attach(stranger, child.pid())), ErrorCode::kRefused);
}

TEST_F(StandInTest, SignalsAreJudgedAsByKill) {
  // Its real user may signal a set-user-id program, which he may not look into.
  const Child child([] { return ::setresuid(kUser, 0, 0) == 0; });
  EXPECT_TRUE(may_signal(user(kUser), child.pid()));
  EXPECT_EQ(code_of(may_attach(user(kUser), child.pid())), ErrorCode::kRefused);
  EXPECT_EQ(code_of(may_signal(user(kStranger), child.pid())), ErrorCode::kRefused);
}

TEST_F(StandInTest, SignalsAreSentAsByHim) {
  Child child([] { return become(kUser); });
  const ProcessIdentity process = ProcessIdentity::of(child.pid());
  EXPECT_TRUE(send_signal_as(user(kUser), process, 0));
  EXPECT_EQ(code_of(send_signal_as(user(kStranger), process, SIGKILL)), ErrorCode::kRefused);
  EXPECT_TRUE(send_signal_as(root(), process, 0));
  EXPECT_TRUE(process.is_alive());
  EXPECT_EQ(code_of(send_signal_as(user(kUser), {process.pid, process.start + 1}, SIGKILL)),
            ErrorCode::kNotFound);  // Another that has its pid.
  EXPECT_TRUE(send_signal_as(user(kUser), process, SIGTERM));
  int status = 0;
  ASSERT_EQ(::waitpid(child.pid(), &status, 0), child.pid());
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  EXPECT_EQ(code_of(send_signal_as(user(kUser), process, SIGTERM)), ErrorCode::kNotFound);
}

TEST_F(StandInTest, WhatHasEndedIsNotFound) {
  Child child([] { return true; });
  child.end();
  EXPECT_EQ(code_of(may_attach(root(), child.pid())), ErrorCode::kNotFound);
  EXPECT_EQ(code_of(may_signal(root(), child.pid())), ErrorCode::kNotFound);
}

TEST_F(StandInTest, NoAnswerIsNone) {
  const Child child([] { return become(kUser) && show(); });
  auto stand_in = StandIn::create(user(kUser));
  ASSERT_TRUE(stand_in);
  EXPECT_EQ(code_of(stand_in->answer()), ErrorCode::kInvalid);
  // What its user may do to it, once it is his.
  const Child stopper([asks = last_child()] {
    const bool is_user = become(kUser);
    while (is_user && ::kill(asks, SIGSTOP) != 0) {
      ::usleep(1000);
    }
    return is_user;
  });
  const std::array<pid_t, 1> threads{child.pid()};
  ASSERT_TRUE(stand_in->ask_attach(threads));
  EXPECT_EQ(code_of(stand_in->answer()), ErrorCode::kRefused);
}

// As on a host with more to do than it can: a tracer keeps it from running.
TEST_F(StandInTest, AnAnswerMayComeLate) {
  const Child child([] { return become(kUser) && show(); });
  auto stand_in = StandIn::create(user(kUser));
  ASSERT_TRUE(stand_in);
  const pid_t asks = last_child();
  while (read_file("/proc/" + std::to_string(asks) + "/comm").value() != "migrate-asks\n") {
    ::usleep(1000);  // It is about to take that name.
  }
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const pid_t tracer = ::fork();
  if (tracer == 0) {
    const bool holds = ::ptrace(PTRACE_SEIZE, asks, nullptr, nullptr) == 0 &&
                       ::ptrace(PTRACE_INTERRUPT, asks, nullptr, nullptr) == 0 &&
                       ::waitpid(asks, nullptr, __WALL) == asks;
    const char told = holds ? 'y' : 'n';
    const bool written = ::write(ends[1], &told, 1) == 1;
    ::usleep(1'500'000);
    ::_exit(written ? 0 : 1);
  }
  char holds = 'n';
  ASSERT_EQ(::read(ends[0], &holds, 1), 1);
  ASSERT_EQ(holds, 'y');
  const std::array<pid_t, 1> threads{child.pid()};
  ASSERT_TRUE(stand_in->ask_attach(threads));
  EXPECT_TRUE(stand_in->answer());
  ::waitpid(tracer, nullptr, 0);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_F(StandInTest, LeavesNothing) {
  const auto children = [] {
    const std::string id = std::to_string(::getpid());
    return read_file("/proc/" + id + "/task/" + id + "/children").value();
  };
  const std::string before = children();
  {
    auto first = StandIn::create(root());
    auto second = StandIn::create(user(kUser));
    ASSERT_TRUE(first && second);
    EXPECT_NE(children(), before);
    *first = std::move(*second);
  }
  EXPECT_EQ(children(), before);
}

}  // namespace
}  // namespace migrate
