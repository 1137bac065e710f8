#include "libmigrate/policy/travel.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <nlohmann/json.hpp>

#include "libmigrate/image/only_process.h"

namespace migrate {
namespace {

constexpr std::uint64_t kCode = 0x400000;
constexpr std::uint64_t kData = 0x500000;
constexpr std::uint64_t kHeap = 0x700000;
constexpr std::uint64_t kBeyond = 0x900000;

wire::Mapping& map(wire::Image& image, std::uint64_t start, std::uint64_t pages,
                   wire::Mapping::Kind kind, int protection) {
  wire::Mapping& mapping = *mutable_only_process(image).add_mappings();
  mapping.set_start(start);
  mapping.set_end(start + pages * kPageBytes);
  mapping.set_kind(kind);
  mapping.set_protection(static_cast<std::uint32_t>(protection));
  return mapping;
}

/// A program of four pages of code and two of data, and eight pages of heap.
wire::Image program() {
  wire::Image image;
  wire::FileIdentity& file = *image.mutable_objects()->add_mapped_files();
  file.set_path("/opt/x/x");
  file.set_size_bytes(6 * kPageBytes - 100);
  mutable_only_process(image).mutable_executable()->set_path("/opt/x/x");
  map(image, kCode, 4, wire::Mapping::FILE_LOCAL, PROT_READ | PROT_EXEC);
  map(image, kData, 2, wire::Mapping::FILE_COPY, PROT_READ | PROT_WRITE).set_offset(4 * kPageBytes);
  map(image, kHeap, 8, wire::Mapping::ANONYMOUS, PROT_READ | PROT_WRITE).set_name("[heap]");
  return image;
}

PolicyRule rule_for(std::optional<MemoryKind> kind, Travel travel) {
  PolicyRule made;
  made.place = "p:1";
  made.kind = kind;
  made.travel = travel;
  return made;
}

ProgramAdvice advice(std::uint64_t start, std::uint64_t pages, program::Advised advised,
                     std::string name = {}) {
  return {{start, pages}, advised, std::move(name)};
}

TEST(Travel, NothingChangesByDefault) {
  wire::Image image = program();
  const std::string before = image.SerializeAsString();
  const Travels travels = apply_policy(TravelPolicy(), {}, {}, image);
  EXPECT_EQ(image.SerializeAsString(), before);
  EXPECT_TRUE(travels.refusals.empty());
  EXPECT_EQ(travels.shipped_bytes, 0U);
  ASSERT_EQ(travels.rows.size(), 3U);
  EXPECT_FALSE(to_json(travels.rows, false)[0].contains("known"));
  EXPECT_EQ(to_json(travels.rows, true)[0], (nlohmann::json{{"kind", "code"},
                                                            {"name", "/opt/x/x"},
                                                            {"bytes", 4 * kPageBytes},
                                                            {"known", true},
                                                            {"action", "local"},
                                                            {"rule", "default"}}));
}

TEST(Travel, WhatAStartingProgramLacksIsShippedLazily) {
  wire::Image image = program();
  const Travels travels =
      apply_policy(TravelPolicy({}, {}, true), {.mapped = {0}, .executable = true}, {}, image);
  const wire::ProcessImage& process = only_process(image);
  EXPECT_EQ(travels.shipped_bytes, 6 * kPageBytes);
  EXPECT_TRUE(process.without_executable());
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(process.mappings(i).kind(), wire::Mapping::ANONYMOUS);
    EXPECT_TRUE(process.mappings(i).was_file());
    EXPECT_EQ(process.mappings(i).offset(), 0U);
    EXPECT_EQ(process.advised(i).way(), wire::AdvisedRange::ON_REQUEST);
    EXPECT_EQ(process.advised(i).start(), process.mappings(i).start());
  }
  EXPECT_FALSE(process.mappings(2).was_file());
}

TEST(Travel, WithoutShippingItTheExecutableStays) {
  wire::Image image = program();
  apply_policy(TravelPolicy(), {.mapped = {0}, .executable = true}, {}, image);
  EXPECT_FALSE(only_process(image).without_executable());
  EXPECT_EQ(only_process(image).mappings(0).kind(), wire::Mapping::FILE_LOCAL);
}

TEST(Travel, RefusalsNameTheRule) {
  wire::Image image = program();
  const Travels travels = apply_policy(
      TravelPolicy({rule_for(MemoryKind::kData, Travel::kRefuse)}, {}, false), {}, {}, image);
  ASSERT_EQ(travels.refusals.size(), 1U);
  EXPECT_EQ(travels.refusals[0].code(), "POLICY");
  EXPECT_EQ(travels.refusals[0].object(), "data /opt/x/x");
  EXPECT_NE(travels.refusals[0].reason().find("p:1"), std::string::npos);
}

TEST(Travel, WhatGoesBeyondItsFileIsNotShipped) {
  wire::Image image = program();
  map(image, kBeyond, 2, wire::Mapping::FILE_LOCAL, PROT_READ).set_offset(5 * kPageBytes);
  map(image, kBeyond + 2 * kPageBytes, 9, wire::Mapping::FILE_LOCAL, PROT_NONE);
  const Travels travels =
      apply_policy(TravelPolicy({}, {rule_for({}, Travel::kShip)}, false), {}, {}, image);
  ASSERT_EQ(travels.refusals.size(), 1U);
  EXPECT_EQ(travels.refusals[0].code(), "UNKNOWN_MAPPING");
  EXPECT_TRUE(only_process(image).mappings(4).was_file());  // Nobody sees what it holds.
}

TEST(Travel, WhatIsAdvisedToBeLocalIsNotShipped) {
  wire::Image image = program();
  const Travels travels =
      apply_policy(TravelPolicy({}, {}, true), {.mapped = {0}, .executable = true},
                   {advice(kCode, 4, program::Advised::kLocal)}, image);
  EXPECT_EQ(only_process(image).mappings(0).kind(), wire::Mapping::FILE_LOCAL);
  EXPECT_EQ(only_process(image).mappings(1).kind(), wire::Mapping::ANONYMOUS);
  EXPECT_EQ(travels.shipped_bytes, 2 * kPageBytes);
  EXPECT_EQ(travels.rows[0].choice, (TravelChoice{Travel::kLocal, "advice"}));
  // What an operator has written goes before.
  wire::Image ruled = program();
  apply_policy(TravelPolicy({}, {rule_for({}, Travel::kShip)}, true),
               {.mapped = {0}, .executable = true}, {advice(kCode, 4, program::Advised::kLocal)},
               ruled);
  EXPECT_EQ(only_process(ruled).mappings(0).kind(), wire::Mapping::ANONYMOUS);
}

TEST(Travel, HowMemoryIsWalkedThroughIsInTheImage) {
  wire::Image image = program();
  apply_policy(TravelPolicy(), {},
               {advice(kHeap + 4 * kPageBytes, 2, program::Advised::kRandom),
                advice(kHeap, 2, program::Advised::kSequential),
                advice(kHeap + kPageBytes, 3, program::Advised::kRandom)},
               image);
  const auto& access = only_process(image).access();
  ASSERT_EQ(access.size(), 1);  // The others are one range, which begins within the first.
  EXPECT_EQ(access[0].start(), kHeap);
  EXPECT_EQ(access[0].end(), kHeap + 2 * kPageBytes);
  EXPECT_EQ(access[0].pattern(), wire::AccessRange::SEQUENTIAL);
  apply_policy(TravelPolicy(), {},
               {advice(kHeap + 4 * kPageBytes, 2, program::Advised::kRandom),
                advice(kHeap, 2, program::Advised::kSequential)},
               image);
  ASSERT_EQ(access.size(), 2);
  EXPECT_EQ(access[1].pattern(), wire::AccessRange::RANDOM);
}

TEST(Travel, AdviceIsCutToWhatItMayBeOf) {
  wire::Image image = program();
  apply_policy(TravelPolicy(), {},
               {advice(kHeap - 4 * kPageBytes, 5, program::Advised::kEager),
                advice(kHeap + 2 * kPageBytes, 1, program::Advised::kLazy),
                advice(kHeap + 3 * kPageBytes, 2, program::Advised::kHotFirst),
                advice(kHeap + 4 * kPageBytes, 100, program::Advised::kDiscard),
                advice(kData, 1, program::Advised::kDiscard)},
               image);
  const auto& advised = only_process(image).advised();
  ASSERT_EQ(advised.size(), 4);
  EXPECT_EQ(advised[0].start(), kHeap);
  EXPECT_EQ(advised[0].end(), kHeap + kPageBytes);
  EXPECT_EQ(advised[0].way(), wire::AdvisedRange::FIRST);
  EXPECT_EQ(advised[1].way(), wire::AdvisedRange::ON_REQUEST);
  EXPECT_EQ(advised[2].way(), wire::AdvisedRange::HOT);
  EXPECT_EQ(advised[2].end(), kHeap + 4 * kPageBytes);
  EXPECT_EQ(advised[3].way(), wire::AdvisedRange::NEVER);
  EXPECT_EQ(advised[3].end(), kHeap + 8 * kPageBytes);
}

TEST(Travel, RulesGoBeforeAdviceAndArenasHaveTheirOwn) {
  wire::Image image = program();
  PolicyRule arena = rule_for(MemoryKind::kArena, Travel::kLazy);
  arena.name = "grid*";
  const Travels travels = apply_policy(TravelPolicy({}, {arena}, false), {},
                                       {advice(kHeap, 2, program::Advised::kArena, "grid 1"),
                                        advice(kHeap, 8, program::Advised::kEager)},
                                       image);
  const auto& advised = only_process(image).advised();
  ASSERT_EQ(advised.size(), 2);
  EXPECT_EQ(advised[0].way(), wire::AdvisedRange::ON_REQUEST);
  EXPECT_EQ(advised[0].end(), kHeap + 2 * kPageBytes);
  EXPECT_EQ(advised[1].way(), wire::AdvisedRange::FIRST);
  ASSERT_EQ(travels.rows.size(), 4U);
  EXPECT_EQ(travels.rows[2].name, "grid 1");
  EXPECT_EQ(travels.rows[3].bytes, 6 * kPageBytes);
}

// The program writes what it likes.
TEST(Travel, AdviceThatContradictsItselfStaysApart) {
  wire::Image image = program();
  apply_policy(TravelPolicy(), {},
               {advice(kHeap, 4, program::Advised::kEager),
                advice(kHeap + 2 * kPageBytes, 4, program::Advised::kLazy),
                advice(kHeap + kPageBytes, 2, program::Advised::kDiscard)},
               image);
  std::uint64_t from = 0;
  for (const wire::AdvisedRange& each : only_process(image).advised()) {
    EXPECT_GE(each.start(), from);
    EXPECT_LT(each.start(), each.end());
    from = each.end();
  }
}

}  // namespace
}  // namespace migrate
