// What a process asks about itself: it says so in its block, tells the daemon, hangs up, and waits
// for what comes into the block: an answer, or that it has moved.
#include "libmigrate/api/self.h"

#include <linux/futex.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <iterator>
#include <optional>
#include <string>
#include <utility>

#include "libmigrate/api/hooks.h"
#include "libmigrate/api/json_text.h"
#include "libmigrate/api/own_block.h"
#include "libmigrate/api/result.h"

namespace migrate::client {
namespace {

using program::Block;

constexpr int kShortestPauseMs = 2;
constexpr int kLongestPauseMs = 10;
/// How often a worker is looked after that has said nothing; each time that it is asked again, so
/// many times as seldom, since a look is a connection, which may be in the way.
constexpr double kLookSeconds = 1;
constexpr double kSeldom = 4;
/// So often it is asked at most.
constexpr int kTimes = 3;
constexpr double kDaemonSeconds = 2;
/// For so long a daemon that is not there is waited for, once it has taken the request.
constexpr double kPatienceSeconds = 15;
/// So often a worker may not be seen: its row comes after its word.
constexpr int kMisses = 2;
/// The thread that has come to a point waits so long at most for what was to happen there.
constexpr double kPointSeconds = 60;

/// Waits for news, for so long at most; nobody wakes it up.
void pause_for(const std::atomic<std::uint32_t>& news, std::uint32_t seen, int milliseconds) {
  constexpr long kNanoseconds = 1'000'000;
  const timespec longest = {milliseconds / 1000, milliseconds % 1000 * kNanoseconds};
  // Begun anew where the process was moved or looked at, it sees that the word is another.
  ::syscall(SYS_futex, &news, FUTEX_WAIT_PRIVATE, seen, &longest, nullptr, 0);
}

std::uint64_t random_token() {
  constexpr std::uint64_t kBits = (std::uint64_t{1} << 52U) - 1;
  constexpr std::uint64_t kNoPoint = std::uint64_t{1} << 32U;  // Requests for points are below.
  std::uint64_t token = 0;
  while ((token & kBits) < kNoPoint) {
    if (::getrandom(&token, sizeof token, 0) != sizeof token) {
      return 0;
    }
  }
  return token & kBits;
}

Answer answer_in(const Block& block) {
  const std::size_t bytes = std::min<std::size_t>(
      block.answer_bytes.load(std::memory_order_relaxed), sizeof block.answer);
  return parse_result(std::string(block.answer, bytes));
}

/// One thing that is asked.
class Asking {
 public:
  Asking(const migrate_options& options, const std::string& members, Block& block)
      : options_(options),
        members_(members),
        block_(block),
        limit_(options.time_limit_seconds),
        token_(random_token()) {}
  Asking(const Asking&) = delete;
  Asking& operator=(const Asking&) = delete;
  ~Asking() {
    if (is_asking_) {
      static_cast<void>(withdraw());
    }
  }

  Answer ask() {
    std::uint64_t nothing = 0;
    if (token_ == 0 || !block_.asked.compare_exchange_strong(nothing, token_)) {
      return answer_of(MIGRATE_ERROR, token_ == 0 ? "no random bytes"
                                                  : "another thread of this program asks for "
                                                    "something; ask when that has returned");
    }
    is_asking_ = true;
    std::optional<Answer> answer = request_from_a_daemon();
    while (!answer) {
      answer = await();
    }
    return *std::move(answer);
  }

 private:
  bool has_moved() const { return block_.asked.load(std::memory_order_acquire) != token_; }

  /// From here on no move comes of what was asked: whoever moves the process looks whether it still
  /// asks, while it is frozen. False: it has moved.
  bool withdraw() {
    std::uint64_t token = token_;
    is_asking_ = false;
    return block_.asked.compare_exchange_strong(token, 0);
  }

  Answer moved() {
    is_asking_ = false;
    Answer answer = answer_of(MIGRATE_DONE, {});
    answer.json = "{\"state\":\"moved\"}";
    return answer;
  }

  /// Tells the daemon. Nothing: it is being done, or was, by `worker_`.
  std::optional<Answer> request() {
    Holding holding(&block_);
    moves_ = block_.moves.load(std::memory_order_acquire);
    std::optional<long> worker;
    Answer answer = exchange(
        options_, "{\"pid\":0,\"token\":" + std::to_string(token_) + "," + members_ + "}", limit_,
        [&worker](const std::string& event) {
          const ObjectScanner scanner(event);
          if (scanner.string("event") == "accepted") {
            worker = scanner.integer("worker");
          }
          return !worker;
        },
        [&holding] { holding.release(); });
    if (!worker) {
      return answer;
    }
    worker_ = *worker;
    misses_ = 0;
    look_seconds_ = times_ == 0 ? kLookSeconds : look_seconds_ * kSeldom;
    next_look_ = TimeLimit(look_seconds_);
    has_looked_ = false;
    patience_ = TimeLimit(kPatienceSeconds);
    return std::nullopt;
  }

  /// The same, of a daemon that may be starting anew just now: as long as reasons against the move
  /// may last. What it says itself has JSON.
  std::optional<Answer> request_from_a_daemon() {
    constexpr int kPauseMs = 100;
    const TimeLimit retry(options_.retry_seconds);
    std::optional<Answer> answer = request();
    while (answer && answer->status == MIGRATE_ERROR && answer->json == Answer().json &&
           options_.retry_seconds > 0 && !retry.is_over() && !limit_.is_over() && !has_moved()) {
      pause_for(block_.news, block_.news.load(std::memory_order_acquire), kPauseMs);
      answer = request();
    }
    return answer && has_moved() ? std::optional(moved()) : answer;
  }

  /// Waits until there is an answer, or something is to be done first.
  std::optional<Answer> await() {
    int pause_ms = kShortestPauseMs;
    for (;;) {
      const std::uint32_t news = block_.news.load(std::memory_order_acquire);
      if (has_moved()) {
        return moved();
      }
      if (block_.answered.load(std::memory_order_acquire) == token_) {
        Answer answer = answer_in(block_);
        if (answer.status == MIGRATE_REFUSED && has_looked_ && ++times_ < kTimes) {
          block_.answered.store(0, std::memory_order_release);
          auto other = request();
          if (!other || other->status != MIGRATE_ERROR) {
            return other;
          }
        }
        return withdraw() ? std::move(answer) : moved();
      }
      if (limit_.is_over()) {
        return withdraw() ? answer_of(MIGRATE_TIMEOUT,
                                      "it did not come to that in the time that the call may take; "
                                      "the program runs on where it was")
                          : moved();
      }
      if (block_.moves.load(std::memory_order_acquire) != moves_) {
        return ask_again("somebody else has moved the program meanwhile");
      }
      if (next_look_.is_over()) {
        next_look_ = TimeLimit(look_seconds_);
        has_looked_ = true;
        if (is_lost()) {
          return ask_again("whoever was to do it has ended; the log of migrated says why");
        }
      }
      pause_for(block_.news, news, limit_.left_ms(pause_ms));
      pause_ms = std::min(pause_ms + 1, kLongestPauseMs);
    }
  }

  /// Whether nobody is there any more who would answer.
  bool is_lost() {
    std::optional<long> worker;
    {
      const Holding holding(&block_);  // Until the connection is closed.
      const Answer here = exchange(options_, "{\"command\":\"here\"}", TimeLimit(kDaemonSeconds),
                                   [](const std::string&) { return true; });
      if (here.status != MIGRATE_DONE) {
        return patience_.is_over();
      }
      worker = ObjectScanner(here.json).integer("worker");
    }
    patience_ = TimeLimit(kPatienceSeconds);
    misses_ = worker == worker_ ? 0 : misses_ + 1;
    return misses_ >= kMisses;
  }

  /// What was asked first cannot come true any more: it was said by a worker that is no more, or
  /// where the program is no more.
  std::optional<Answer> ask_again(const char* why) {
    if (++times_ < kTimes) {
      std::optional<Answer> answer = request();
      if (!answer || answer->status != MIGRATE_ERROR) {
        return answer;
      }
    }
    return withdraw() ? answer_of(MIGRATE_FAILED, std::string("the program was not moved: ") + why)
                      : moved();
  }

  const migrate_options& options_;
  const std::string& members_;
  Block& block_;
  const TimeLimit limit_;
  const std::uint64_t token_;
  bool is_asking_ = false;
  std::uint32_t moves_ = 0;
  long worker_ = 0;
  int misses_ = 0;
  int times_ = 0;
  double look_seconds_ = kLookSeconds;
  bool has_looked_ = false;  // Since it was asked: what is against it may be the look itself.
  TimeLimit next_look_;
  TimeLimit patience_;
};

/// One thread waits at the point; the others go on. Returns whether the process was moved.
bool wait_at_point(Block& block, std::uint32_t request) {
  std::uint32_t nobody = 0;
  const std::uint32_t moves = block.moves.load(std::memory_order_acquire);
  if (!block.at_point.compare_exchange_strong(nobody, request)) {
    return false;
  }
  const TimeLimit limit(kPointSeconds);
  const auto is_over = [&] {
    return block.moves.load(std::memory_order_acquire) != moves ||
           block.point.load(std::memory_order_acquire) != request;
  };
  while (!is_over() && !limit.is_over()) {
    const std::uint32_t news = block.news.load(std::memory_order_acquire);
    if (!is_over()) {
      pause_for(block.news, news, kShortestPauseMs);
    }
  }
  std::uint32_t wanted = request;
  block.point.compare_exchange_strong(wanted, 0);  // Nobody came for it.
  block.at_point.store(0, std::memory_order_release);
  return block.moves.load(std::memory_order_acquire) != moves;
}

/// While it lives, whoever asked for the point sees that hooks are called for it.
class Hooking {
 public:
  Hooking(Block& block, std::uint32_t request) : block_(block) {
    block_.hooking.store(request, std::memory_order_release);
  }
  Hooking(const Hooking&) = delete;
  Hooking& operator=(const Hooking&) = delete;
  ~Hooking() { block_.hooking.store(0, std::memory_order_release); }

 private:
  Block& block_;
};

/// Tells whoever asked for the point that it is not to be, and why.
void say_veto(Block& block, std::uint32_t request, const std::string& why) {
  const std::size_t bytes = std::min(why.size(), sizeof block.veto);
  std::copy_n(why.begin(), bytes, std::begin(block.veto));
  block.veto_bytes = static_cast<std::uint32_t>(bytes);
  block.vetoed.store(request, std::memory_order_release);
  std::uint32_t wanted = request;
  block.point.compare_exchange_strong(wanted, 0);
}

/// Whether the hooks are done, and nothing is against the move.
bool call_hooks(HookedMove& move, Block& block, std::uint32_t request) {
  const Hooking hooking(block, request);
  if (const auto veto = move.before()) {
    say_veto(block, request, *veto);
    move.failed(veto->c_str());
    note_message(*veto);
    return false;
  }
  if (block.point.load(std::memory_order_acquire) != request) {
    constexpr const char* kTooLate = "whoever asked for the move waits for it no more";
    move.failed(kTooLate);
    note_message(kTooLate);
    return false;
  }
  return true;
}

/// What a thread does at a point for which somebody waits. Returns whether it was moved.
bool wait_with_hooks(Block& block, std::uint32_t request) {
  HookedMove move;
  if (!move.is_begun()) {
    return false;
  }
  note_message({});
  if (move.has_hooks() && !call_hooks(move, block, request)) {
    return false;
  }
  if (wait_at_point(block, request)) {
    move.after();
    note_message({});
    return true;
  }
  const std::string why = block.answered.load(std::memory_order_acquire) == request
                              ? answer_in(block).message
                              : std::string();
  move.failed(why.c_str());
  note_message(why);
  return false;
}

/// Out of line: what migrate_point() does where there is something to do.
[[gnu::noinline, gnu::cold]] int come_to_point() {
  try {
    Block* const block = own_block();
    const std::uint32_t request =
        block == nullptr ? 0 : block->point.load(std::memory_order_acquire);
    return request != 0 && wait_with_hooks(*block, request) ? 1 : 0;
  } catch (const std::exception&) {  // No other: a thread that is cancelled in a hook goes by one.
    note_message("no memory");
  }
  return 0;
}

}  // namespace

Answer ask_about_self(const migrate_options& options, const std::string& members) {
  Block* const block = own_block();
  if (block == nullptr) {
    return answer_of(MIGRATE_ERROR,
                     "there is no place in the program's memory for what it asks; move it from "
                     "outside (migratectl move)");
  }
  return Asking(options, members, *block).ask();
}

}  // namespace migrate::client

using namespace migrate::client;  // the functions below are C's

extern "C" int(migrate_point)(void) {  // Not what the header makes of its name.
  const std::uint32_t* const word = __atomic_load_n(&migrate_point_word, __ATOMIC_ACQUIRE);
  return __atomic_load_n(word, __ATOMIC_RELAXED) == 0 ? 0 : come_to_point();
}

extern "C" int migrate_hold(void) {
  auto* const block = own_block();
  if (block == nullptr) {
    note_message("hold the program: there is no place in its memory to say so");
    return MIGRATE_ERROR;
  }
  block->holds.fetch_add(1, std::memory_order_acq_rel);
  return MIGRATE_DONE;
}

extern "C" int migrate_release(void) {
  auto* const block = own_block();
  std::uint32_t holds = block == nullptr ? 0 : block->holds.load(std::memory_order_acquire);
  while (holds != 0) {
    if (block->holds.compare_exchange_weak(holds, holds - 1, std::memory_order_acq_rel)) {
      return MIGRATE_DONE;
    }
  }
  note_message("release the program: it is not held; call migrate_hold first");
  return MIGRATE_USAGE;
}
