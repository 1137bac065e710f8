#include "libmigrate/proc/mapping_query.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <string>
#include <vector>

#include "base/file.h"
#include "base/mapping.h"
#include "libmigrate/proc/proc_text.h"
#include "pager/page_range.h"

namespace migrate {
namespace {

TEST(MappingQuery, FindsWhatTheTextShows) {
  const UniqueFd program = open_file("/proc/self/exe", O_RDONLY).value();
  void* const of_file = ::mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, program.get(), 0);
  void* const anonymous =
      ::mmap(nullptr, 2 * kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(of_file, MAP_FAILED);
  ASSERT_NE(anonymous, MAP_FAILED);
  std::vector<std::string> expected;
  const std::string text = read_file("/proc/self/maps").value();
  const std::vector<MapsEntry> entries = parse_maps(text).value();
  for (const MapsEntry& entry : entries) {
    if (entry.shared && entry.inode != 0) {
      expected.push_back(fmt::format("{:x} {} {}", entry.end, entry.device, entry.inode) +
                         ((entry.protection & PROT_WRITE) != 0 ? " w" : ""));
    }
  }
  ASSERT_GE(expected.size(), 2U);
  const UniqueFd maps = open_file("/proc/self/maps", O_RDONLY).value();
  std::vector<std::string> found;
  for (std::uint64_t from = 0;;) {
    const auto mapping = find_shared_file_mapping(maps.get(), from);
    if (!mapping && mapping.error().code == ErrorCode::kUnsupported) {
      GTEST_SKIP() << mapping.error().message();
    }
    ASSERT_TRUE(mapping) << mapping.error().message();
    if (!*mapping) {
      break;
    }
    found.push_back(fmt::format("{:x} {:02x}:{:02x} {}", (*mapping)->end, (*mapping)->device_major,
                                (*mapping)->device_minor, (*mapping)->inode) +
                    ((*mapping)->writable ? " w" : ""));
    from = (*mapping)->end;
  }
  EXPECT_EQ(found, expected);
  ::munmap(of_file, kPageBytes);
  ::munmap(anonymous, 2 * kPageBytes);
}

}  // namespace
}  // namespace migrate
