#include "libmigrate/park/room.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "base/file.h"
#include "libmigrate/carriers/carriers.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/park/parked_process.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate {
namespace {

/// A draft of this process, with limits.
class RoomTest : public testing::Test {
 protected:
  RoomTest() {
    for (int resource = 0; resource < RLIM_NLIMITS; ++resource) {
      process().add_resource_limits();
      limit(resource, RLIM64_INFINITY);
    }
    process().add_threads();
  }

  wire::ProcessImage& process() { return mutable_only_process(draft_); }
  void limit(int resource, std::uint64_t soft) {
    process().mutable_resource_limits(resource)->set_soft(soft);
  }
  /// Bytes that parking adds.
  std::uint64_t more() const {
    return ScriptArea::kRecordOffset + ParkedProcess::record_bytes(draft_);
  }
  std::uint64_t used(std::string_view field) const {
    return number_field(read_file("/proc/self/status").value(), field) * kKibibyte;
  }
  /// What is refused, each by what it is about.
  std::vector<std::string> refused() const {
    std::vector<std::string> objects;
    for (const wire::Refusal& refusal : check_room_to_park(::getpid(), draft_)) {
      EXPECT_EQ(refusal.code(), "RLIMIT_REACHED");
      objects.push_back(refusal.object());
    }
    return objects;
  }

  wire::Image draft_;
};

using Objects = std::vector<std::string>;
constexpr std::uint64_t kSlack = 16ULL << 20U;  // This process may grow while it looks at itself.

TEST_F(RoomTest, WithoutLimitsThereIsRoom) {
  EXPECT_EQ(refused(), Objects());
  process().clear_resource_limits();  // Nor where none is told.
  EXPECT_EQ(refused(), Objects());
}

TEST_F(RoomTest, OfTheAddressSpaceAndOfDataEachHaveTheirOwnLimit) {
  limit(RLIMIT_AS, used("VmSize:") + more() + kSlack);
  limit(RLIMIT_DATA, used("VmData:") + more() + kSlack);
  EXPECT_EQ(refused(), Objects());
  limit(RLIMIT_AS, used("VmSize:") + more() - kSlack / 16);
  EXPECT_EQ(refused(), Objects{"RLIMIT_AS"});
  limit(RLIMIT_DATA, used("VmData:") + more() - kSlack / 16);
  EXPECT_EQ(refused(), (Objects{"RLIMIT_AS", "RLIMIT_DATA"}));
  limit(RLIMIT_AS, RLIM64_INFINITY);
  EXPECT_EQ(refused(), Objects{"RLIMIT_DATA"});
}

TEST_F(RoomTest, OfAProcessThatIsGoneOnlyWhatIsNeededCounts) {
  constexpr pid_t kNobody = 0x3ffffff;
  limit(RLIMIT_AS, more());
  EXPECT_TRUE(check_room_to_park(kNobody, draft_).empty());
  limit(RLIMIT_AS, more() - 1);
  EXPECT_EQ(check_room_to_park(kNobody, draft_).size(), 1U);
}

TEST_F(RoomTest, ForThePipeTwoNumbersBelowTheLimitMustBeFree) {
  for (const std::uint32_t number : {0U, 1U, 2U, 7U, 500U}) {
    process().add_descriptors()->set_number(number);
  }
  limit(RLIMIT_NOFILE, 8);  // Four of which are used: what lies above takes no place.
  EXPECT_EQ(refused(), Objects());
  limit(RLIMIT_NOFILE, 6);
  EXPECT_EQ(refused(), Objects());
  limit(RLIMIT_NOFILE, 4);
  EXPECT_EQ(refused(), Objects{"RLIMIT_NOFILE"});
  limit(RLIMIT_NOFILE, 5);
  EXPECT_EQ(refused(), Objects());
  limit(RLIMIT_NOFILE, 0);
  EXPECT_EQ(refused(), Objects{"RLIMIT_NOFILE"});
}

TEST_F(RoomTest, TheRecordHasRoomForWhatTheImageMayBecome) {
  const std::uint64_t small = ParkedProcess::record_bytes(draft_);
  EXPECT_GT(small, sizeof(ParkingRecord) + draft_.ByteSizeLong());
  process().add_threads();
  const std::uint64_t with_thread = ParkedProcess::record_bytes(draft_);
  EXPECT_GE(with_thread, small + 11'000);  // Registers with AMX.
  std::uint64_t contents = 0;
  wire::SharedMemory& memory = *draft_.mutable_objects()->add_shared_memories();
  memory.set_size_bytes(1U << 30U);
  memory.set_data_bytes(1U << 20U);
  memory.set_open_descriptor(true);
  for (const carriers::Carrier* carrier : carriers::all_carriers()) {
    contents +=
        carrier->most_content_bytes != nullptr ? carrier->most_content_bytes(draft_.objects()) : 0;
  }
  EXPECT_LT(contents, memory.data_bytes());  // That follows the image, and stays where it is.
  EXPECT_GE(ParkedProcess::record_bytes(draft_), with_thread + contents);
}

}  // namespace
}  // namespace migrate
