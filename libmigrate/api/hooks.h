#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

namespace migrate::client {

/// A move as the program's hooks see it, in the thread that asked for it or came to a point. One at
/// a time in a process; owned by its thread, which ends it before it ends itself, by an exception
/// or a cancellation, too.
class HookedMove {
 public:
  /// Begins one, if no other thread is at it and this is not called by a hook.
  HookedMove();
  HookedMove(const HookedMove&) = delete;
  HookedMove& operator=(const HookedMove&) = delete;
  /// Hooks that were told of the move and not of its end hear that it came to nothing.
  ~HookedMove();

  /// False: another thread has hooks called, or this is a hook, or a child that one has made.
  bool is_begun() const { return state_ != State::kBusy && is_of_this_process(); }
  /// False: there are none, and nothing is to be done.
  bool has_hooks() const { return state_ == State::kHooks; }

  /// Calls what is to be called before a move, the latest registered first. The reason of one that
  /// is against it: then the others are not called.
  std::optional<std::string> before();
  /// To those that were called before: it runs elsewhere, or the move came to nothing.
  void after();
  void failed(const char* why);

 private:
  enum class State : char { kBusy, kNone, kHooks };

  bool is_of_this_process() const;

  State state_;
  pid_t process_ = 0;
};

/// Around fork(2), so that what a child has of this is whole. In the child no thread is at a move.
void before_fork();
void after_fork_in_parent();
void after_fork_in_child();

/// Takes all back, of a child that is to do something else. Nothing of them is called.
void forget_hooks();

}  // namespace migrate::client
