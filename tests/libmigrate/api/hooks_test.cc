// Hooks of a program, called for a pretended daemon that asks for points as the real one does.
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <functional>
#include <libmigrate/migrate.hpp>
#include <string>
#include <thread>
#include <vector>

#include "libmigrate/program/program.h"

namespace {

using migrate::Program;
using migrate::ProgramWish;

constexpr std::uint32_t kRequest = 4711;

Program own_program() {
  return Program::open(getpid()).value();
}

ProgramWish wish() {
  return own_program().read().value();
}

/// Hooks that note what is called.
class Noting {
 public:
  explicit Noting(
      std::vector<std::string>& calls, std::string name,
      std::function<const char*()> before = [] { return nullptr; })
      : calls_(calls), name_(std::move(name)), before_(std::move(before)) {
    migrate_hooks hooks = {};
    hooks.size = sizeof hooks;
    hooks.data = this;
    hooks.before = [](void* data) { return static_cast<Noting*>(data)->before(); };
    hooks.after = [](void* data) { static_cast<Noting*>(data)->note("after "); };
    hooks.failed = [](const char* why, void* data) {
      static_cast<Noting*>(data)->note(std::string("failed (") + why + ") ");
    };
    EXPECT_EQ(migrate_add_hooks(&hooks, &number_), MIGRATE_DONE);
  }
  ~Noting() {
    if (number_ != 0) {
      EXPECT_EQ(migrate_remove_hooks(number_), MIGRATE_DONE);
    }
  }
  Noting(const Noting&) = delete;
  Noting& operator=(const Noting&) = delete;

  int take_number() { return std::exchange(number_, 0); }

 private:
  const char* before() {
    note("before ");
    return before_();
  }
  void note(const std::string& what) { calls_.push_back(what + name_); }

  std::vector<std::string>& calls_;
  std::string name_;
  std::function<const char*()> before_;
  int number_ = 0;
};

/// Comes to a point for which somebody waits, who answers `answer` once a thread is there.
int come_to_answered_point(const std::string& answer) {
  const Program program = own_program();
  EXPECT_TRUE(program.ask_for_point(kRequest));
  std::thread mover([&] {
    while (program.read().value().at_point != kRequest) {
      std::this_thread::yield();
    }
    EXPECT_EQ(program.read().value().hooking, 0U);
    EXPECT_TRUE(program.answer(kRequest, answer));
  });
  const int moved = migrate_point();
  mover.join();
  return moved;
}

TEST(Hooks, AreCalledInTheirOrderAndHearWhyNot) {
  std::vector<std::string> calls;
  const Noting first(calls, "1");
  const Noting second(calls, "2");
  EXPECT_EQ(wish().hooks, 2U);
  EXPECT_EQ(come_to_answered_point("{\"exit\":4,\"error\":{\"message\":\"no way\"}}"), 0);
  EXPECT_EQ(calls, (std::vector<std::string>{"before 2", "before 1", "failed (no way) 1",
                                             "failed (no way) 2"}));
  EXPECT_STREQ(migrate_last_error(), "no way");
}

TEST(Hooks, AVetoIsSaidAndUndone) {
  std::vector<std::string> calls;
  const Noting first(calls, "1");
  const std::string long_veto = "no\n" + std::string(1000, 'x');
  const Noting second(calls, "2", [&] { return long_veto.c_str(); });
  const Noting third(calls, "3");
  const Program program = own_program();
  ASSERT_TRUE(program.ask_for_point(kRequest));
  EXPECT_EQ(migrate_point(), 0);
  EXPECT_EQ(calls,
            (std::vector<std::string>{"before 3", "before 2", "failed (" + long_veto + ") 3"}));
  EXPECT_EQ(wish().vetoed, kRequest);
  EXPECT_EQ(wish().point, 0U);
  EXPECT_EQ(program.veto().value(), "no " + std::string(253, 'x'));
  EXPECT_EQ(migrate_last_error(), long_veto);
}

TEST(Hooks, AVetoOfACallForItself) {
  std::vector<std::string> calls;
  const Noting hooks(calls, "1", [] { return "not \"now\""; });
  migrate_result* result = nullptr;
  EXPECT_EQ(migrate_self("hostB", nullptr, &result), MIGRATE_REFUSED);
  migrate_refusal refusal = {};
  refusal.size = sizeof refusal;
  ASSERT_EQ(migrate_result_refusal(result, 0, &refusal), 0);
  EXPECT_STREQ(refusal.code, "HOOK_VETO");
  EXPECT_STREQ(refusal.reason, "not \"now\"");
  migrate_result_free(result);
}

TEST(Hooks, WhatCannotBeAskedCallsNone) {
  std::vector<std::string> calls;
  const Noting hooks(calls, "1");
  EXPECT_EQ(migrate_self("", nullptr, nullptr), MIGRATE_USAGE);
  EXPECT_TRUE(calls.empty());
  migrate_options options = {};
  options.size = sizeof options;
  options.socket = "/no/such/socket";
  EXPECT_EQ(migrate_self("hostB", &options, nullptr), MIGRATE_ERROR);
  ASSERT_EQ(calls.size(), 2U);
  EXPECT_NE(calls[1].find("/no/such/socket"), std::string::npos);
}

TEST(Hooks, WhoeverWaitedMayBeGoneWhenOneReturns) {
  std::vector<std::string> calls;
  const Noting hooks(calls, "1", [] {
    EXPECT_EQ(wish().hooking, kRequest);
    EXPECT_TRUE(own_program().ask_for_point(0));
    return nullptr;
  });
  ASSERT_TRUE(own_program().ask_for_point(kRequest));
  EXPECT_EQ(migrate_point(), 0);
  ASSERT_EQ(calls.size(), 2U);
  EXPECT_NE(calls[1].find("no more"), std::string::npos);
  EXPECT_EQ(wish().at_point, 0U);
}

TEST(Hooks, AreCalledForOneMoveAtATime) {
  std::vector<std::string> calls;
  int status = -1;
  const Noting hooks(calls, "1", [&status] {
    EXPECT_EQ(migrate_point(), 0);
    EXPECT_EQ(migrate_self("hostB", nullptr, nullptr), MIGRATE_ERROR);
    std::thread other([&status] {
      EXPECT_EQ(migrate_point(), 0);
      status = migrate_self("hostB", nullptr, nullptr);
    });
    other.join();
    return "no";
  });
  ASSERT_TRUE(own_program().ask_for_point(kRequest));
  EXPECT_EQ(migrate_point(), 0);
  EXPECT_EQ(calls, std::vector<std::string>{"before 1"});
  EXPECT_EQ(status, MIGRATE_ERROR);
}

TEST(Hooks, OnesThatWereTakenBackAreCalledNoMore) {
  std::vector<std::string> calls;
  Noting first(calls, "1");
  Noting second(calls, "2");
  Noting third(calls, "3", [&] {
    EXPECT_EQ(migrate_remove_hooks(third.take_number()), MIGRATE_DONE);
    EXPECT_EQ(migrate_remove_hooks(first.take_number()), MIGRATE_DONE);
    return nullptr;
  });
  EXPECT_EQ(come_to_answered_point("{\"exit\":4}"), 0);
  ASSERT_EQ(calls.size(), 3U);
  EXPECT_EQ(calls[1], "before 2");
  EXPECT_EQ(calls[2].back(), '2');
  EXPECT_EQ(wish().hooks, 1U);
}

TEST(Hooks, TakingThemBackWaitsForWhoeverIsInOne) {
  std::atomic<bool> inside = false;
  std::atomic<bool> over = false;
  std::vector<std::string> calls;
  Noting hooks(calls, "1", [&] {
    inside = true;
    usleep(50'000);
    over = true;
    return "no";
  });
  ASSERT_TRUE(own_program().ask_for_point(kRequest));
  std::thread caller([] { EXPECT_EQ(migrate_point(), 0); });
  while (!inside) {
    std::this_thread::yield();
  }
  EXPECT_EQ(migrate_remove_hooks(hooks.take_number()), MIGRATE_DONE);
  EXPECT_TRUE(over);
  caller.join();
  EXPECT_EQ(wish().hooks, 0U);
}

TEST(Hooks, AThreadThatEndsInOneEndsTheMove) {
  std::vector<std::string> calls;
  const Noting first(calls, "1", [] {
    pthread_exit(nullptr);
    return nullptr;
  });
  const Noting second(calls, "2");
  for (int i = 0; i < 2; ++i) {  // And is in nobody's way.
    calls.clear();
    ASSERT_TRUE(own_program().ask_for_point(kRequest));
    pthread_t thread{};
    const auto begin = [](void*) -> void* {
      migrate_point();
      return nullptr;
    };
    ASSERT_EQ(pthread_create(&thread, nullptr, begin, nullptr), 0);
    ASSERT_EQ(pthread_join(thread, nullptr), 0);
    ASSERT_EQ(calls.size(), 4U);
    EXPECT_EQ(calls[1], "before 1");
    EXPECT_NE(calls[3].find("has ended"), std::string::npos);
    EXPECT_EQ(wish().hooking, 0U);
  }
  ASSERT_TRUE(own_program().ask_for_point(0));
}

/// What a child that was made in a hook, or while one runs, ends with.
int in_child(const std::function<bool()>& holds) {
  const pid_t child = fork();
  if (child == 0) {
    _exit(holds() ? 0 : 1);
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

TEST(Hooks, AChildHasThemAndIsAtNoMove) {
  std::vector<std::string> calls;
  const pid_t parent = getpid();
  const Noting hooks(calls, "1", [&calls, parent]() -> const char* {
    if (getpid() != parent) {
      return nullptr;
    }
    std::thread other([&calls] {
      EXPECT_EQ(in_child([&calls] {
                  EXPECT_EQ(wish().hooks, 1U);
                  EXPECT_EQ(wish().hooking, 0U);
                  EXPECT_EQ(migrate_point(), 0);  // Nobody waits for the child.
                  EXPECT_EQ(calls.size(), 1U);
                  EXPECT_EQ(come_to_answered_point("{\"exit\":4}"), 0);
                  return calls.size() > 2 && !testing::Test::HasFailure();
                }),
                0);
    });
    other.join();
    return "no";
  });
  ASSERT_TRUE(own_program().ask_for_point(kRequest));
  EXPECT_EQ(migrate_point(), 0);
}

TEST(Hooks, AChildThatOneMakesIsNotMoved) {
  std::vector<std::string> calls;
  const pid_t parent = getpid();
  const Noting hooks(calls, "1", []() -> const char* {
    const pid_t child = fork();
    if (child == 0) {
      return nullptr;
    }
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    return "no";
  });
  const int status = migrate_self("hostB", nullptr, nullptr);
  if (getpid() != parent) {
    _exit(status == MIGRATE_ERROR ? 0 : 1);
  }
  EXPECT_EQ(status, MIGRATE_REFUSED);
}

TEST(Hooks, AreCountedAndChecked) {
  migrate_hooks hooks = {};
  int number = 0;
  EXPECT_EQ(migrate_add_hooks(&hooks, &number), MIGRATE_USAGE);
  EXPECT_EQ(migrate_add_hooks(nullptr, &number), MIGRATE_USAGE);
  EXPECT_EQ(migrate_remove_hooks(0), MIGRATE_USAGE);
  hooks.size = sizeof hooks;
  std::array<int, 32> numbers{};
  for (int& each : numbers) {
    EXPECT_EQ(migrate_add_hooks(&hooks, &each), MIGRATE_DONE);
  }
  EXPECT_EQ(migrate_add_hooks(&hooks, &number), MIGRATE_ERROR);
  EXPECT_EQ(come_to_answered_point("{\"exit\":4}"), 0);  // None of them has functions.
  for (const int each : numbers) {
    EXPECT_EQ(migrate_remove_hooks(each), MIGRATE_DONE);
  }
  EXPECT_EQ(wish().hooks, 0U);
}

TEST(Hooks, OfCxxMayThrowAVeto) {
  std::string heard;
  int after = 0;
  const migrate::hooks hooks([]() -> migrate::hooks::reason { throw std::runtime_error("thrown"); },
                             [&after] { ++after; },
                             [&heard](const std::string& why) { heard = why; });
  const migrate::result refused = migrate::try_move_self("hostB");
  EXPECT_EQ(refused.status(), MIGRATE_REFUSED);
  EXPECT_EQ(refused.refusals().at(0).reason, "thrown");
  EXPECT_EQ(after, 0);
  EXPECT_EQ(heard, "");  // It did not agree.
}

}  // namespace
