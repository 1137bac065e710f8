// A device that every host has and that keeps no state: null, zero, full, random, urandom.
#include <sys/stat.h>

#include <algorithm>
#include <array>

#include "libmigrate/carriers/file_here.h"
#include "libmigrate/carriers/internal/stored_file.h"
#include "libmigrate/carriers/internal/table.h"

namespace migrate::carriers {
namespace {

bool is_harmless(unsigned major_number, unsigned minor_number) {
  constexpr std::array<unsigned, 5> kMinors{3, 5, 7, 8, 9};  // null zero full random urandom
  return major_number == 1 && std::ranges::find(kMinors, minor_number) != kMinors.end();
}

bool find_device(FindContext& context, const Sighting& seen, wire::OpenFile& /*file*/) {
  return !seen.link.ends_with(" (deleted)") || context.refuse("DELETED_FILE", seen);
}

void compare_device(CompareContext& context, const wire::OpenFile& file) {
  const auto here = find_here(context, file.identity());
  if (here && (here->device_major() != file.identity().device_major() ||
               here->device_minor() != file.identity().device_minor())) {
    context.refuse("FILE_DIFFERS", "it is another device here");
  }
}

}  // namespace

constinit const Carrier kDevice{
    .kind = wire::OpenFile::DEVICE,
    .name = "device",
    .claims_file =
        [](const wire::FileIdentity& identity) {
          return S_ISCHR(identity.mode()) &&
                 is_harmless(identity.device_major(), identity.device_minor());
        },
    .find = find_device,
    .flaw = flaw_of_path,
    .compare = compare_device,
    .make = open_by_path,
    .opened_as_user = true,
};

}  // namespace migrate::carriers
