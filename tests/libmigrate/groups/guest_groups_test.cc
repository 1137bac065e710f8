// Groups that are made for a guest, in the hierarchies of this machine. Root.
#include "libmigrate/groups/guest_groups.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <optional>

#include "base/file.h"

namespace migrate {
namespace {

/// A process that waits for its end.
class Idle {
 public:
  Idle() : id_(::fork()) {
    if (id_ == 0) {
      for (;;) {
        ::pause();
      }
    }
  }
  ~Idle() {
    ::kill(id_, SIGKILL);
    ::waitpid(id_, nullptr, 0);
  }
  Idle(const Idle&) = delete;
  Idle& operator=(const Idle&) = delete;
  pid_t id() const { return id_; }

 private:
  const pid_t id_;
};

std::optional<GroupPlace> place_of(pid_t process, std::string_view controller) {
  const auto text = read_file("/proc/" + std::to_string(process) + "/cgroup");
  for (GroupPlace& place :
       group_places(text.value_or(""), read_file("/proc/self/mountinfo").value_or(""))) {
    if (place.hierarchy.has(controller) ||
        (place.hierarchy.is_version_2() &&
         std::filesystem::exists(place.directory + "/" + std::string(controller) + ".max"))) {
      return std::move(place);
    }
  }
  return std::nullopt;
}

class GuestGroupsTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto own = place_of(::getpid(), "pids");
    if (!own || !own->hierarchy.has("pids")) {
      GTEST_SKIP() << "no hierarchy of version 1 for pids is mounted here";
    }
    const std::string probe = own->directory + "/migrate-test-" + std::to_string(::getpid());
    if (::mkdir(probe.c_str(), 0755) != 0) {
      GTEST_SKIP() << "no control group can be made here";
    }
    ::rmdir(probe.c_str());
    wanted_.set_origin("home" + std::to_string(::getpid()));
    wanted_.add_places("pids:/of/this/test");
    add("pids.max", "20");
    owner_.trusted = true;
    owner_.may_write = [](const std::string&) { return false; };
  }
  void add(const std::string& name, const std::string& value) {
    wire::GroupLimit& limit = *wanted_.add_limits();
    limit.set_name(name);
    limit.set_value(value);
  }
  GuestGroups make(const GroupRules& rules = {}) const {
    return GuestGroups::make(wanted_, owner_, rules);
  }
  static void enter(const GuestGroups& groups, pid_t process) {
    for (const auto step : {GuestGroups::Step::kEarly, GuestGroups::Step::kLate}) {
      const auto entered = groups.enter(process, step);
      ASSERT_TRUE(entered) << entered.error().message();
    }
  }

  wire::ControlGroups wanted_;
  GuestGroups::Owner owner_;
};

TEST_F(GuestGroupsTest, HaveTheLimitsAndAreRemovedWithTheLast) {
  const GuestGroups groups = make();
  EXPECT_EQ(groups.lost(), std::vector<std::string>());
  ASSERT_EQ(groups.made().size(), 1U);
  const std::string directory = groups.made().front();
  EXPECT_EQ(read_file(directory + "/pids.max").value_or(""), "20\n");
  {
    const Idle process;
    enter(groups, process.id());
    EXPECT_EQ(place_of(process.id(), "pids")->directory, directory);
    remove_groups(groups.made());
    EXPECT_TRUE(std::filesystem::exists(directory));
  }
  remove_groups(groups.made());
  EXPECT_FALSE(std::filesystem::exists(directory));
}

TEST_F(GuestGroupsTest, AreOfAllThatComeFromOneGroup) {
  const GuestGroups one = make();
  EXPECT_EQ(make().made(), one.made());
  remove_groups(one.made());
  wanted_.mutable_limits(0)->set_value("21");
  const GuestGroups other = make();
  EXPECT_NE(other.made(), one.made());
  remove_groups(other.made());
}

TEST_F(GuestGroupsTest, AreMadeAgainIfTheyWereTakenAway) {
  const GuestGroups groups = make();
  remove_groups(groups.made());
  {
    const Idle process;
    enter(groups, process.id());
    EXPECT_EQ(read_file(groups.made().front() + "/pids.max").value_or(""), "20\n");
  }
  remove_groups(groups.made());
}

TEST_F(GuestGroupsTest, WhatCannotBeSetIsTold) {
  add("no.such", "1");
  add("memory.min", "1048576");
  owner_.trusted = false;
  const GuestGroups groups = make();
  EXPECT_EQ(groups.lost(), (std::vector<std::string>{"no.such 1", "memory.min 1048576"}));
  remove_groups(groups.made());
}

TEST_F(GuestGroupsTest, WhereNothingIsWantedNothingIsMade) {
  wanted_.clear_limits();
  EXPECT_TRUE(make().none());
  EXPECT_TRUE(make(GroupRules::parse({"/other=/"}).value()).none());
}

TEST_F(GuestGroupsTest, ARuleNeedsWhoeverMayDoSo) {
  const auto own = place_of(::getpid(), "pids");
  const std::string below = own->directory + "/rule-" + std::to_string(::getpid());
  ASSERT_EQ(::mkdir(below.c_str(), 0755), 0);
  const std::string path = (own->path == "/" ? "" : own->path) + below.substr(below.rfind('/'));
  const GroupRules rules = GroupRules::parse({"/of/*=" + path}).value();
  const GuestGroups ruled = make(rules);
  EXPECT_TRUE(ruled.made().front().starts_with(below + "/")) << ruled.made().front();
  owner_.trusted = false;
  const GuestGroups not_his = make(rules);
  EXPECT_FALSE(not_his.made().front().starts_with(below + "/"));
  owner_.may_write = [](const std::string&) { return true; };
  const GuestGroups his = make(rules);
  EXPECT_TRUE(his.made().front().starts_with(below + "/"));
  for (const GuestGroups* groups : {&ruled, &not_his, &his}) {
    remove_groups(groups->made());
  }
  EXPECT_EQ(::rmdir(below.c_str()), 0);
}

TEST_F(GuestGroupsTest, AtHomeItIsInThoseOfItsDeputy) {
  const GuestGroups made = make();
  {
    const Idle deputy;
    enter(made, deputy.id());
    const Idle process;
    const GuestGroups groups = GuestGroups::of(deputy.id());
    EXPECT_TRUE(groups.made().empty());
    enter(groups, process.id());
    EXPECT_EQ(place_of(process.id(), "pids")->directory, made.made().front());
  }
  remove_groups(made.made());
}

TEST_F(GuestGroupsTest, ADaemonClearsWhatACrashLeft) {
  const GuestGroups groups = make();
  prepare_groups({});
  EXPECT_FALSE(std::filesystem::exists(groups.made().front()));
}

}  // namespace
}  // namespace migrate
