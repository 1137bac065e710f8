#pragma once

#include <array>
#include <cstdint>

namespace migrate::mpi {

enum class StepChange { kNone, kBegan, kEnded };

/// Finds what in a rank's calls is the end of a step, if the program does not say so: two calls in
/// a row (each one place in the program and one communicator) that come back regularly. Two, since
/// many programs make calls in bursts, in which only the change from one burst to another is once
/// in a step.
///
/// They are regular if three quarters of the times between two of them are within a factor of four
/// of the typical one (a busy machine makes them that different), their mean is not more than four
/// times that, and they have not been missing for eight times their mean. Of regular ones the most
/// frequent is chosen; one that ends with a call of all ranks, by which all of them count the same
/// steps, also if it is up to four times as rare. What is chosen stays unless another is clearly
/// more frequent.
///
/// Allocates nothing. Thread: one.
class StepFinder {
 public:
  /// A `call` has ended at `now_ns`; `of_all`: all ranks make it together. Says whether a step has
  /// ended, which is also the beginning of the next, or the first has begun since another end was
  /// chosen.
  StepChange ended(std::uint64_t call, bool of_all, std::uint64_t now_ns);

 private:
  struct Candidate {
    std::uint64_t signature = 0;  ///< Of both calls, never 0.
    std::uint64_t last_ns = 0;
    bool of_all = false;
    float typical_ns = 0;
    float seen = 0;  ///< Times between two; counts fade, so that a program may change.
    float regular = 0;
    float total_ns = 0;
  };

  static constexpr std::uint32_t kWays = 4;
  static constexpr std::uint32_t kFirstReview = 8;
  static constexpr std::uint32_t kReviewEvery = 256;

  static void note(Candidate& call, bool of_all, std::uint64_t now_ns);
  static bool is_regular(const Candidate& candidate, std::uint64_t now_ns);
  Candidate& candidate(std::uint64_t signature);
  void review(std::uint64_t now_ns);

  std::array<Candidate, 16 * kWays> candidates_{};
  std::uint64_t previous_ = 0;
  std::uint64_t chosen_ = 0;  ///< A signature; 0: none yet.
  bool counting_ = false;     ///< Its first time after it was chosen has been.
  std::uint32_t calls_ = 0;
  std::uint32_t next_review_ = kFirstReview;
};

}  // namespace migrate::mpi
