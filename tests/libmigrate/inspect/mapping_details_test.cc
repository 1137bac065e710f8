#include "libmigrate/inspect/internal/mapping_details.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.h"
#include "libmigrate/arch/arch.h"
#include "pager/page_range.h"
#include "tests/libmigrate/inspect/held_process.h"

namespace migrate::inspect {
namespace {

using test::HeldProcess;

std::vector<MapsEntry> entries_of(const HeldProcess& process, const std::string& name) {
  return parse_maps(read_file("/proc/" + std::to_string(process.pid()) + "/" + name).value())
      .value();
}

char* map_pages(std::size_t count) {
  return static_cast<char*>(::mmap(nullptr, count * kPageBytes, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

class MappingDetailsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!list) {
      GTEST_SKIP() << list.error().message();
    }
  }
  std::optional<MappingDetails> details(const HeldProcess& process) const {
    return details_of(*list, process.pid(), entries_of(process, "maps"));
  }

  Result<MappingList> list = MappingList::create();
};

// As programs have of the C library's caches: without this, all pages of large ones are walked.
TEST_F(MappingDetailsTest, TellOfAFileThatIsMappedSharedAndCannotBeWritten) {
  const HeldProcess process([] {
    const UniqueFd file = open_file("/etc/passwd", O_RDONLY).value();
    static_cast<void>(::mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, file.get(), 0));
  });
  EXPECT_TRUE(details(process));
}

TEST_F(MappingDetailsTest, AreThoseOfSmaps) {
  const HeldProcess process([] {
    char* const place = map_pages(10);
    ::madvise(place, kPageBytes, MADV_DONTFORK);
    ::madvise(place + 2 * kPageBytes, kPageBytes, MADV_NOHUGEPAGE);
    ::madvise(place + 4 * kPageBytes, kPageBytes, MADV_WIPEONFORK);
    ::madvise(place + 6 * kPageBytes, kPageBytes, MADV_DONTDUMP);
    ::mprotect(place + 8 * kPageBytes, kPageBytes, PROT_NONE);
  });
  const auto found = details(process);
  ASSERT_TRUE(found);
  const auto smaps = entries_of(process, "smaps");
  ASSERT_EQ(found->entries.size(), smaps.size());
  for (std::size_t i = 0; i < smaps.size(); ++i) {
    if (smaps[i].name == arch::kKernelPage) {
      continue;
    }
    EXPECT_EQ(found->entries[i].start, smaps[i].start);
    EXPECT_EQ(found->entries[i].name, smaps[i].name);
    EXPECT_EQ(found->entries[i].flags, smaps[i].flags) << smaps[i].name;
    EXPECT_EQ(found->entries[i].protection_key, smaps[i].protection_key);
  }
  EXPECT_FALSE(found->may_have_policies);
}

TEST_F(MappingDetailsTest, AreNotGuessedOfAnUnknownKind) {
  const HeldProcess process([] {
    char* const place = map_pages(2);
    ::madvise(place, kPageBytes, MADV_DONTFORK);
    ::madvise(place, kPageBytes, MADV_DONTDUMP);
    ::madvise(place, kPageBytes, MADV_RANDOM);
    ::madvise(place, kPageBytes, MADV_MERGEABLE);
  });
  EXPECT_FALSE(details(process));
}

TEST_F(MappingDetailsTest, TellThatThereMayBePolicies) {
  const HeldProcess process([] {
    const unsigned long first_node = 1;
    if (::syscall(SYS_mbind, map_pages(1), kPageBytes, MPOL_BIND, &first_node, 2, 0) != 0) {
      ::_exit(2);
    }
  });
  const auto found = details(process);
  ASSERT_TRUE(found);
  EXPECT_TRUE(found->may_have_policies);
}

TEST_F(MappingDetailsTest, TellThatTheProcessMayHaveAPolicy) {
  const HeldProcess process([] {
    const unsigned long first_node = 1;
    if (::syscall(SYS_set_mempolicy, MPOL_BIND, &first_node, 2) != 0) {
      ::_exit(2);
    }
  });
  const auto found = details(process);
  ASSERT_TRUE(found);
  EXPECT_TRUE(found->may_have_policies);
}

TEST_F(MappingDetailsTest, AreNotSaidOfOtherMappingsThanWereShown) {
  const HeldProcess process([] {});
  auto shown = entries_of(process, "maps");
  EXPECT_TRUE(details_of(*list, process.pid(), shown));
  shown.front().end += kPageBytes;
  EXPECT_FALSE(details_of(*list, process.pid(), shown));
  shown = entries_of(process, "maps");
  shown.erase(shown.begin());
  EXPECT_FALSE(details_of(*list, process.pid(), shown));
  shown.insert(shown.begin(), MapsEntry());
  EXPECT_FALSE(details_of(*list, process.pid(), shown));
}

TEST_F(MappingDetailsTest, OfMuchMemoryDecideTheSame) {
  const HeldProcess process([] {
    constexpr std::size_t kPages = std::size_t{80} << 8U;  // 80 MiB: more than is read by smaps.
    char* const place = map_pages(kPages);
    for (std::size_t page = 0; page < kPages; ++page) {
      place[page * kPageBytes] = 'x';
    }
    ::madvise(place, kPageBytes, MADV_DONTFORK);
  });
  const Inspection inspection = test::inspect(process.pid());
  EXPECT_TRUE(inspection.refusals.empty()) << test::text(inspection.refusals);
}

}  // namespace
}  // namespace migrate::inspect
