// The hooks of a program. They are called by a thread of its own, in a function of this library
// that it has called; nothing here is held while one runs, so that others may fork, end, or
// register.
#include "libmigrate/api/hooks.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <span>

#include "libmigrate/api/own_block.h"
#include "libmigrate/api/result.h"
#include "libmigrate/api/turn.h"
#include "libmigrate/include/libmigrate/migrate.h"

namespace migrate::client {
namespace {

constexpr std::size_t kMostSets = 32;
constexpr std::size_t kLeastHooks = offsetof(migrate_hooks, data) + sizeof(void*);

struct Set {
  migrate_hooks hooks;
  int number;
  bool is_begun;  // It was told of the move that is under way.
};

/// In the order of their numbers. Guarded by `holder`, which is never held while a hook runs.
struct Registered {
  std::array<Set, kMostSets> sets;
  std::size_t count;
  int last_number;
};
constinit Registered registered = {};
constinit std::atomic<pid_t> holder = 0;
/// The thread that is at a move; and while it calls hooks, the same again.
constinit std::atomic<pid_t> mover = 0;
constinit std::atomic<pid_t> caller = 0;

pid_t own_thread() {
  return static_cast<pid_t>(::syscall(SYS_gettid));
}

std::span<Set> all_sets() {
  return std::span(registered.sets).first(registered.count);
}

/// While it lives, this thread calls hooks.
class Calling {
 public:
  Calling() { caller.store(own_thread(), std::memory_order_seq_cst); }
  Calling(const Calling&) = delete;
  Calling& operator=(const Calling&) = delete;
  ~Calling() {
    if (process_ == ::getpid()) {
      caller.store(0, std::memory_order_seq_cst);
    }
  }

 private:
  const pid_t process_ = ::getpid();
};

/// The next one that was not begun, the latest first. Nothing: there is none.
std::optional<Set> begin_next(int below) {
  const Turn turn(holder);
  const std::span<Set> sets = all_sets();
  for (std::size_t i = sets.size(); i-- > 0;) {
    if (sets[i].number < below) {
      sets[i].is_begun = true;
      return sets[i];
    }
  }
  return std::nullopt;
}

/// The first one that was begun, which it is no more.
std::optional<Set> end_next() {
  const Turn turn(holder);
  for (Set& each : all_sets()) {
    if (each.is_begun) {
      each.is_begun = false;
      return each;
    }
  }
  return std::nullopt;
}

void forget_begun(int number) {
  const Turn turn(holder);
  for (Set& each : all_sets()) {
    each.is_begun = each.is_begun && each.number != number;
  }
}

int add(const migrate_hooks& hooks) {
  program::Block* const block = own_block();
  const Turn turn(holder);
  if (block == nullptr || registered.count == kMostSets) {
    return 0;
  }
  registered.sets[registered.count++] = {hooks, ++registered.last_number, false};
  block->hooks.store(static_cast<std::uint32_t>(registered.count), std::memory_order_release);
  return registered.last_number;
}

bool remove(int number) {
  program::Block* const block = own_block();
  const Turn turn(holder);
  const std::span<Set> sets = all_sets();
  const auto found = std::ranges::find(sets, number, &Set::number);
  if (block == nullptr || found == sets.end()) {
    return false;
  }
  std::move(found + 1, sets.end(), found);
  --registered.count;
  block->hooks.store(static_cast<std::uint32_t>(registered.count), std::memory_order_release);
  return true;
}

/// Until no other thread may be in a hook that is removed.
void await_others() {
  const pid_t self = own_thread();
  for (pid_t now = caller.load(std::memory_order_seq_cst); now != 0 && now != self;
       now = caller.load(std::memory_order_seq_cst)) {
    ::usleep(1000);
  }
}

}  // namespace

HookedMove::HookedMove() : process_(::getpid()) {
  {
    const Turn turn(holder);
    state_ = registered.count == 0 ? State::kNone : State::kHooks;
  }
  pid_t nobody = 0;
  if (caller.load(std::memory_order_acquire) == own_thread() ||
      (state_ == State::kHooks && !mover.compare_exchange_strong(nobody, own_thread()))) {
    state_ = State::kBusy;
  }
}

HookedMove::~HookedMove() {
  if (state_ == State::kHooks && is_of_this_process()) {
    failed("the thread that was to be moved has ended");
    mover.store(0, std::memory_order_release);
  }
}

// A child that a hook has made (fork) goes on behind it: of what its parent began it knows nothing.
bool HookedMove::is_of_this_process() const {
  return process_ == ::getpid();
}

std::optional<std::string> HookedMove::before() {
  if (!has_hooks()) {
    return std::nullopt;
  }
  const Calling calling;
  int below = std::numeric_limits<int>::max();
  while (const auto next = begin_next(below)) {
    below = next->number;
    const char* const veto =
        next->hooks.before == nullptr ? nullptr : next->hooks.before(next->hooks.data);
    if (veto != nullptr) {
      forget_begun(next->number);
      return veto;
    }
    if (!is_of_this_process()) {
      break;
    }
  }
  return std::nullopt;
}

void HookedMove::after() {
  if (!has_hooks()) {
    return;
  }
  const Calling calling;
  while (const auto next = is_of_this_process() ? end_next() : std::nullopt) {
    if (next->hooks.after != nullptr) {
      next->hooks.after(next->hooks.data);
    }
  }
}

void HookedMove::failed(const char* why) {
  if (!has_hooks()) {
    return;
  }
  const Calling calling;
  while (const auto next = is_of_this_process() ? end_next() : std::nullopt) {
    if (next->hooks.failed != nullptr) {
      next->hooks.failed(why, next->hooks.data);
    }
  }
}

void before_fork() {
  Turn::take(holder);
}

void after_fork_in_parent() {
  Turn::leave(holder);
}

void after_fork_in_child() {
  mover.store(0);
  caller.store(0);
  for (Set& each : all_sets()) {
    each.is_begun = false;
  }
  Turn::leave(holder);
}

void forget_hooks() {
  program::Block* const block = own_block();
  const Turn turn(holder);
  registered.count = 0;
  if (block != nullptr) {
    block->hooks.store(0, std::memory_order_release);
  }
}

}  // namespace migrate::client

using namespace migrate::client;  // the functions below are C's

extern "C" int migrate_add_hooks(const struct migrate_hooks* hooks, int* number) {
  if (hooks == nullptr || hooks->size < kLeastHooks || number == nullptr) {
    note_message("hooks: give a struct with its size, and where their number is to be");
    return MIGRATE_USAGE;
  }
  *number = add(*hooks);
  if (*number == 0) {
    note_message("hooks: there are 32 sets already, or no place in the program's memory");
    return MIGRATE_ERROR;
  }
  return MIGRATE_DONE;
}

extern "C" int migrate_remove_hooks(int number) {
  if (!remove(number)) {
    note_message("hooks: there are none of this number");
    return MIGRATE_USAGE;
  }
  await_others();
  return MIGRATE_DONE;
}
