#include "libmigrate/image/address_space.h"

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "base/file.h"
#include "libmigrate/arch/arch.h"

namespace migrate {
namespace {

constexpr std::uint64_t kLowest = 0x10000;  // vm.mmap_min_addr's default
// The kernel maps nothing into the last page below the limit.
constexpr std::uint64_t kTaskEnd = kAddressLimit - kPageBytes;

}  // namespace

Result<std::vector<NamedRange>> read_mappings(pid_t process) {
  const std::string path = "/proc/" + std::to_string(process) + "/maps";
  std::istringstream lines(MIGRATE_TRY(read_file(path)));
  std::vector<NamedRange> ranges;
  for (std::string line; std::getline(lines, line);) {
    NamedRange range;
    int name_at = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx %*s %*s %*s %*s %n", &range.start, &range.end,
                    &name_at) != 2) {
      return fail(make_error(ErrorCode::kCorrupt, "read", path));
    }
    if (name_at > 0) {
      range.name = line.substr(static_cast<std::size_t>(name_at));
    }
    if (range.name != arch::kKernelPage) {
      ranges.push_back(std::move(range));
    }
  }
  return ranges;
}

Result<std::uint64_t> find_hole(std::vector<NamedRange> taken, std::uint64_t length_bytes) {
  std::sort(taken.begin(), taken.end(),
            [](const auto& a, const auto& b) { return a.start < b.start; });
  std::uint64_t candidate = kLowest;
  for (const NamedRange& range : taken) {
    if (range.start >= candidate + length_bytes) {
      break;
    }
    candidate = std::max(candidate, range.end);
  }
  if (candidate + length_bytes > kTaskEnd) {
    return fail(make_error(ErrorCode::kInvalid, "find free address space",
                           std::to_string(length_bytes) + " bytes"));
  }
  return candidate;
}

std::vector<NamedRange> ranges_of(const wire::ProcessImage& image) {
  std::vector<NamedRange> ranges;
  for (const wire::Mapping& mapping : image.mappings()) {
    ranges.push_back({mapping.start(), mapping.end(), mapping.name()});
  }
  return ranges;
}

bool is_huge(std::string_view name) {
  return name == "/anon_hugepage (deleted)";
}

PageSet huge_pages(const wire::ProcessImage& image) {
  PageSet pages;
  for (const wire::Mapping& mapping : image.mappings()) {
    if (mapping.has_huge_pages()) {
      append_to(pages, PageRange::between(mapping.start(), mapping.end()));
    }
  }
  return pages;
}

bool is_paged(const wire::Objects& objects, const wire::Mapping& mapping) {
  switch (mapping.kind()) {
    case wire::Mapping::ANONYMOUS:
      return (mapping.advice() & wire::DROPPABLE) == 0;
    case wire::Mapping::FILE_COPY:
      return true;
    case wire::Mapping::SHARED_MEMORY:
      return !objects.shared_memories(static_cast<int>(mapping.shared_memory())).open_descriptor();
    default:
      return false;
  }
}

}  // namespace migrate
