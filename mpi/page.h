#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace migrate::mpi {

/// A counter that one thread writes, or several by add_shared(), and that anybody reads at any
/// time.
class Counter {
 public:
  std::uint64_t get() const { return value_.load(std::memory_order_relaxed); }
  void set(std::uint64_t value) { value_.store(value, std::memory_order_relaxed); }
  /// Of the one thread that writes it.
  void add(std::uint64_t more) { set(get() + more); }
  void add_shared(std::uint64_t more) { value_.fetch_add(more, std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

/// What was sent to one rank, point to point.
struct Partner {
  std::atomic<std::uint32_t> rank_and_one{0};  ///< Of MPI_COMM_WORLD; 0: nobody's.
  std::uint32_t unused = 0;
  Counter bytes;
  Counter messages;
};

enum class State : std::uint32_t { kNotBegun = 0, kRunning = 1, kEnded = 2 };
enum class StepSource : std::uint64_t { kNone = 0, kRecurrence = 1, kMarks = 2 };

/// What was measured of one rank: a page of its own private memory, at a multiple of 4096 bytes in
/// the writable mapping of this library, so that it is where the rank is. Whoever may trace the
/// process reads it (process_vm_readv) and asks nobody (docs/decisions/0075). Times are nanoseconds
/// of CLOCK_MONOTONIC as the process sees it, which goes on when it is moved. `tools/migmpirun`
/// reads this layout: another layout has another `magic`.
///
/// "Main thread": the one that called MPI_Init, which alone writes what is not said to be of all.
struct alignas(4096) Page {
  std::array<char, 16> magic{'l', 'i', 'b', 'm', 'i', 'g', 'r', 'a',
                             't', 'e', '-', 'm', 'p', 'i', ' ', '3'};
  std::atomic<State> state{State::kNotBegun};
  std::uint32_t pid = 0;   ///< As the process sees it: a child that it forks has another.
  std::uint32_t rank = 0;  ///< Of MPI_COMM_WORLD.
  std::uint32_t ranks = 0;
  /// Odd while the main thread changes what follows, up to and including `step_work_ns`.
  Counter sequence;
  Counter began_ns;    ///< When MPI_Init returned.
  Counter entered_ns;  ///< When the call began in which the main thread is; 0: in none.
  Counter left_ns;     ///< When its last call ended.
  Counter inside_ns;   ///< Within calls that have ended.
  Counter calls;
  Counter step_source;
  Counter steps;
  Counter last_step_ns;
  Counter last_step_work_ns;  ///< Of which outside calls.
  Counter steps_ns;           ///< All steps together.
  Counter steps_work_ns;
  Counter other_calls;      ///< Of other threads than the main one.
  Counter other_inside_ns;  ///< Their time in these, added up.
  Counter sent_bytes;       ///< Point to point, by all threads.
  Counter sent_messages;    ///< The same.
  Counter
      collective_bytes;    ///< Of the rank's own that it gave to collective calls, by all threads.
  Counter unlisted_bytes;  ///< Of sent_bytes, to ranks for which there was no room in `partners`.
  /// Of the time outside calls: the main thread had no processor, as it waited for one or slept.
  Counter waited_ns;
  Counter processor_ns;  ///< The clock of the main thread's processor time when it was read last,
  Counter read_at_ns;    ///< and when that was.
  /// Of the time inside calls: the main thread had no processor, and did not sleep by itself.
  Counter held_up_ns;
  std::array<Partner, 128> partners;  ///< By all threads.
};
static_assert(sizeof(Page) == 4096);
static_assert(offsetof(Page, sequence) == 32);

}  // namespace migrate::mpi
