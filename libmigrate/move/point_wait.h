#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "libmigrate/program/program.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/rights/asker.h"

namespace migrate {

/// Waits until a program that runs comes to one of its points (migrate_point), where a thread of it
/// then waits to be moved. Ended before that, the program is told that nobody waits any more.
/// Move-only; owned by one thread.
class PointWait {
 public:
  /// Asks the program for it, once the kernel has said that `asker` may attach to it. A request of
  /// before is replaced. Errors: kNotFound (it has ended), kRefused (he may not, or it has no
  /// points: see refusal_of()), kSystem.
  static Result<PointWait> begin(pid_t process, const Asker& asker,
                                 std::chrono::milliseconds longest);

  PointWait(PointWait&& other) noexcept;
  PointWait& operator=(PointWait&& other) noexcept;
  PointWait(const PointWait&) = delete;
  ~PointWait();

  enum class State : std::uint8_t {
    kWaiting,
    kThere,     ///< It waits; take_program() tells whom to answer.
    kTooLate,   ///< The time is over.
    kHookLate,  ///< Likewise, while a hook of it had not returned.
    kVetoed,    ///< A hook of it is against it.
    kReplaced,  ///< Another request took its place.
    kGone,      ///< The process has ended, or runs another program.
  };
  /// Looks once; does not block.
  State look() const;

  std::uint32_t request() const { return request_; }
  /// Why it was vetoed.
  std::string veto() const { return program_->veto().value_or(""); }
  /// Once it is there, and somebody else answers it from now on.
  Program take_program();

 private:
  PointWait(Program program, std::uint32_t request, std::chrono::steady_clock::time_point end)
      : program_(std::move(program)), request_(request), end_(end) {}

  void withdraw();

  std::optional<Program> program_;
  std::uint32_t request_;
  std::chrono::steady_clock::time_point end_;
};

/// What whoever asked for a move at a point is told when it does not come to that.
wire::Refusal refusal_of_point(const PointWait& point, PointWait::State state, pid_t process);
/// The same if the program has no points.
wire::Refusal refusal_without_points(pid_t process);

/// How long a move waits for a point: for so long as was asked, and as `for_hooks` says if the
/// program has hooks, which it calls nowhere else. Nothing: the process is moved wherever it is.
std::optional<std::chrono::milliseconds> longest_wait(
    pid_t process, std::optional<std::chrono::milliseconds> asked,
    std::chrono::milliseconds for_hooks);

/// How often to look whether a program has come to its point.
inline constexpr std::chrono::milliseconds kPointPause{3};

}  // namespace migrate
