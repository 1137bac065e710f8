#include "libmigrate/carriers/internal/stored_file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include "libmigrate/carriers/internal/tools.h"
#include "libmigrate/proc/file_identity.h"

namespace migrate::carriers {
namespace {

constexpr std::uint32_t kTemporaryFile = 020000000;  // the bit of O_TMPFILE that is not O_DIRECTORY

}  // namespace

bool find_stored_file(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  const wire::FileIdentity& identity = file.identity();
  switch (filesystem_class(identity.filesystem_type())) {
    case FilesystemClass::kKernel:
      return context.refuse("PROC_FILE", seen);
    case FilesystemClass::kHugePages:
      return context.refuse("HUGETLB", seen);
    case FilesystemClass::kUnknown:
      return context.refuse("UNKNOWN_DESCRIPTOR", seen,
                            fmt::format("file system type {:#x}", identity.filesystem_type()));
    case FilesystemClass::kLocal:
    case FilesystemClass::kNetwork:
      break;
  }
  if ((seen.flags & kTemporaryFile) != 0 || !context.leads_to(seen.link, identity)) {
    return context.refuse("DELETED_FILE", seen);
  }
  if (const std::uint64_t shared = context.shared_id(seen); shared != 0) {
    file.set_shared_id(shared);
  }
  return true;
}

const char* flaw_of_path(const wire::Objects& /*objects*/, const wire::OpenFile& file) {
  return is_path(file.identity().path()) ? nullptr : "files";
}

Result<UniqueFd> open_by_path(MakeContext& context, const wire::OpenFile& file) {
  return context.open(file.identity(), static_cast<int>(file.flags() & ~kCreationFlags));
}

Result<UniqueFd> open_stored_file(MakeContext& context, const wire::OpenFile& file) {
  UniqueFd fd = MIGRATE_TRY(open_by_path(context, file));
  if (file.position() != 0 &&
      ::lseek(fd.get(), static_cast<off_t>(file.position()), SEEK_SET) < 0) {
    return fail(system_error("seek in", file.identity().path()));
  }
  return fd;
}

}  // namespace migrate::carriers
