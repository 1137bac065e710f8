#include "mpi/meter.h"

#include <unistd.h>

#include <algorithm>
#include <ctime>

namespace migrate::mpi {
namespace {

// In the library's file, since it begins with more than zeros: so that whoever looks for it need
// only look at what is mapped of that. Its address is not exported.
constinit Page page;
constinit Meter meter;

// Also in calls that MPI makes of itself, of which only the outermost is measured.
// When the outermost call began in which this thread is; 0: it is in none.
[[gnu::tls_model("initial-exec")]] thread_local std::uint64_t inside_since_ns = 0;
[[gnu::tls_model("initial-exec")]] thread_local std::uint64_t slept_ns = 0;  // in it
[[gnu::tls_model("initial-exec")]] thread_local bool is_main = false;

std::uint64_t now(clockid_t clock = CLOCK_MONOTONIC) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(time.tv_nsec);
}

// Tells readers that what is in the page does not fit together for a moment.
class Change {
 public:
  Change() {
    page.sequence.add(1);
    std::atomic_thread_fence(std::memory_order_release);
  }
  ~Change() {
    std::atomic_thread_fence(std::memory_order_release);
    page.sequence.add(1);
  }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;
};

// The place of a rank in the page; nothing if all that it could have are taken.
Partner* partner_of(int rank) {
  constexpr std::size_t kTries = 8;
  const auto wanted = static_cast<std::uint32_t>(rank) + 1;
  for (std::size_t i = 0; i < kTries; ++i) {
    Partner& place = page.partners[(static_cast<std::size_t>(rank) + i) % page.partners.size()];
    std::uint32_t there = place.rank_and_one.load(std::memory_order_relaxed);
    if (there == wanted ||
        (there == 0 &&
         (place.rank_and_one.compare_exchange_strong(there, wanted) || there == wanted))) {
      return &place;
    }
  }
  return nullptr;
}

std::uint64_t signature_of(const Site& site) {
  constexpr std::uint64_t kSpread = 0x9e3779b97f4a7c15;  // 2^64 by the golden ratio.
  std::uint64_t hash = reinterpret_cast<std::uintptr_t>(site.function);
  hash = hash * kSpread + reinterpret_cast<std::uintptr_t>(site.caller);
  hash = hash * kSpread + reinterpret_cast<std::uintptr_t>(site.communicator);
  hash *= kSpread;
  return (hash >> 32) ^ hash;
}

}  // namespace

Meter& Meter::get() {
  return meter;
}

void Meter::start() {
  int rank = 0;
  if (page.state.load() != State::kNotBegun || !library_.find() || !ranks_.create(library_) ||
      library_.comm_rank(library_.world, &rank) != MPI_SUCCESS) {
    return;
  }
  is_main = true;
  page.pid = static_cast<std::uint32_t>(getpid());
  page.rank = static_cast<std::uint32_t>(rank);
  page.ranks = static_cast<std::uint32_t>(ranks_.world_size());
  step_began_ns_ = now();
  page.began_ns.set(step_began_ns_);
  page.left_ns.set(step_began_ns_);
  page.processor_ns.set(now(CLOCK_THREAD_CPUTIME_ID));
  page.read_at_ns.set(step_began_ns_);
  page.state.store(State::kRunning, std::memory_order_release);
}

void Meter::stop() {
  if (page.state.load() == State::kRunning) {
    page.state.store(State::kEnded, std::memory_order_release);
  }
}

bool Meter::is_on() const {
  return inside_since_ns == 0 && page.state.load(std::memory_order_acquire) == State::kRunning;
}

void Meter::sent(int count, MPI_Datatype type, int rank, MPI_Comm communicator) {
  int size = 0;
  if (rank == MPI_PROC_NULL || count <= 0 || library_.type_size(type, &size) != MPI_SUCCESS) {
    return;
  }
  const std::uint64_t bytes = static_cast<std::uint64_t>(count) * static_cast<std::uint64_t>(size);
  page.sent_bytes.add_shared(bytes);
  page.sent_messages.add_shared(1);
  const int there = ranks_.of(communicator, rank);
  Partner* const partner = there == WorldRanks::kNone ? nullptr : partner_of(there);
  if (partner == nullptr) {
    page.unlisted_bytes.add_shared(bytes);
    return;
  }
  partner->bytes.add_shared(bytes);
  partner->messages.add_shared(1);
}

void Meter::gave(int count, MPI_Datatype type, int parts) {
  int size = 0;
  if (count > 0 && library_.type_size(type, &size) == MPI_SUCCESS) {
    page.collective_bytes.add_shared(static_cast<std::uint64_t>(count) *
                                     static_cast<std::uint64_t>(size) *
                                     static_cast<std::uint64_t>(parts));
  }
}

int Meter::size_of(MPI_Comm communicator) const {
  int size = 0;
  return library_.comm_size(communicator, &size) == MPI_SUCCESS ? size : 0;
}

bool Meter::is_root(int rank, MPI_Comm communicator) const {
  int own = 0;
  return library_.comm_rank(communicator, &own) == MPI_SUCCESS && own == rank;
}

std::uint64_t Meter::waits_for_ns() {
  return inside_since_ns == 0 ? 0 : now() - inside_since_ns;
}

void Meter::note_sleep(std::uint64_t nanoseconds) {
  slept_ns += nanoseconds;
}

std::uint64_t Meter::begin() {
  const std::uint64_t begun_ns = now();
  inside_since_ns = begun_ns;
  slept_ns = 0;
  if (is_main) {
    read_processor_time(begun_ns, true);
    page.entered_ns.set(begun_ns);
  }
  return begun_ns;
}

void Meter::end(const Site& site, std::uint64_t begun_ns) {
  const std::uint64_t now_ns = now();
  inside_since_ns = 0;
  if (!is_main) {
    page.other_calls.add_shared(1);
    page.other_inside_ns.add_shared(now_ns - begun_ns);
    return;
  }
  read_processor_time(now_ns, false);
  const Change change;
  page.inside_ns.add(now_ns - begun_ns);
  page.calls.add(1);
  page.left_ns.set(now_ns);
  page.entered_ns.set(0);
  if (site.may_end_step &&
      page.step_source.get() != static_cast<std::uint64_t>(StepSource::kMarks)) {
    const bool of_all = site.is_collective && ranks_.is_of_all(site.communicator);
    change_step(finder_.ended(signature_of(site), of_all, now_ns), StepSource::kRecurrence, now_ns);
  }
}

// That clock takes a system call, so it is read no more often than this. Who has lost a processor
// gets none for longer, so that all of what was lost since the last reading was lost in what has
// just ended: in a call, or between two of them.
void Meter::read_processor_time(std::uint64_t now_ns, bool was_outside) {
  constexpr std::uint64_t kEachNs = 100'000;
  const std::uint64_t elapsed_ns = now_ns - page.read_at_ns.get();
  if (elapsed_ns < kEachNs) {
    return;
  }
  const std::uint64_t before_ns = page.processor_ns.get();
  const std::uint64_t processor_ns = now(CLOCK_THREAD_CPUTIME_ID);
  const Change change;
  // Where it was moved to, that clock is another.
  if (processor_ns >= before_ns && processor_ns - before_ns < elapsed_ns) {
    const std::uint64_t lost_ns = elapsed_ns - (processor_ns - before_ns);
    if (was_outside) {
      page.waited_ns.add(std::min(lost_ns, now_ns - page.left_ns.get()));
    } else {
      const std::uint64_t in_call_ns = std::min(lost_ns, now_ns - page.entered_ns.get());
      page.held_up_ns.add(in_call_ns - std::min(in_call_ns, slept_ns));
    }
  }
  page.processor_ns.set(processor_ns);
  page.read_at_ns.set(now_ns);
}

void Meter::mark() {
  if (!is_main || !is_on()) {
    return;
  }
  const bool is_first = page.step_source.get() != static_cast<std::uint64_t>(StepSource::kMarks);
  const Change change;
  if (is_first) {
    page.steps.set(0);
    page.steps_ns.set(0);
    page.steps_work_ns.set(0);
  }
  change_step(is_first ? StepChange::kBegan : StepChange::kEnded, StepSource::kMarks, now());
}

void Meter::change_step(StepChange change, StepSource source, std::uint64_t now_ns) {
  if (change == StepChange::kNone) {
    return;
  }
  const std::uint64_t inside_ns = page.inside_ns.get();
  if (change == StepChange::kEnded) {
    const std::uint64_t step_ns = now_ns - step_began_ns_;
    const std::uint64_t work_ns = step_ns - (inside_ns - step_began_inside_ns_);
    page.steps.add(1);
    page.last_step_ns.set(step_ns);
    page.last_step_work_ns.set(work_ns);
    page.steps_ns.add(step_ns);
    page.steps_work_ns.add(work_ns);
  }
  page.step_source.set(static_cast<std::uint64_t>(source));
  step_began_ns_ = now_ns;
  step_began_inside_ns_ = inside_ns;
}

}  // namespace migrate::mpi
