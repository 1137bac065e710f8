#include "libmigrate/proc/mapping_list.h"

#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "base/file.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/proc/proc_text.h"
#include "pager/page_range.h"

namespace migrate {
namespace {

class MappingListTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!list_) {
      GTEST_SKIP() << list_.error().message();
    }
  }

  Result<MappingList> list_ = MappingList::create();
};

TEST_F(MappingListTest, HasWhatMapsShows) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  const auto mappings = list_->of(child);
  const auto text = read_file("/proc/" + std::to_string(child) + "/maps");
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ASSERT_TRUE(mappings);
  auto shown = parse_maps(text.value()).value();
  std::erase_if(shown, [](const MapsEntry& entry) { return entry.name == arch::kKernelPage; });
  ASSERT_EQ(mappings->size(), shown.size());
  for (std::size_t i = 0; i < shown.size(); ++i) {
    EXPECT_EQ((*mappings)[i].start, shown[i].start);
    EXPECT_EQ((*mappings)[i].end, shown[i].end);
  }
}

TEST_F(MappingListTest, TellsThemApartByWhatWasAdvised) {
  const std::size_t length = 3 * kPageBytes;
  auto* const place =
      static_cast<char*>(::mmap(nullptr, length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(place, MAP_FAILED);
  const unsigned long first_node = 1;
  const bool policies =
      ::syscall(SYS_mbind, place + kPageBytes, kPageBytes, MPOL_BIND, &first_node, 2, 0) == 0;
  ASSERT_EQ(::madvise(place + 2 * kPageBytes, kPageBytes, MADV_DONTFORK), 0);
  const auto mappings = list_->of(::getpid()).value();
  ::munmap(place, length);
  const auto at = [&](const char* address) {
    const auto start = reinterpret_cast<std::uint64_t>(address);
    return *std::ranges::find_if(mappings,
                                 [&](const KernelMapping& each) { return each.end > start; });
  };
  EXPECT_NE(at(place).flags, at(place + 2 * kPageBytes).flags);
  if (policies) {
    EXPECT_FALSE(at(place).has_policy);
    EXPECT_TRUE(at(place + kPageBytes).has_policy);
    EXPECT_EQ(at(place).flags, at(place + kPageBytes).flags);
  }
}

TEST_F(MappingListTest, HasAllOfVeryMany) {
  constexpr std::uint64_t kCount = 5000;
  void* const place =
      ::mmap(nullptr, kCount * kPageBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(place, MAP_FAILED);
  for (std::uint64_t i = 0; i < kCount; i += 2) {
    ASSERT_EQ(::mprotect(static_cast<char*>(place) + i * kPageBytes, kPageBytes, PROT_NONE), 0);
  }
  const auto mappings = list_->of(::getpid());
  ::munmap(place, kCount * kPageBytes);
  ASSERT_TRUE(mappings);
  EXPECT_GE(mappings->size(), kCount);
  EXPECT_TRUE(std::ranges::is_sorted(*mappings, {}, &KernelMapping::start));
}

TEST_F(MappingListTest, OfNobodyIsNone) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(0);
  }
  ::waitpid(child, nullptr, 0);
  const auto mappings = list_->of(child);
  EXPECT_TRUE(!mappings || mappings->empty());
}

}  // namespace
}  // namespace migrate
