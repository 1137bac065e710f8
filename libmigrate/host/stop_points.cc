#include "libmigrate/host/stop_points.h"

#include <signal.h>
#include <unistd.h>

#include <cstdio>

#include "base/log.h"

namespace migrate {

void StopPoints::reach(const char* step) const {
  if (directory_.empty()) {
    return;
  }
  const std::string armed = directory_ + "/" + step;
  const std::string claimed = armed + "." + std::to_string(::getpid());
  if (std::rename(armed.c_str(), claimed.c_str()) == 0) {
    log::warn("stops at {}, as it was told to for debugging", step);
    ::raise(SIGSTOP);
  }
}

}  // namespace migrate
