#include "base/processors.h"

#include <sched.h>

namespace migrate {

bool has_several_processors() {
  static const bool kSeveral = [] {
    cpu_set_t processors;
    // An error means more of them than the set holds.
    return ::sched_getaffinity(0, sizeof(processors), &processors) != 0 ||
           CPU_COUNT(&processors) > 1;
  }();
  return kSeveral;
}

}  // namespace migrate
