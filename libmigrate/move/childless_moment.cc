#include "libmigrate/move/childless_moment.h"

#include <thread>

#include "libmigrate/proc/children.h"

namespace migrate {

Result<void> await_childless_moment(pid_t process, std::chrono::milliseconds longest,
                                    const std::function<Result<void>()>& still_wanted) {
  constexpr std::chrono::milliseconds kLook{1};
  const auto end = std::chrono::steady_clock::now() + longest;
  for (;;) {
    const auto children = children_of(process);
    if (!children || children->empty() || std::chrono::steady_clock::now() >= end) {
      return {};
    }
    MIGRATE_TRY(still_wanted());
    std::this_thread::sleep_for(kLook);
  }
}

}  // namespace migrate
