#pragma once

#include <mpi.h>

#include <cstdint>

#include "mpi/library.h"
#include "mpi/page.h"
#include "mpi/step_finder.h"
#include "mpi/world_ranks.h"

namespace migrate::mpi {

/// What is known of a call when it begins.
struct Site {
  const void* function;  ///< Any address that stands for the function.
  const void* caller;    ///< Where it returns to.
  MPI_Comm communicator;
  bool may_end_step;  ///< It waits for others, or may.
  bool is_collective;
};

/// Measures this rank, in its page. There is one.
///
/// Threads: start() in the one that is to be the main thread; all else any, and none waits for
/// another, but for the first message by a communicator.
class Meter {
 public:
  static Meter& get();

  /// After MPI_Init. Without effect if the MPI is another than this library was built for.
  void start();
  /// Within MPI_Finalize.
  void stop();

  /// Whether calls of this thread are to be measured: not those that one call makes of another.
  bool is_on() const;

  void sent(int count, MPI_Datatype type, int rank, MPI_Comm communicator);
  /// `parts`: how often a collective call sends the `count`.
  void gave(int count, MPI_Datatype type, int parts);
  int size_of(MPI_Comm communicator) const;
  bool is_root(int rank, MPI_Comm communicator) const;

  /// Around a call. `begin` returns when it was, for `end`.
  std::uint64_t begin();
  void end(const Site& site, std::uint64_t begun_ns);

  /// For how long this thread has been in the call in which it is; 0: it is in none that is
  /// measured.
  static std::uint64_t waits_for_ns();
  /// That it has slept in it, since there was nothing to do.
  static void note_sleep(std::uint64_t nanoseconds);

  /// MPI_Pcontrol(kStepLevel): a step ends here, and the next begins. From the first on, no other
  /// steps are looked for. Of the main thread; in others without effect.
  void mark();
  static constexpr int kStepLevel = 3;

 private:
  void read_processor_time(std::uint64_t now_ns, bool was_outside);
  void change_step(StepChange change, StepSource source, std::uint64_t now_ns);

  Library library_{};
  WorldRanks ranks_;
  StepFinder finder_;
  std::uint64_t step_began_ns_ = 0;
  std::uint64_t step_began_inside_ns_ = 0;
};

}  // namespace migrate::mpi
