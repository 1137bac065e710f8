// Where groups are made, by rules.
#include "libmigrate/groups/group_rules.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

TEST(GroupRules, TheFirstThatFitsCounts) {
  const auto rules = GroupRules::parse({"/slurm/job_1=/one", "/slurm/*=/jobs", "/*=/all"});
  ASSERT_TRUE(rules);
  EXPECT_EQ(rules->group_for({"/slurm/job_1"}), "/one");
  EXPECT_EQ(rules->group_for({"/slurm/job_10"}), "/jobs");
  EXPECT_EQ(rules->group_for({"/else", "/slurm/x"}), "/jobs");
  EXPECT_EQ(rules->group_for({"/else"}), "/all");
  EXPECT_EQ(rules->group_for({}), "");
  EXPECT_EQ(GroupRules().group_for({"/else"}), "");
}

TEST(GroupRules, OfAnotherShapeAreNone) {
  for (const char* rule : {"", "/a", "a=/b", "/a=b", "/a=", "/a=/b/../c", "/../a=/b"}) {
    EXPECT_FALSE(GroupRules::parse({rule})) << rule;
  }
}

}  // namespace
}  // namespace migrate
