#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "libmigrate/proto/image.pb.h"
#include "pager/page_range.h"
#include "pager/page_set.h"

namespace migrate {

/// A range of addresses with the name that /proc/PID/maps gives it.
struct NamedRange {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::string name;
};

/// The mappings of `process` as they are, ascending, without arch::kKernelPage.
Result<std::vector<NamedRange>> read_mappings(pid_t process);

/// The lowest page-aligned address of `length_bytes` bytes that overlap none of `taken`.
/// Errors: kInvalid when there is no such place.
Result<std::uint64_t> find_hole(std::vector<NamedRange> taken, std::uint64_t length_bytes);

/// The ranges of an image's mappings.
std::vector<NamedRange> ranges_of(const wire::ProcessImage& image);

/// Whether a mapping's name is that of anonymous huge pages (MAP_HUGETLB).
bool is_huge(std::string_view name);
/// All mappings of huge pages, for which ordinary memory stands at the destination.
PageSet huge_pages(const wire::ProcessImage& image);

/// True for the pages of a mapping that the pager brings: memory without an open descriptor that
/// no local file can give whole.
bool is_paged(const wire::Objects& objects, const wire::Mapping& mapping);

}  // namespace migrate
