// Limits of control groups of both versions, read and set in folders that look like hierarchies.
#include "libmigrate/groups/group_limits.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "base/file.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

using Texts = std::vector<std::string>;
using Limits = std::map<std::string, std::string>;

wire::GroupLimit limit_of(const std::string& name, const std::string& value) {
  wire::GroupLimit limit;
  limit.set_name(name);
  limit.set_value(value);
  return limit;
}

class GroupLimitsTest : public testing::Test {
 protected:
  void set(const std::string& group, const std::string& file, const std::string& text) {
    std::filesystem::create_directories(directory.file(group));
    std::ofstream(directory.file(group + "/" + file)) << text << "\n";
  }
  std::string get(const std::string& file) const {
    return read_file(directory.file(file)).value_or("none");
  }
  std::string mount(const std::string& type, const std::string& options,
                    const std::string& root = "/") const {
    return "25 20 0:22 " + root + " " + directory.path() + " rw,nosuid shared:3 - " + type +
           " cgroup rw," + options + "\n";
  }
  std::vector<GroupPlace> in_version_2(const std::string& path) const {
    return group_places("0::" + path + "\n", mount("cgroup2", "nsdelegate"));
  }
  std::vector<GroupPlace> in_version_1(const std::string& controller,
                                       const std::string& path) const {
    return group_places("4:" + controller + ":" + path + "\n0::/\n", mount("cgroup", controller));
  }
  static Limits read(const std::vector<GroupPlace>& places) {
    GroupLimits found;
    read_group_limits(places, found);
    Limits limits;
    for (const wire::GroupLimit& each : found) {
      limits[each.name()] = each.value();
    }
    return limits;
  }

  test::TemporaryDirectory directory;
};

TEST_F(GroupLimitsTest, TheStrictestOfAGroupAndThoseAboveIt) {
  set("a", "pids.max", "100");
  set("a/b", "pids.max", "max");
  set("a", "memory.max", "4096");
  set("a/b", "memory.max", "8192");
  set("a/b", "memory.high", "max");
  set("a", "cpu.max", "50000 100000");
  set("a/b", "cpu.max", "60000 200000");
  set("a/b", "cpu.weight", "50");
  set("a", "cpu.weight", "200");
  set("a/b", "cpuset.cpus", "");
  set("a", "cpuset.cpus", "0-1");
  set("a/b", "memory.min", "10");
  set("a", "memory.min", "0");
  EXPECT_EQ(read(in_version_2("/a/b")), (Limits{{"pids.max", "100"},
                                                {"memory.max", "4096"},
                                                {"cpu.max", "60000 200000"},
                                                {"cpu.weight", "50"},
                                                {"cpuset.cpus", "0-1"}}));
  EXPECT_EQ(other_group_limits(in_version_2("/a/b")), Texts{"/a: cpu.weight 200"});
}

TEST_F(GroupLimitsTest, OfVersion1InTheNamesOfVersion2) {
  set("a", "memory.limit_in_bytes", "4096");
  set("a", "memory.memsw.limit_in_bytes", "12288");
  EXPECT_EQ(read(in_version_1("memory", "/a")),
            (Limits{{"memory.max", "4096"}, {"memory.swap.max", "8192"}}));
  set("c", "memory.limit_in_bytes", "9223372036854771712");
  EXPECT_EQ(read(in_version_1("memory", "/c")), Limits());
  set("a", "cpu.cfs_quota_us", "-1");
  set("a", "cpu.cfs_period_us", "100000");
  set("a", "cpu.shares", "512");
  EXPECT_EQ(read(in_version_1("cpu", "/a")), (Limits{{"cpu.weight", "50"}}));
  set("a", "cpu.cfs_quota_us", "20000");
  set("a", "cpu.shares", "1024");
  EXPECT_EQ(read(in_version_1("cpu", "/a")), (Limits{{"cpu.max", "20000 100000"}}));
  EXPECT_EQ(read(in_version_1("cpu", "/")), Limits());
}

TEST_F(GroupLimitsTest, ProcessorsThatAreAllAreNoLimit) {
  set(".", "cpuset.cpus", "0-3");
  set("a", "cpuset.cpus", "0-3");
  set("b", "cpuset.cpus", "1");
  EXPECT_EQ(read(in_version_1("cpuset", "/a")), Limits());
  EXPECT_EQ(read(in_version_1("cpuset", "/b")), (Limits{{"cpuset.cpus", "1"}}));
}

TEST_F(GroupLimitsTest, WhereOnlyAPartOfTheHierarchyIsSeen) {
  set("b", "pids.max", "7");
  set("b", "io.max", "8:0 rbps=1");
  const auto places = group_places("0::/a/b\n", mount("cgroup2", "x", "/a"));
  EXPECT_EQ(read(places), (Limits{{"pids.max", "7"}}));
  EXPECT_EQ(other_group_limits(places), Texts{"/a/b: io.max 8:0 rbps=1"});
  EXPECT_TRUE(group_places("0::/ab\n", mount("cgroup2", "x", "/a")).empty());
}

TEST_F(GroupLimitsTest, AGroupThatIsNotSeenHasNoDirectory) {
  const std::string mounts = mount("cgroup", "cpu", "/a");
  const auto places = unseen_group_places("4:cpu:/b\n5:pids:/b\n", mounts);
  ASSERT_EQ(places.size(), 1U) << "of the other nothing at all is seen";
  EXPECT_EQ(places[0].directory, "");
  EXPECT_EQ(places[0].path, "/b");
  EXPECT_EQ(places[0].hierarchy.directory("/a/c"), directory.file("c"));
  EXPECT_TRUE(unseen_group_places("4:cpu:/a/c\n", mounts).empty());
}

TEST_F(GroupLimitsTest, OthersThatNobodyHasByDefault) {
  set("a", "devices.list", "a *:* rwm");
  set("a/b", "devices.list", "c 1:3 rwm");
  EXPECT_EQ(other_group_limits(in_version_1("devices", "/a/b")),
            Texts{"/a/b: devices.list c 1:3 rwm"});
}

TEST_F(GroupLimitsTest, AreSetInEitherVersion) {
  for (const char* file : {"memory.max", "cpu.max", "cpu.weight"}) {
    set("a", file, "");
  }
  const GroupPlace second = in_version_2("/a").front();
  EXPECT_TRUE(set_group_limit(second, limit_of("memory.max", "4096")));
  EXPECT_TRUE(set_group_limit(second, limit_of("cpu.max", "10000 20000")));
  EXPECT_TRUE(set_group_limit(second, limit_of("cpu.weight", "50")));
  EXPECT_TRUE(get("a/memory.max").starts_with("4096"));
  EXPECT_TRUE(get("a/cpu.max").starts_with("10000 20000"));
  EXPECT_TRUE(get("a/cpu.weight").starts_with("50"));
  for (const char* file : {"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}) {
    set("b", file, "");
  }
  const GroupPlace first = in_version_1("memory", "/b").front();
  EXPECT_TRUE(set_group_limit(first, limit_of("memory.max", "4096")));
  EXPECT_TRUE(set_group_limit(first, limit_of("memory.swap.max", "8192")));
  EXPECT_TRUE(get("b/memory.limit_in_bytes").starts_with("4096"));
  EXPECT_TRUE(get("b/memory.memsw.limit_in_bytes").starts_with("12288"));
  for (const char* file : {"cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares"}) {
    set("c", file, "");
  }
  const GroupPlace processor = in_version_1("cpu", "/c").front();
  EXPECT_TRUE(set_group_limit(processor, limit_of("cpu.max", "10000 20000")));
  EXPECT_TRUE(set_group_limit(processor, limit_of("cpu.weight", "50")));
  EXPECT_TRUE(get("c/cpu.cfs_quota_us").starts_with("10000"));
  EXPECT_TRUE(get("c/cpu.cfs_period_us").starts_with("20000"));
  EXPECT_TRUE(get("c/cpu.shares").starts_with("512"));
}

TEST_F(GroupLimitsTest, ThatThoseAboveAreStricterIsWell) {
  set("a", "memory.max", "4096");
  std::filesystem::create_directories(directory.file("a/b"));
  const GroupPlace place = in_version_2("/a/b").front();
  EXPECT_TRUE(set_group_limit(place, limit_of("memory.max", "8192")));
  EXPECT_FALSE(set_group_limit(place, limit_of("memory.max", "2048")));
  EXPECT_FALSE(set_group_limit(place, limit_of("pids.max", "20")));
}

TEST_F(GroupLimitsTest, WhatOthersSayIsChecked) {
  EXPECT_TRUE(is_group_limit(limit_of("pids.max", "max")));
  EXPECT_TRUE(is_group_limit(limit_of("cpuset.cpus", "0-3,7")));
  EXPECT_TRUE(is_group_limit(limit_of("cpu.max", "max 100000")));
  EXPECT_FALSE(is_group_limit(limit_of("pids.max", "20\n")));
  EXPECT_FALSE(is_group_limit(limit_of("pids.max", "")));
  EXPECT_FALSE(is_group_limit(limit_of("cpuset.cpus", "3-0")));
  EXPECT_FALSE(is_group_limit(limit_of("cpuset.cpus", "0-99999999999")));
  EXPECT_FALSE(is_group_limit(limit_of("cpu.max", "1 0")));
  EXPECT_FALSE(is_group_limit(limit_of("cpu.weight", "0")));
  EXPECT_FALSE(is_group_limit(limit_of("cgroup.procs", "1")));
  EXPECT_FALSE(is_group_limit(limit_of("../memory.max", "1")));
}

TEST_F(GroupLimitsTest, WhatGivesMoreThanOthersHaveIsAPrivilege) {
  EXPECT_TRUE(is_privilege(limit_of("memory.min", "4096")));
  EXPECT_TRUE(is_privilege(limit_of("cpu.weight", "101")));
  EXPECT_FALSE(is_privilege(limit_of("cpu.weight", "100")));
  EXPECT_FALSE(is_privilege(limit_of("memory.max", "max")));
}

}  // namespace
}  // namespace migrate
