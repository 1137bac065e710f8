#include "libmigrate/rules/bounding_set.h"

#include <sys/prctl.h>

namespace migrate {

std::uint64_t own_bounding_set() {
  std::uint64_t set = 0;
  for (unsigned capability = 0; capability < 64; ++capability) {
    const int held = ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
    set |= held > 0 ? std::uint64_t{1} << capability : 0;
  }
  return set;
}

std::uint64_t bounding_sets_of(const wire::ProcessImage& image) {
  std::uint64_t set = 0;
  for (const wire::Thread& thread : image.threads()) {
    set |= thread.credentials().capabilities_bounding();
  }
  return set;
}

}  // namespace migrate
