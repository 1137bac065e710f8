#include "libmigrate/carriers/file_here.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <utility>

#include "base/file.h"
#include "libmigrate/proc/file_identity.h"

namespace migrate::carriers {

std::optional<wire::FileIdentity> find_here(CompareContext& context,
                                            const wire::FileIdentity& file) {
  auto here = identify_at(AT_FDCWD, file.path(), file.path());
  if (!here) {
    context.refuse("FILE_MISSING", here.error().message());
    return std::nullopt;
  }
  if ((here->mode() & S_IFMT) != (file.mode() & S_IFMT)) {
    context.refuse("FILE_DIFFERS", "it is of another type here");
    return std::nullopt;
  }
  return std::move(*here);
}

bool same_content(const wire::FileIdentity& file, const wire::FileIdentity& here,
                  bool same_kernel) {
  if (same_kernel && same_file(file, here)) {
    return true;
  }
  if (file.size_bytes() != here.size_bytes() ||
      (file.build_id().empty() && file.sha256().empty())) {
    return false;
  }
  // Who has a lease on it (fcntl(2)) would keep us waiting: then it counts as another.
  const auto opened = open_file(here.path(), O_RDONLY | O_NONBLOCK);
  if (!opened) {
    return false;
  }
  if (!file.build_id().empty()) {
    return read_build_id(opened->get()).value_or(std::string()) == file.build_id();
  }
  return sha256_of_file(opened->get()).value_or(std::string()) == file.sha256();
}

bool same_shared_file(const wire::FileIdentity& file, const wire::FileIdentity& here) {
  return filesystem_class(file.filesystem_type()) == FilesystemClass::kNetwork &&
         file.filesystem_type() == here.filesystem_type() && file.inode() == here.inode() &&
         file.size_bytes() == here.size_bytes() && file.mtime_ns() == here.mtime_ns();
}

void require_same_file(CompareContext& context, const wire::FileIdentity& file) {
  const auto here = find_here(context, file);
  if (!here || (context.same_kernel() ? same_file(file, *here) : same_shared_file(file, *here))) {
    return;
  }
  context.refuse("FILE_DIFFERS", context.same_kernel()
                                     ? "device and inode are not the same"
                                     : "it is not on a file system that both hosts share");
}

}  // namespace migrate::carriers
