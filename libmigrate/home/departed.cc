#include "libmigrate/home/departed.h"

#include <signal.h>

#include "base/log.h"

namespace migrate {

int watch_deputy(const HomeSurroundings& around, const HomeRecord& record, Departed& departed) {
  around.drain_child_signals();
  if (!departed.deputy) {
    return 0;
  }
  const auto state = departed.deputy->check_state();
  if (state && *state >= 0) {
    return *state;
  }
  departed.deputy.reset();  // Nothing but SIGKILL can end it.
  departed.move->stop_serving();
  log::info("the deputy of process {} was killed; so is the process, if its user still may",
            to_hex(record.process()));
  return SIGKILL;
}

}  // namespace migrate
