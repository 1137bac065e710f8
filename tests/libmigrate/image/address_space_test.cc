// Where a process has memory, and where there is room for more.
#include "libmigrate/image/address_space.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <limits>

#include "libmigrate/arch/arch.h"
#include "libmigrate/image/only_process.h"

namespace migrate {
namespace {

constexpr std::uint64_t kLowest = 0x10000;
constexpr std::uint64_t kEnd = kAddressLimit - kPageBytes;

std::uint64_t hole(std::vector<NamedRange> taken, std::uint64_t length) {
  return find_hole(std::move(taken), length).value_or(0);
}

TEST(Holes, AreTheLowestThatAreLargeEnough) {
  EXPECT_EQ(hole({}, kPageBytes), kLowest);
  EXPECT_EQ(hole({{0x20000, 0x30000, ""}}, 0x10000), kLowest);
  EXPECT_EQ(hole({{0x20000, 0x30000, ""}}, 0x11000), 0x30000U);
  EXPECT_EQ(hole({{0x10000, 0x20000, ""}, {0x21000, 0x30000, ""}}, 0x2000), 0x30000U);
  EXPECT_EQ(hole({{0x10000, 0x20000, ""}, {0x21000, 0x30000, ""}}, 0x1000), 0x20000U);
}

TEST(Holes, AreFoundInWhateverOrderRangesCome) {
  EXPECT_EQ(hole({{0x30000, 0x40000, ""}, {0x10000, 0x20000, ""}, {0x20000, 0x30000, ""}}, 0x1000),
            0x40000U);
}

// Ranges of two images are put together: of the draft, and of the script area.
TEST(Holes, AreBesideRangesThatOverlap) {
  EXPECT_EQ(hole({{0x10000, 0x50000, ""}, {0x20000, 0x30000, ""}}, 0x1000), 0x50000U);
}

TEST(Holes, AreNowhereTheKernelMapsNothing) {
  EXPECT_EQ(hole({{0, 0x1000, "low"}}, 0x1000), kLowest);
  EXPECT_EQ(hole({{kLowest, kEnd - kPageBytes, ""}}, kPageBytes), kEnd - kPageBytes);
  const auto none = find_hole({{kLowest, kEnd, ""}}, kPageBytes);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::kInvalid);
  EXPECT_FALSE(find_hole({}, kEnd));
}

TEST(Mappings, OfThisProcessAscendAndHaveNames) {
  const auto mappings = read_mappings(::getpid());
  ASSERT_TRUE(mappings);
  EXPECT_TRUE(std::ranges::is_sorted(*mappings, std::ranges::less(), &NamedRange::start));
  EXPECT_EQ(std::ranges::count(*mappings, "[stack]", &NamedRange::name), 1);
  EXPECT_EQ(std::ranges::count(*mappings, arch::kKernelPage, &NamedRange::name), 0);
  for (std::size_t i = 1; i < mappings->size(); ++i) {
    EXPECT_LE((*mappings)[i - 1].end, (*mappings)[i].start);
  }
}

TEST(Mappings, AreSeenAsTheyAre) {
  void* const place =
      ::mmap(nullptr, 3 * kPageBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const auto start = reinterpret_cast<std::uint64_t>(place);
  ASSERT_EQ(::mprotect(static_cast<char*>(place) + kPageBytes, kPageBytes, PROT_NONE), 0);
  const auto mappings = read_mappings(::getpid()).value();
  const auto middle = std::ranges::find(mappings, start + kPageBytes, &NamedRange::start);
  ASSERT_NE(middle, mappings.end());
  EXPECT_EQ(middle->end, start + 2 * kPageBytes);
  EXPECT_EQ(middle->name, "");
  ::munmap(place, 3 * kPageBytes);
}

TEST(Mappings, OfNobodyAreNotFound) {
  const auto mappings = read_mappings(std::numeric_limits<pid_t>::max());
  ASSERT_FALSE(mappings);
  EXPECT_EQ(mappings.error().code, ErrorCode::kNotFound);
}

TEST(Mappings, OfAnImageAreItsRanges) {
  wire::Image image;
  wire::Mapping& mapping = *mutable_only_process(image).add_mappings();
  mapping.set_start(0x1000);
  mapping.set_end(0x3000);
  mapping.set_name("[heap]");
  const auto ranges = ranges_of(only_process(image));
  ASSERT_EQ(ranges.size(), 1U);
  EXPECT_EQ(ranges[0].start, 0x1000U);
  EXPECT_EQ(ranges[0].end, 0x3000U);
  EXPECT_EQ(ranges[0].name, "[heap]");
  EXPECT_TRUE(ranges_of(only_process({})).empty());
}

// Ordinary memory stands for them (decision 64), of which the source must know every page.
TEST(HugePages, AreThoseOfAllMappingsThatHaveThem) {
  wire::ProcessImage image;
  EXPECT_TRUE(huge_pages(image).empty());
  const auto add = [&image](std::uint64_t start, std::uint64_t end, bool has_huge_pages) {
    wire::Mapping& mapping = *image.add_mappings();
    mapping.set_start(start);
    mapping.set_end(end);
    mapping.set_has_huge_pages(has_huge_pages);
  };
  add(0x200000, 0x400000, true);
  add(0x400000, 0x600000, false);
  add(0x800000, 0xc00000, true);
  const PageSet pages = huge_pages(image);
  ASSERT_EQ(pages.size(), 2U);
  EXPECT_EQ(pages[0].start, 0x200000U);
  EXPECT_EQ(pages[0].end(), 0x400000U);
  EXPECT_EQ(pages[1].start, 0x800000U);
  EXPECT_EQ(pages[1].end(), 0xc00000U);
}

TEST(HugePages, HaveANameOfTheirOwn) {
  EXPECT_TRUE(is_huge("/anon_hugepage (deleted)"));
  EXPECT_FALSE(is_huge("/anon_hugepage"));
  EXPECT_FALSE(is_huge("[heap]"));
  EXPECT_FALSE(is_huge(""));
}

// What the pager does not bring is mapped from files here, or comes with the image.
TEST(PagedMappings, AreThoseThatNothingHereCanGive) {
  wire::Objects objects;
  objects.add_shared_memories();
  objects.add_shared_memories()->set_open_descriptor(true);
  const auto is = [&](wire::Mapping::Kind kind, std::uint32_t memory = 0,
                      std::uint32_t advice = 0) {
    wire::Mapping mapping;
    mapping.set_kind(kind);
    mapping.set_shared_memory(memory);
    mapping.set_advice(advice);
    return is_paged(objects, mapping);
  };
  EXPECT_TRUE(is(wire::Mapping::ANONYMOUS));
  EXPECT_TRUE(is(wire::Mapping::FILE_COPY));
  EXPECT_TRUE(is(wire::Mapping::SHARED_MEMORY, 0));
  EXPECT_FALSE(is(wire::Mapping::SHARED_MEMORY, 1)) << "its content follows the image";
  EXPECT_FALSE(is(wire::Mapping::ANONYMOUS, 0, wire::DROPPABLE));
  EXPECT_FALSE(is(wire::Mapping::FILE_LOCAL));
  EXPECT_FALSE(is(wire::Mapping::SHARED_FILE));
  EXPECT_FALSE(is(wire::Mapping::VDSO));
  EXPECT_FALSE(is(wire::Mapping::VVAR));
}

}  // namespace
}  // namespace migrate
