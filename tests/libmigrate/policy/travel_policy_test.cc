#include "libmigrate/policy/travel_policy.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

PolicyRule rule(const char* place, Travel travel) {
  PolicyRule made;
  made.place = place;
  made.travel = travel;
  return made;
}

TravellingMemory library(bool known) {
  return {.kind = MemoryKind::kCode, .name = "/opt/x/libx.so", .bytes = 8192, .known = known};
}

TravellingMemory heap(std::uint64_t bytes) {
  return {.kind = MemoryKind::kHeap, .name = {}, .bytes = bytes};
}

TEST(TravelPolicy, DefaultsOfMoveAndRun) {
  const TravelPolicy move;
  EXPECT_EQ(move.choose(library(true)), (TravelChoice{Travel::kLocal, "default"}));
  EXPECT_EQ(move.choose(library(false)), (TravelChoice{Travel::kLocal, "default"}));
  EXPECT_EQ(move.choose(heap(4096)), (TravelChoice{Travel::kShip, "default"}));
  const TravelPolicy run({}, {}, true);
  EXPECT_EQ(run.choose(library(true)), (TravelChoice{Travel::kLocal, "default"}));
  EXPECT_EQ(run.choose(library(false)), (TravelChoice{Travel::kLazy, "default"}));
}

TEST(TravelPolicy, TheFirstRuleThatFitsDecides) {
  PolicyRule other = rule("p:1", Travel::kRefuse);
  other.name = "/srv/*";
  PolicyRule small = rule("p:2", Travel::kRefuse);
  small.max_bytes = 4096;
  PolicyRule unknown = rule("p:3", Travel::kShip);
  unknown.known = false;
  PolicyRule code = rule("p:4", Travel::kEager);
  code.kind = MemoryKind::kCode;
  code.name = "/opt/*.so";
  const TravelPolicy policy({}, {other, small, unknown, code}, false);
  EXPECT_EQ(policy.choose(library(false)), (TravelChoice{Travel::kShip, "p:3"}));
  EXPECT_EQ(policy.choose(library(true)), (TravelChoice{Travel::kEager, "p:4"}));
  EXPECT_EQ(policy.choose(heap(4096)).rule, "p:2");
  EXPECT_EQ(policy.choose(heap(8192)).rule, "default");
}

// Whatever the asker writes, he gets no more than the host's rule gives away.
TEST(TravelPolicy, TheHostBoundsTheAsker) {
  constexpr Travel kAll[] = {Travel::kRefuse, Travel::kLocal, Travel::kShip, Travel::kLazy,
                             Travel::kEager};
  const auto rank = [](Travel travel) {
    return travel == Travel::kRefuse ? 0 : travel == Travel::kLocal ? 1 : 2;
  };
  for (const Travel host : kAll) {
    for (const Travel asker : kAll) {
      for (const bool starts : {false, true}) {
        const TravelPolicy policy({rule("host:1", host)}, {rule("own:1", asker)}, starts);
        const TravelChoice choice = policy.choose(library(false));
        EXPECT_LE(rank(choice.travel), rank(host));
        if (rank(asker) <= rank(host)) {
          EXPECT_EQ(choice, (TravelChoice{asker, "own:1"}));
        } else {
          EXPECT_EQ(choice, (TravelChoice{host, "host:1 (not own:1)"}));
        }
      }
    }
  }
}

TEST(TravelPolicy, SharedFilesStayShared) {
  TravellingMemory shared{.kind = MemoryKind::kFile, .name = "/srv/data", .is_shared = true};
  EXPECT_EQ(TravelPolicy({}, {rule("p:1", Travel::kShip)}, true).choose(shared).travel,
            Travel::kLocal);
  EXPECT_EQ(TravelPolicy({}, {rule("p:1", Travel::kRefuse)}, true).choose(shared).travel,
            Travel::kRefuse);
}

TEST(TravelPolicy, SharedFilesThatAreNotThereAreSentIfTemporaryOrByARule) {
  TravellingMemory shared{
      .kind = MemoryKind::kFile, .name = "/srv/data", .known = false, .is_shared = true};
  EXPECT_EQ(TravelPolicy({}, {}, true).choose(shared).travel, Travel::kLocal);
  EXPECT_EQ(TravelPolicy({}, {rule("p:1", Travel::kShip)}, false).choose(shared).travel,
            Travel::kShip);
  EXPECT_EQ(TravelPolicy({rule("h:1", Travel::kLocal)}, {rule("p:1", Travel::kShip)}, false)
                .choose(shared)
                .travel,
            Travel::kLocal);
  shared.name = "/tmp/hsperfdata_user/17";
  EXPECT_EQ(TravelPolicy({}, {}, false).choose(shared).travel, Travel::kLazy);
  EXPECT_EQ(TravelPolicy({rule("h:1", Travel::kRefuse)}, {}, false).choose(shared).travel,
            Travel::kRefuse);
}

}  // namespace
}  // namespace migrate
