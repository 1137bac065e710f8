#pragma once

#include <array>
#include <cstdint>

namespace migrate::mpi {

enum class StepChange { kNone, kBegan, kEnded };

/// Finds what in a rank's calls is the end of a step, if the program does not say so: the call (one
/// place in the program, one communicator) that comes back most regularly.
///
/// A call is regular if three quarters of the times between two of it are within a factor of two of
/// the typical one, and their mean is not more than four times that: one that comes in bursts is
/// not. Of regular ones those come first that all ranks make together, so that all of them count
/// the same steps; then the most frequent. What is chosen stays unless another is clearly better.
///
/// Allocates nothing. Thread: one.
class StepFinder {
 public:
  /// A call of `signature` (not 0) has ended at `now_ns`; `of_all`: all ranks make it together.
  /// Says whether a step has ended, which is also the beginning of the next, or the first has begun
  /// since another call was chosen.
  StepChange ended(std::uint64_t signature, bool of_all, std::uint64_t now_ns);

 private:
  struct Candidate {
    std::uint64_t signature = 0;
    std::uint64_t last_ns = 0;
    bool of_all = false;
    float typical_ns = 0;
    float seen = 0;  ///< Times between two calls; counts fade, so that a program may change.
    float regular = 0;
    float total_ns = 0;
  };

  static constexpr std::uint32_t kWays = 4;
  static constexpr std::uint32_t kFirstReview = 8;
  static constexpr std::uint32_t kReviewEvery = 256;

  Candidate& candidate(std::uint64_t signature);
  void review();
  static bool is_regular(const Candidate& candidate);

  std::array<Candidate, 16 * kWays> candidates_{};
  std::uint64_t chosen_ = 0;  ///< A signature; 0: none yet.
  bool counting_ = false;     ///< Its first call after it was chosen has been.
  std::uint32_t calls_ = 0;
  std::uint32_t next_review_ = kFirstReview;
};

}  // namespace migrate::mpi
