#include "libmigrate/move/travel_plan.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "libmigrate/image/only_process.h"

namespace migrate {
namespace {

wire::Mapping& map(wire::Image& image, wire::Mapping::Kind kind, int protection) {
  auto* const mappings = mutable_only_process(image).mutable_mappings();
  const std::uint64_t start = 0x400000 + static_cast<std::uint64_t>(mappings->size()) * kPageBytes;
  wire::Mapping& mapping = *mappings->Add();
  mapping.set_start(start);
  mapping.set_end(start + kPageBytes);
  mapping.set_kind(kind);
  mapping.set_protection(static_cast<std::uint32_t>(protection));
  return mapping;
}

void map_library(wire::Image& image, const std::string& path) {
  const int file = image.objects().mapped_files_size();
  wire::FileIdentity& identity = *image.mutable_objects()->add_mapped_files();
  identity.set_path(path);
  identity.set_size_bytes(kPageBytes);
  map(image, wire::Mapping::FILE_LOCAL, PROT_READ | PROT_EXEC)
      .set_file(static_cast<std::uint32_t>(file));
}

PolicyRule refuse(MemoryKind kind, std::optional<bool> known = {}) {
  PolicyRule rule;
  rule.kind = kind;
  rule.known = known;
  return rule;
}

/// On a host that lets no code go that its destination has not.
class TravelPlanTest : public testing::Test {
 protected:
  TravelPlanTest() {
    map_library(image_, "/lib/one");
    map(image_, wire::Mapping::ANONYMOUS, PROT_READ | PROT_WRITE);
    context_.travel = {refuse(MemoryKind::kCode, false)};
    options_.context = &context_;
    plan_.begin();
  }

  std::vector<std::string> refused() const {
    std::vector<std::string> objects;
    for (const wire::Refusal& refusal : plan_.travels()->refusals) {
      objects.push_back(refusal.object());
    }
    return objects;
  }
  using Objects = std::vector<std::string>;

  wire::Image image_;
  WorkerContext context_;
  SourceMoveOptions options_;
  TravelPlan plan_{options_};
};

TEST_F(TravelPlanTest, WhatTheDestinationLacksIsKnownOnceItIsAsked) {
  plan_.see(image_, {});
  EXPECT_TRUE(plan_.must_ask());
  EXPECT_EQ(refused(), Objects());
  plan_.learn({.mapped = {0}});
  EXPECT_FALSE(plan_.must_ask());
  EXPECT_EQ(refused(), Objects{"code /lib/one"});
}

TEST_F(TravelPlanTest, OfWhatIsNoFileItNeedNotBeAsked) {
  context_.travel.push_back(refuse(MemoryKind::kHeap));
  plan_.see(image_, {});
  EXPECT_TRUE(plan_.must_ask());
  EXPECT_EQ(refused(), Objects{"heap"});
}

TEST_F(TravelPlanTest, WhatWasMappedSinceIsNotKnown) {
  plan_.see(image_, {});
  plan_.learn({});
  wire::Image frozen = image_;
  plan_.apply_frozen({}, frozen);
  EXPECT_EQ(refused(), Objects());
  map_library(frozen, "/lib/two");
  plan_.apply_frozen({}, frozen);
  EXPECT_EQ(refused(), Objects{"code /lib/two"});
}

// Of a program that starts there, or one of whose functions runs there.
TEST_F(TravelPlanTest, FilesThatAreNotThereAreSentIfThatIsAskedFor) {
  context_.travel.clear();
  for (const auto& [starts, ships] : {std::pair(false, false), {true, false}, {false, true}}) {
    options_.request.starts = starts;
    options_.request.ships_unknown = ships;
    plan_.begin();
    plan_.see(image_, {});
    EXPECT_EQ(plan_.ship(FilesNotThere{.mapped = {0}}), starts || ships);
    wire::Image frozen = image_;
    plan_.apply_frozen({}, frozen);
    EXPECT_EQ(only_process(frozen).mappings(0).was_file(), starts || ships);
  }
}

PolicyRule send_all() {
  PolicyRule rule;
  rule.travel = Travel::kShip;
  return rule;
}

// Of files that are sent the destination looks for none, but it does for the executable.
TEST_F(TravelPlanTest, ThatOnlyTheExecutableIsNotThereIsLearnt) {
  context_.travel = {send_all()};
  mutable_only_process(image_).mutable_executable()->set_path("/lib/one");
  plan_.see(image_, {});
  EXPECT_FALSE(only_process(plan_.draft()).without_executable());
  EXPECT_TRUE(plan_.ship(FilesNotThere{.mapped = {}, .executable = true}));
  EXPECT_TRUE(only_process(plan_.draft()).without_executable());
}

TEST_F(TravelPlanTest, AnExecutableOfWhichNothingIsSentMustBeThere) {
  context_.travel = {send_all()};
  mutable_only_process(image_).mutable_executable()->set_path("/bin/other");
  plan_.see(image_, {});
  EXPECT_FALSE(plan_.ship(FilesNotThere{.mapped = {}, .executable = true}));
}

TEST_F(TravelPlanTest, WhoWantsToKnowTheFilesHasThemAskedFor) {
  context_.travel = {send_all()};
  options_.request.tells_files = true;
  options_.destination.host.clear();
  plan_.see(image_, {});
  EXPECT_FALSE(plan_.must_ask());  // Of whom?
  options_.destination.host = "there";
  plan_.see(image_, {});
  EXPECT_TRUE(plan_.must_ask());
  EXPECT_FALSE(plan_.asked());
  plan_.learn({.mapped = {0}});
  EXPECT_TRUE(plan_.asked());
  EXPECT_FALSE(plan_.travels()->rows.front().known);
}

}  // namespace
}  // namespace migrate
