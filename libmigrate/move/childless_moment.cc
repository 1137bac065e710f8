#include "libmigrate/move/childless_moment.h"

#include <thread>

#include "libmigrate/proc/children.h"

namespace migrate {

Result<void> await_childless_moment(pid_t process, std::chrono::milliseconds longest,
                                    const std::function<Result<void>()>& still_wanted) {
  constexpr std::chrono::milliseconds kLook{1};
  const auto end = std::chrono::steady_clock::now() + longest;
  while (!children_of(process).empty() && std::chrono::steady_clock::now() < end) {
    MIGRATE_TRY(still_wanted());
    std::this_thread::sleep_for(kLook);
  }
  return {};
}

}  // namespace migrate
