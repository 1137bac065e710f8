#pragma once

#include <sys/types.h>

#include "base/result.h"
#include "base/unique_fd.h"

namespace migrate {

/// A process of ours that ends a child as soon as we have ended ourselves, even by SIGKILL, before
/// the child was let go. Move-only.
class StartGuard {
 public:
  /// Of a child that was not waited for yet. Errors: kSystem.
  static Result<StartGuard> create(pid_t child);
  StartGuard(StartGuard&& other) noexcept;
  StartGuard& operator=(StartGuard&&) = delete;
  /// Ends the child unless it was let go.
  ~StartGuard();

  /// The child is seen to by others from here on, or has ended.
  void let_go();

 private:
  StartGuard(pid_t guard, UniqueFd alive);
  void end();

  pid_t guard_;
  UniqueFd alive_;  // Closed, by our end, too, it tells the guard.
};

}  // namespace migrate
