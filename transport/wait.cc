#include "transport/wait.h"

#include <poll.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "base/processors.h"

namespace migrate {

using std::chrono::steady_clock;

Deadline::Deadline(int timeout_ms)
    : never_(timeout_ms < 0),
      at_(never_ ? steady_clock::time_point()
                 : steady_clock::now() + std::chrono::milliseconds(timeout_ms)) {}

int Deadline::remaining_ms() const {
  if (never_) {
    return -1;
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(at_ - steady_clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, INT_MAX));
}

Result<short> wait_for(int fd, short events, const Deadline& deadline) {
  pollfd entry{fd, events, 0};
  for (;;) {
    const int ready = ::poll(&entry, 1, deadline.remaining_ms());
    if (ready >= 0) {
      return ready == 0 ? short{0} : entry.revents;
    }
    if (errno != EINTR) {
      return fail(system_error("poll", "descriptor " + std::to_string(fd)));
    }
  }
}

Result<std::span<const std::byte>> receive_by_polling(Channel& channel, std::uint32_t spin_us,
                                                      int timeout_ms) {
  if (auto message = MIGRATE_TRY(channel.try_receive())) {
    return *message;
  }
  if (spin_us > 0 && has_several_processors()) {
    const auto until = steady_clock::now() + std::chrono::microseconds(spin_us);
    do {
      ::sched_yield();
      if (auto message = MIGRATE_TRY(channel.try_receive())) {
        return *message;
      }
    } while (steady_clock::now() < until);
  }
  const Deadline deadline(timeout_ms);
  for (;;) {
    const bool maybe_there = MIGRATE_TRY(channel.arm());
    if (!maybe_there && MIGRATE_TRY(wait_for(channel.poll_fd(), POLLIN, deadline)) == 0) {
      return fail(make_error(ErrorCode::kRetry, "receive", {}, "no message in the time given"));
    }
    if (auto message = MIGRATE_TRY(channel.try_receive())) {
      return *message;
    }
  }
}

}  // namespace migrate
