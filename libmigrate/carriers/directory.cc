// A directory, opened anew under its path; on another host it may be another one.
#include <sys/stat.h>

#include "libmigrate/carriers/file_here.h"
#include "libmigrate/carriers/internal/stored_file.h"
#include "libmigrate/carriers/internal/table.h"

namespace migrate::carriers {
namespace {

void compare_directory(CompareContext& context, const wire::OpenFile& file) {
  if (context.same_kernel()) {
    require_same_file(context, file.identity());
  } else {
    static_cast<void>(find_here(context, file.identity()));
  }
}

}  // namespace

constinit const Carrier kDirectory{
    .kind = wire::OpenFile::DIRECTORY,
    .name = "directory",
    .claims_file = [](const wire::FileIdentity& identity) { return S_ISDIR(identity.mode()); },
    .find = find_stored_file,
    .flaw = flaw_of_path,
    .compare = compare_directory,
    .make = open_stored_file,
    .opened_as_user = true,
};

}  // namespace migrate::carriers
