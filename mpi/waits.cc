// Open MPI waits by looking for messages over and over. Where it is told to yield when nothing came
// (mpi_yield_when_idle), it calls sched_yield(2), which leads here. A rank that has waited for long
// sleeps instead, since a yield gives a processor to nobody who is not ready on that very one, and
// is paid for by the quota of a control group.

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "mpi/meter.h"

namespace migrate::mpi {
namespace {

/// Waits that are shorter are as they are without us.
constexpr std::uint64_t kPatienceNs = 50'000;
/// Of what it has waited for, so much may a message be seen too late,
constexpr std::uint64_t kShare = 16;
/// but not less, which would cost more than it saves, nor more.
constexpr std::uint64_t kShortestNs = 10'000;
constexpr std::uint64_t kLongestNs = 200'000;
/// By so much a timer may be late where nothing else runs (prctl(2), PR_SET_TIMERSLACK: 50 us).
constexpr std::uint64_t kSlackNs = 100'000;

}  // namespace
}  // namespace migrate::mpi

extern "C" [[gnu::visibility("default")]] int sched_yield() noexcept {
  using namespace migrate::mpi;
  const std::uint64_t waited_ns = Meter::waits_for_ns();
  if (waited_ns < kPatienceNs) {
    return static_cast<int>(syscall(SYS_sched_yield));
  }
  const timespec pause{
      .tv_sec = 0,
      .tv_nsec = static_cast<long>(std::clamp(waited_ns / kShare, kShortestNs, kLongestNs))};
  const std::uint64_t before_ns = Meter::waits_for_ns();
  (void)nanosleep(&pause, nullptr);
  // What it takes beyond that, and the slack of timers, the sleeper was held up.
  Meter::note_sleep(std::min(Meter::waits_for_ns() - before_ns,
                             static_cast<std::uint64_t>(pause.tv_nsec) + kSlackNs));
  return 0;
}
