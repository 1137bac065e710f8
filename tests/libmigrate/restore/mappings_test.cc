#include "libmigrate/restore/mappings.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "libmigrate/carriers/memory_content.h"
#include "libmigrate/image/only_process.h"

namespace migrate {
namespace {

constexpr std::uint64_t kBase = 0x10000000;

wire::Mapping& add(wire::Image& image, std::uint64_t first, std::uint64_t last,
                   wire::Mapping::Kind kind = wire::Mapping::ANONYMOUS) {
  wire::Mapping& mapping = *mutable_only_process(image).add_mappings();
  mapping.set_start(kBase + first * kPageBytes);
  mapping.set_end(kBase + last * kPageBytes);
  mapping.set_protection(PROT_READ | PROT_WRITE);
  mapping.set_kind(kind);
  return mapping;
}

/// Anonymous memory, a file, a memory, and the kernel's own.
wire::Image some() {
  wire::Image image;
  image.mutable_objects()->add_mapped_files()->set_path("/one");
  image.mutable_objects()->add_mapped_files()->set_path("/two");
  image.mutable_objects()->add_shared_memories()->set_inode(5);
  add(image, 0, 4);
  add(image, 4, 6, wire::Mapping::FILE_LOCAL).set_offset(8192);
  add(image, 8, 9, wire::Mapping::SHARED_MEMORY);
  add(image, 20, 21, wire::Mapping::VDSO);
  return image;
}

wire::Mapping& mapping(wire::Image& image, int index) {
  return *mutable_only_process(image).mutable_mappings(index);
}

/// Starts, in pages, of what is mapped and unmapped when `change` is made of some().
struct Planned {
  std::vector<std::uint64_t> map;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> unmap;
  bool operator==(const Planned&) const = default;
};
Planned planned(const std::function<void(wire::Image&)>& change) {
  wire::Image wanted = some();
  change(wanted);
  const MappingPlan plan = plan_mappings(some(), wanted);
  Planned told;
  for (const wire::Mapping* each : plan.map) {
    told.map.push_back((each->start() - kBase) / kPageBytes);
  }
  for (const PageRange& range : plan.unmap) {
    told.unmap.emplace_back((range.start - kBase) / kPageBytes, range.page_count);
  }
  return told;
}

TEST(MappingPlans, WhatIsTheSameStays) {
  EXPECT_EQ(planned([](wire::Image&) {}), Planned());
  // Names, and the offset of anonymous memory, make no difference.
  EXPECT_EQ(planned([](wire::Image& image) {
              mapping(image, 0).set_offset(4096);
              mapping(image, 0).set_name("[heap]");
            }),
            Planned());
  // Nor does the number of a file, if it is the same file.
  EXPECT_EQ(planned([](wire::Image& image) {
              std::swap(*image.mutable_objects()->mutable_mapped_files(0),
                        *image.mutable_objects()->mutable_mapped_files(1));
              mapping(image, 1).set_file(1);
            }),
            Planned());
  // The kernel's own is moved, not mapped.
  EXPECT_EQ(planned([](wire::Image& image) { mapping(image, 3).set_start(kBase); }), Planned());
}

TEST(MappingPlans, WhatDiffersIsMadeAnew) {
  const Planned first{{0}, {{0, 4}}};
  EXPECT_EQ(planned([](wire::Image& image) { mapping(image, 0).set_protection(PROT_READ); }),
            first);
  EXPECT_EQ(planned([](wire::Image& image) { mapping(image, 0).set_advice(wire::HUGE_PAGE); }),
            first);
  const Planned second{{4}, {{4, 2}}};
  EXPECT_EQ(planned([](wire::Image& image) { mapping(image, 1).set_file(1); }), second);
  EXPECT_EQ(planned([](wire::Image& image) { mapping(image, 1).set_offset(4096); }), second);
  EXPECT_EQ(
      planned([](wire::Image& image) { mapping(image, 1).set_kind(wire::Mapping::FILE_COPY); }),
      second);
  const Planned third{{8}, {{8, 1}}};
  EXPECT_EQ(planned([](wire::Image& image) {
              image.mutable_objects()->mutable_shared_memories(0)->set_inode(6);
            }),
            third);
  EXPECT_EQ(planned([](wire::Image& image) {
              image.mutable_objects()->mutable_shared_memories(0)->set_open_descriptor(true);
            }),
            third);
}

TEST(MappingPlans, PrivateMemoryStaysWhereItIsTheSameInPart) {
  const auto ends_at = [](std::uint64_t page) {
    return planned(
        [page](wire::Image& image) { mapping(image, 0).set_end(kBase + page * kPageBytes); });
  };
  EXPECT_EQ(ends_at(2), (Planned{{}, {{2, 2}}}));
  // What it grew by is made; what was there is not touched.
  wire::Image wanted = some();
  mapping(wanted, 1).set_kind(wire::Mapping::FILE_COPY);
  wire::Image present = wanted;
  mapping(present, 1).set_end(kBase + 5 * kPageBytes);
  const MappingPlan plan = plan_mappings(present, wanted);
  ASSERT_EQ(plan.map.size(), 1U);
  EXPECT_TRUE(plan.unmap.empty());
  EXPECT_EQ(plan.map[0]->start(), kBase + 5 * kPageBytes);
  EXPECT_EQ(plan.map[0]->end(), mapping(wanted, 1).end());
  EXPECT_EQ(plan.map[0]->offset(), mapping(wanted, 1).offset() + kPageBytes);
  // One part has become something else (mprotect).
  const Planned split = planned([](wire::Image& image) {
    mapping(image, 0).set_end(kBase + kPageBytes);
    add(image, 1, 4);
    mapping(image, only_process(image).mappings_size() - 1).set_protection(PROT_READ);
  });
  EXPECT_EQ(split, (Planned{{1}, {{1, 3}}}));
  // Other mappings are made anew as a whole.
  const Planned whole =
      planned([](wire::Image& image) { mapping(image, 1).set_end(kBase + 5 * kPageBytes); });
  EXPECT_EQ(whole, (Planned{{4}, {{4, 2}}}));
}

/// First and last pages of what is made to turn anonymous memory in `present` into that in
/// `wanted`.
using Pieces = std::vector<std::pair<std::uint64_t, std::uint64_t>>;
Pieces made(const Pieces& present, const Pieces& wanted) {
  const auto image_of = [](const Pieces& pieces) {
    wire::Image image;
    for (const auto& [first, last] : pieces) {
      add(image, first, last);
    }
    return image;
  };
  const wire::Image image = image_of(wanted);
  const MappingPlan plan = plan_mappings(image_of(present), image);
  Pieces told;
  for (const wire::Mapping* each : plan.map) {
    told.emplace_back((each->start() - kBase) / kPageBytes, (each->end() - kBase) / kPageBytes);
  }
  return told;
}

// The kernel does not join two that have pages: mremap() of the whole would fail.
TEST(MappingPlans, NoMappingIsMadeOfTwo) {
  EXPECT_EQ(made({{0, 4}, {6, 9}}, {{0, 9}}), (Pieces{{0, 9}}));
  EXPECT_EQ(made({{0, 4}, {6, 9}}, {{2, 7}}), (Pieces{{2, 7}}));
  EXPECT_EQ(made({{0, 4}, {4, 9}}, {{2, 7}}), (Pieces{{2, 7}}));
  EXPECT_EQ(made({{0, 4}, {6, 9}}, {{0, 6}, {6, 9}}), (Pieces{{4, 6}}));
  // What it grew by at its beginning would be joined with what is before it.
  EXPECT_EQ(made({{0, 4}, {6, 9}}, {{0, 4}, {5, 9}}), (Pieces{{5, 6}}));
  EXPECT_EQ(made({{0, 4}, {6, 9}}, {{0, 4}, {4, 9}}), (Pieces{{4, 9}}));
}

TEST(MappingPlans, WhatIsAdjacentIsUnmappedInOneGo) {
  const Planned told = planned([](wire::Image& image) {
    auto& mappings = *mutable_only_process(image).mutable_mappings();
    mappings.DeleteSubrange(0, 3);
    add(image, 30, 31);
  });
  EXPECT_EQ(told, (Planned{{30}, {{0, 6}, {8, 1}}}));
}

TEST(MappedFiles, AreOpenedForWritingIfTheMappingMayBeWritten) {
  wire::Image image = some();
  const wire::Objects& objects = image.objects();
  EXPECT_EQ(mapped_file(objects, mapping(image, 0)), std::nullopt);
  wire::Mapping file = mapping(image, 1);
  EXPECT_EQ(mapped_file(objects, file), (MappedFile{.index = 0}));  // A private one writes nothing.
  file.set_kind(wire::Mapping::SHARED_FILE);
  file.set_file(1);
  EXPECT_EQ(mapped_file(objects, file), (MappedFile{.index = 1, .writable = true}));
  file.set_protection(PROT_READ);
  EXPECT_EQ(mapped_file(objects, file), (MappedFile{.index = 1}));
  file.set_advice(wire::MAY_WRITE);
  EXPECT_EQ(mapped_file(objects, file), (MappedFile{.index = 1, .writable = true}));
  file.set_kind(wire::Mapping::FILE_COPY);  // Which is anonymous memory here.
  EXPECT_EQ(mapped_file(objects, file), std::nullopt);
}

TEST(MappedFiles, AMemoryIsOneOnlyWhereNothingMayWriteIt) {
  wire::Image image = some();
  wire::SharedMemory& memory = *image.mutable_objects()->mutable_shared_memories(0);
  memory.set_open_descriptor(true);
  wire::Mapping& mapped = mapping(image, 2);
  EXPECT_EQ(mapped_file(image.objects(), mapped), std::nullopt);
  mapped.set_protection(PROT_READ);
  EXPECT_EQ(mapped_file(image.objects(), mapped), (MappedFile{.is_memory = true, .index = 0}));
  memory.set_open_descriptor(false);  // Its pages come from a pager.
  EXPECT_EQ(mapped_file(image.objects(), mapped), std::nullopt);
}

TEST(SharedMemories, AreMadeAsTheDraftSaysAndFinishedAsTheImageDoes) {
  constexpr std::uint64_t kThen = 1'600'000'000ULL * kNanosecondsPerSecond + 17;
  wire::Objects objects;
  wire::SharedMemory& memory = *objects.add_shared_memories();
  memory.set_name("its name");
  memory.set_size_bytes(5000);
  std::vector<UniqueFd> made = make_shared_memories(objects).value();
  struct stat status {};
  ASSERT_EQ(::fstat(made.at(0).get(), &status), 0);
  EXPECT_EQ(status.st_size, 5000);
  memory.set_size_bytes(9000);
  memory.add_extents(0);
  memory.add_extents(7);
  memory.set_open_descriptor(true);
  memory.set_mode(0640);
  memory.set_modified_ns(kThen);
  memory.set_accessed_ns(kThen + 1);
  objects.add_shared_memories()->set_size_bytes(1);
  ASSERT_TRUE(finish_shared_memories(objects, made));
  ASSERT_EQ(made.size(), 2U);
  carriers::ContentPlace place(objects);
  ASSERT_TRUE(carriers::write_content(place, made, "content"));
  EXPECT_TRUE(place.at_end());
  stamp_shared_memories(objects, made);
  ASSERT_EQ(::fstat(made[0].get(), &status), 0);
  EXPECT_EQ(status.st_size, 9000);
  EXPECT_EQ(status.st_mode & 0777U, 0640U);
  EXPECT_EQ(to_nanoseconds(status.st_mtim), kThen);
  EXPECT_EQ(to_nanoseconds(status.st_atim), kThen + 1);
  std::string content(8, '?');
  ASSERT_EQ(::pread(made[0].get(), content.data(), content.size(), 0), 8);
  EXPECT_EQ(content, std::string("content\0", 8));
  ASSERT_EQ(::fstat(made[1].get(), &status), 0);
  EXPECT_EQ(status.st_size, 1);
}

TEST(SharedMemories, OfASizeThatCannotBeIsAnError) {
  wire::Objects objects;
  objects.add_shared_memories()->set_size_bytes(~std::uint64_t{0});
  EXPECT_FALSE(make_shared_memories(objects));
}

}  // namespace
}  // namespace migrate
