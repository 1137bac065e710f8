// A file with content, opened anew under its path; its bytes stay in their file system.
#include <fcntl.h>
#include <sys/stat.h>

#include <string>

#include "libmigrate/carriers/file_here.h"
#include "libmigrate/carriers/internal/file_lock.h"
#include "libmigrate/carriers/internal/memory_file.h"
#include "libmigrate/carriers/internal/stored_file.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/proc/file_identity.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::carriers {
namespace {

bool is_read_only(std::uint32_t flags) {
  return (flags & O_ACCMODE) == O_RDONLY;
}

// What is open for reading only is told by its content too, for hosts that share no file system.
bool find_regular_file(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  const auto kind = filesystem_class(file.identity().filesystem_type());
  if ((kind == FilesystemClass::kLocal || kind == FilesystemClass::kNetwork) &&
      is_deleted(context, seen)) {
    return find_deleted_file(context, seen, file);
  }
  if (!find_stored_file(context, seen, file)) {
    return false;
  }
  wire::FileIdentity& identity = *file.mutable_identity();
  if (!is_read_only(seen.flags) || identity.size_bytes() > context.hash_limit_bytes() ||
      find_field(seen.details, "lock:")) {  // It must be the very file then.
    return true;
  }
  if (context.draft() != nullptr) {
    for (const wire::OpenFile& before : context.draft()->files()) {
      if (before.kind() == wire::OpenFile::REGULAR && unchanged(before.identity(), identity)) {
        identity.set_build_id(before.identity().build_id());
        identity.set_sha256(before.identity().sha256());
        return true;
      }
    }
  }
  const UniqueFd opened(
      ::openat(context.directory(), std::to_string(seen.number).c_str(), O_RDONLY | O_CLOEXEC));
  if (opened.valid()) {
    static_cast<void>(add_content_identity(opened.get(), context.hash_limit_bytes(), identity));
  }
  return true;
}

void compare_regular_file(CompareContext& context, const wire::OpenFile& file) {
  const wire::FileIdentity& identity = file.identity();
  const bool told = !identity.build_id().empty() || !identity.sha256().empty();
  if (!is_read_only(file.flags()) || context.same_kernel() || !told || file.locks_size() > 0) {
    require_same_file(context, identity);
    compare_locks(context, file);
    return;
  }
  const auto here = find_here(context, identity);
  // Content alone is not enough: a program may compare times too.
  if (here && !same_shared_file(identity, *here) &&
      !(identity.mtime_ns() == here->mtime_ns() && same_content(identity, *here, false))) {
    context.refuse("FILE_DIFFERS", "its content or time is not the same");
  }
}

}  // namespace

constinit const Carrier kRegularFile{
    .kind = wire::OpenFile::REGULAR,
    .name = "regular file",
    .claims_file = [](const wire::FileIdentity& identity) { return S_ISREG(identity.mode()); },
    .find = find_regular_file,
    // Who only appends has no position, nor has a path.
    .has_state =
        [](const wire::OpenFile& file) {
          constexpr std::uint32_t kAppends = O_WRONLY | O_APPEND;
          return ((file.flags() & (O_ACCMODE | O_APPEND)) != kAppends &&
                  (file.flags() & O_PATH) == 0) ||
                 file.locks_size() > 0;
        },
    .position_returns = true,
    .flaw =
        [](const wire::Objects& objects, const wire::OpenFile& file) {
          const char* const flaw = flaw_of_path(objects, file);
          return flaw != nullptr ? flaw : flaw_of_locks(file);
        },
    .compare = compare_regular_file,
    .make = open_stored_file,
    .opened_as_user = true,
    .connect = take_locks,
};

}  // namespace migrate::carriers
