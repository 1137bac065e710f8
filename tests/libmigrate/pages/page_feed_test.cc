#include "libmigrate/pages/page_feed.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "libmigrate/image/only_process.h"

namespace migrate {
namespace {

constexpr std::uint64_t kFirst = 0x20000000;

/// An image of mappings that follow each other.
class Regions : public testing::Test {
 protected:
  wire::Mapping& add(wire::Mapping::Kind kind, std::uint64_t pages, const std::string& name = {}) {
    wire::Mapping& mapping = *mutable_only_process(image_).add_mappings();
    mapping.set_kind(kind);
    mapping.set_start(next_);
    next_ += pages * kPageBytes;
    mapping.set_end(next_);
    mapping.set_name(name);
    return mapping;
  }
  void leave_a_hole() { next_ += kPageBytes; }
  std::vector<ServedRegion> served() const {
    return served_regions(image_.objects(), only_process(image_));
  }
  std::vector<PagerRegion> paged() const {
    return pager_regions(image_.objects(), only_process(image_));
  }
  /// Pages of which mappings, by their place in the image.
  std::vector<std::uint64_t> first() const {
    std::vector<std::uint64_t> starts;
    for (const PageRange& range : pages_touched_first(only_process(image_))) {
      int index = 0;
      for (const wire::Mapping& mapping : only_process(image_).mappings()) {
        if (mapping.start() == range.start) {
          EXPECT_EQ(range.end(), mapping.end());
          starts.push_back(static_cast<std::uint64_t>(index));
        }
        ++index;
      }
    }
    return starts;
  }

  wire::Image image_;
  std::uint64_t next_ = kFirst;
};

using Places = std::vector<std::uint64_t>;

TEST_F(Regions, AreOfWhatTheSourceAloneHas) {
  image_.mutable_objects()->add_shared_memories();
  image_.mutable_objects()->add_shared_memories()->set_open_descriptor(true);
  add(wire::Mapping::ANONYMOUS, 4).set_was_file(true);
  add(wire::Mapping::FILE_LOCAL, 1);
  wire::Mapping& copy = add(wire::Mapping::FILE_COPY, 2);
  copy.set_file(3);
  copy.set_offset(8 * kPageBytes);
  wire::Mapping& shared = add(wire::Mapping::SHARED_MEMORY, 3);
  shared.set_offset(2 * kPageBytes);
  add(wire::Mapping::SHARED_MEMORY, 1).set_shared_memory(1);  // Its content is in the image.
  add(wire::Mapping::SHARED_FILE, 1);
  add(wire::Mapping::VDSO, 1);
  add(wire::Mapping::VVAR, 1);
  const std::vector<ServedRegion> served = this->served();
  ASSERT_EQ(served.size(), 3U);
  EXPECT_EQ(served[0].kind, RegionKind::kAnonymous);
  EXPECT_EQ(served[0].range, (PageRange{kFirst, 4}));
  EXPECT_TRUE(served[0].is_all_data);
  EXPECT_EQ(served[1].kind, RegionKind::kFileCopy);
  EXPECT_FALSE(served[1].is_all_data);
  EXPECT_EQ(served[2].kind, RegionKind::kSharedMemory);
  EXPECT_EQ(served[2].object_offset, 2 * kPageBytes);
  const std::vector<PagerRegion> paged = this->paged();
  ASSERT_EQ(paged.size(), served.size());
  for (std::size_t i = 0; i < paged.size(); ++i) {
    EXPECT_EQ(paged[i].destination, served[i].range);
    EXPECT_EQ(paged[i].source_address, served[i].range.start);
    EXPECT_EQ(paged[i].kind, served[i].kind);
  }
  EXPECT_EQ(paged[1].local_file, 3U);
  EXPECT_EQ(paged[1].file_offset, 8 * kPageBytes);
}

TEST_F(Regions, AreKeptFromAChildThatWouldNotGetThem) {
  add(wire::Mapping::ANONYMOUS, 1);
  add(wire::Mapping::ANONYMOUS, 1).set_advice(wire::DONT_FORK | wire::LOCKED);
  add(wire::Mapping::ANONYMOUS, 1).set_advice(wire::WIPE_ON_FORK);
  add(wire::Mapping::ANONYMOUS, 1).set_advice(wire::DONT_DUMP);
  std::vector<bool> withheld;
  for (const PagerRegion& region : paged()) {
    withheld.push_back(region.withheld_from_child);
  }
  EXPECT_EQ(withheld, (std::vector<bool>{false, true, true, false}));
}

TEST_F(Regions, ThatAreTouchedFirstAreSmallDataAndWhatFollowsIt) {
  add(wire::Mapping::FILE_LOCAL, 2);
  add(wire::Mapping::FILE_COPY, 3);   // 1: data
  add(wire::Mapping::ANONYMOUS, 2);   // 2: what follows it in the file's segment
  add(wire::Mapping::ANONYMOUS, 2);   // No: it follows no data.
  add(wire::Mapping::FILE_COPY, 17);  // No: large.
  add(wire::Mapping::ANONYMOUS, 1);   // 5: still the segment's.
  add(wire::Mapping::FILE_COPY, 1);   // 6
  leave_a_hole();
  add(wire::Mapping::ANONYMOUS, 1);                              // No: apart from it.
  add(wire::Mapping::FILE_COPY, 1);                              // 8
  add(wire::Mapping::ANONYMOUS, 1, "[heap]");                    // No: the heap.
  add(wire::Mapping::FILE_COPY, 16);                             // 10: as large as may be.
  add(wire::Mapping::ANONYMOUS, 1).set_advice(wire::DROPPABLE);  // No: it is empty.
  EXPECT_EQ(first(), (Places{1, 2, 5, 6, 8, 10}));
}

TEST_F(Regions, ThatAreTouchedFirstAreNotTooMany) {
  for (int i = 0; i < 6; ++i) {
    add(wire::Mapping::FILE_COPY, 15);
  }
  add(wire::Mapping::FILE_COPY, 4);
  add(wire::Mapping::FILE_COPY, 1);
  EXPECT_EQ(first(), (Places{0, 1, 2, 3, 6}));  // 64 pages.
}

TEST(AccessAdvice, IsWhatTheImageSaysAndNothingThatIsNotKnown) {
  wire::ProcessImage image;
  for (const auto pattern :
       {wire::AccessRange::SEQUENTIAL, wire::AccessRange::UNKNOWN, wire::AccessRange::RANDOM}) {
    wire::AccessRange& range = *image.add_access();
    range.set_start(kFirst + static_cast<std::uint64_t>(image.access_size()) * kPageBytes);
    range.set_end(range.start() + kPageBytes);
    range.set_pattern(pattern);
  }
  const std::vector<AccessAdvice> advice = access_advice(image);
  ASSERT_EQ(advice.size(), 2U);
  EXPECT_EQ(advice[0].range, (PageRange{kFirst + kPageBytes, 1}));
  EXPECT_EQ(advice[0].pattern, AccessPattern::kSequential);
  EXPECT_EQ(advice[1].range, (PageRange{kFirst + 3 * kPageBytes, 1}));
  EXPECT_EQ(advice[1].pattern, AccessPattern::kRandom);
}

}  // namespace
}  // namespace migrate
