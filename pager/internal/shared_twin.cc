#include "pager/internal/shared_twin.h"

#include <cinttypes>
#include <cstdio>
#include <sstream>
#include <string>

#include "base/file.h"

namespace migrate {
namespace {

struct SharedMapping {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint64_t offset = 0;
  std::string object;  // device and inode
};

std::vector<SharedMapping> shared_mappings(pid_t pid) {
  std::vector<SharedMapping> mappings;
  std::istringstream lines(read_file("/proc/" + std::to_string(pid) + "/maps").value_or(""));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string range;
    std::string protection;
    std::string device;
    std::string inode;
    SharedMapping mapping;
    words >> range >> protection >> std::hex >> mapping.offset >> device >> inode;
    if (protection.size() == 4 && protection[3] == 's' &&
        std::sscanf(range.c_str(), "%" SCNx64 "-%" SCNx64, &mapping.start, &mapping.end) == 2) {
      mapping.object = device;
      mapping.object.append(" ").append(inode);
      mappings.push_back(std::move(mapping));
    }
  }
  return mappings;
}

}  // namespace

std::vector<std::uint64_t> shared_twins(pid_t pid, std::uint64_t address) {
  std::vector<std::uint64_t> twins;
  const std::vector<SharedMapping> mappings = shared_mappings(pid);
  for (const SharedMapping& own : mappings) {
    if (address < own.start || address >= own.end) {
      continue;
    }
    const std::uint64_t offset = own.offset + (address - own.start);
    for (const SharedMapping& other : mappings) {
      if (&other != &own && other.object == own.object && offset >= other.offset &&
          offset - other.offset < other.end - other.start) {
        twins.push_back(other.start + (offset - other.offset));
      }
    }
  }
  return twins;
}

}  // namespace migrate
