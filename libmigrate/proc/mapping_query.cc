#include "libmigrate/proc/mapping_query.h"

#include <sys/ioctl.h>

#include <cerrno>

namespace migrate {
namespace {

// Of the kernel's linux/fs.h, which Debian 12 has of an older kernel.
struct Query {
  std::uint64_t size = sizeof(Query);
  std::uint64_t flags = 0;
  std::uint64_t address = 0;
  std::uint64_t mapping_start = 0;
  std::uint64_t mapping_end = 0;
  std::uint64_t mapping_flags = 0;
  std::uint64_t page_size = 0;
  std::uint64_t offset = 0;
  std::uint64_t inode = 0;
  std::uint32_t device_major = 0;
  std::uint32_t device_minor = 0;
  std::uint32_t name_size = 0;
  std::uint32_t build_id_size = 0;
  std::uint64_t name_address = 0;
  std::uint64_t build_id_address = 0;
};
static_assert(sizeof(Query) == 104);
constexpr std::uint64_t kWritable = 0x02;
constexpr std::uint64_t kMappedShared = 0x08;
constexpr std::uint64_t kCoveringOrNext = 0x10;
constexpr std::uint64_t kOfFile = 0x20;
constexpr unsigned long kProcmapQuery = _IOWR('f', 17, Query);

}  // namespace

Result<std::optional<SharedFileMapping>> find_shared_file_mapping(int maps, std::uint64_t from) {
  Query query;
  query.flags = kMappedShared | kCoveringOrNext | kOfFile;
  query.address = from;
  if (::ioctl(maps, kProcmapQuery, &query) != 0) {
    if (errno == ENOENT) {
      return std::nullopt;
    }
    const bool is_old = errno == ENOTTY || errno == EINVAL;
    Error error = system_error("ask for a mapping of", "a process");
    error.code = is_old ? ErrorCode::kUnsupported : error.code;
    return fail(std::move(error));
  }
  return SharedFileMapping{.end = query.mapping_end,
                           .writable = (query.mapping_flags & kWritable) != 0,
                           .device_major = query.device_major,
                           .device_minor = query.device_minor,
                           .inode = query.inode};
}

}  // namespace migrate
