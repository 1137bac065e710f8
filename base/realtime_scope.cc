#include "base/realtime_scope.h"

#include <sched.h>

namespace migrate {

RealtimeScope::RealtimeScope() {
  sched_param parameter{};
  parameter.sched_priority = ::sched_get_priority_min(SCHED_FIFO);
  raised_ = ::sched_getscheduler(0) == SCHED_OTHER &&
            ::sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &parameter) == 0;
}

RealtimeScope::~RealtimeScope() {
  if (raised_) {
    const sched_param parameter{};
    // Only CAP_SYS_NICE may clear the flag that children are ordinary, which changes nothing then.
    if (::sched_setscheduler(0, SCHED_OTHER, &parameter) != 0) {
      static_cast<void>(::sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &parameter));
    }
  }
}

}  // namespace migrate
