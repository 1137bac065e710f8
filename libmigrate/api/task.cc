// Functions that run elsewhere: a child moves itself, calls the function where it is then, and
// sends what that has written over a pipe, which is relayed home as any stream of a moved process.
//
// The child writes a record of why it was not moved; or kMoved and what the function writes. Both
// end with a number that was drawn before the fork: without it the child has not come to its end.
#include <fcntl.h>
#include <poll.h>
#include <stdio_ext.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "libmigrate/api/connection.h"
#include "libmigrate/api/descriptor.h"
#include "libmigrate/api/hooks.h"
#include "libmigrate/api/move_members.h"
#include "libmigrate/api/result.h"
#include "libmigrate/api/self.h"

using migrate::client::Answer;
using migrate::client::Descriptor;

struct migrate_task {
  pid_t owner = ::getpid();
  pid_t child = 0;
  Descriptor output;   // The end of the pipe that is read.
  Descriptor process;  // Of the child (pidfd); or -1: it ends when the pipe does.
  std::uint64_t end_mark = 0;
  std::string destination;
  std::string received;
  bool is_at_end = false;  // Of the pipe.
  bool is_reaped = false;
  std::optional<Answer> answer;
};

namespace migrate::client {
namespace {

constexpr char kMoved = 'M';
constexpr char kNotMoved = 'N';
constexpr int kBroken = 1;  // Exit status of a child that could not even say why.
/// For so long the end of a process is waited for whose function has returned.
constexpr double kEndSeconds = 2;

/// Before the message and the JSON of what was not moved.
struct NotMoved {
  std::int32_t status;
  std::uint32_t message_bytes;
};

Answer task_failed(const std::string& what) {
  return answer_of(MIGRATE_ERROR, what + ": " + std::generic_category().message(errno));
}

bool write_all(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor, bytes.data(), bytes.size());
    if (count < 0 && errno != EINTR) {
      return false;
    }
    bytes.remove_prefix(count > 0 ? static_cast<std::size_t>(count) : 0);
  }
  return true;
}

template <class Value>
std::string_view bytes_of(const Value& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string record_of(const Answer& answer) {
  // A time limit of the move is none of migrate_task_wait()'s.
  const NotMoved head{answer.status == MIGRATE_TIMEOUT ? MIGRATE_FAILED : answer.status,
                      static_cast<std::uint32_t>(answer.message.size())};
  return kNotMoved + std::string(bytes_of(head)) + answer.message + answer.json;
}

Answer not_moved(std::string_view record) {
  NotMoved head{};
  if (record.size() < sizeof head) {
    return answer_of(MIGRATE_ERROR, "the child has said nothing");
  }
  std::memcpy(&head, record.data(), sizeof head);
  record.remove_prefix(sizeof head);
  Answer answer = answer_of(head.status, std::string(record.substr(0, head.message_bytes)));
  answer.json = record.substr(answer.message.size());
  return answer;
}

/// What is to be called, and where.
struct Call {
  void (*function)(int output, void* data);
  void* data;
  const migrate_options& options;
  const std::string& members;
  std::uint64_t end_mark;
};

/// Closes all descriptors but the first three and this one.
void close_others(int kept) {
  constexpr int kFirst = STDERR_FILENO + 1;
  if (kept > kFirst) {
    ::syscall(SYS_close_range, kFirst, kept - 1, 0);
  }
  ::syscall(SYS_close_range, kept < kFirst ? kFirst : kept + 1, ~0U, 0);
}

/// In the child.
int run(const Call& call, int output) {
  close_others(output);
  ::__fpurge(stdout);
  forget_hooks();
  const Answer moved = ask_about_self(call.options, call.members);
  if (moved.status != MIGRATE_DONE) {
    return write_all(output, record_of(moved) + std::string(bytes_of(call.end_mark))) ? 0 : kBroken;
  }
  if (!write_all(output, {&kMoved, 1})) {
    return kBroken;
  }
  call.function(output, call.data);
  (void)std::fflush(stdout);
  return write_all(output, bytes_of(call.end_mark)) ? 0 : kBroken;
}

[[noreturn]] void run_child(const Call& call, int output) {
  int status = kBroken;
  try {
    status = run(call, output);
  } catch (const std::bad_alloc&) {  // Ours, or of what was to say what was thrown.
  }
  ::_exit(status);
}

int open_process(pid_t pid) {
  return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));  // Has FD_CLOEXEC.
}

/// The same as none of the first three, which a child keeps, where the program has closed them.
Descriptor beside_the_first(Descriptor made) {
  constexpr int kFirst = STDERR_FILENO + 1;
  return made.get() < 0 || made.get() >= kFirst
             ? std::move(made)
             : Descriptor(::fcntl(made.get(), F_DUPFD_CLOEXEC, kFirst));
}

Answer begin(const Call& call, const char* destination, migrate_task** task) {
  auto made = std::make_unique<migrate_task>();
  std::array<int, 2> ends = {-1, -1};
  const bool is_made = ::pipe2(ends.data(), O_CLOEXEC) == 0;
  made->output = beside_the_first(Descriptor(ends[0]));
  const Descriptor written = beside_the_first(Descriptor(ends[1]));
  if (!is_made || made->output.get() < 0 || written.get() < 0 ||
      ::fcntl(made->output.get(), F_SETFL, O_NONBLOCK) != 0) {
    return task_failed("make a pipe for a task");
  }
  made->end_mark = call.end_mark;
  made->destination = destination;
  made->child = ::fork();
  if (made->child < 0) {
    return task_failed("fork for a task");
  }
  if (made->child == 0) {
    run_child(call, written.get());
  }
  made->process = beside_the_first(Descriptor(open_process(made->child)));
  if (made->process.get() < 0 && errno != ESRCH) {  // That it is over is no mistake.
    Answer failed = task_failed("follow a task");
    ::kill(made->child, SIGKILL);
    ::waitpid(made->child, nullptr, 0);
    return failed;
  }
  *task = made.release();
  return answer_of(MIGRATE_DONE, {});
}

/// Takes what has come.
void take(migrate_task& task) {
  std::array<char, 65536> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init): it is filled
  while (!task.is_at_end) {
    const ssize_t count = ::read(task.output.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0 && errno == EAGAIN) {
      return;
    }
    task.is_at_end = count <= 0;
    if (count > 0) {
      task.received.append(buffer.data(), static_cast<std::size_t>(count));
    }
  }
}

bool is_whole(const migrate_task& task) {
  return task.received.size() > sizeof task.end_mark &&
         task.received.ends_with(bytes_of(task.end_mark));
}

/// Whether the child has ended. Waits so long for it.
bool has_ended(const migrate_task& task, int milliseconds) {
  pollfd polled{task.process.get(), POLLIN, 0};
  return task.process.get() < 0 ? task.is_at_end : ::poll(&polled, 1, milliseconds) > 0;
}

/// How it has ended, as waitpid gives it. Nothing: somebody else has waited for it.
std::optional<int> reap(migrate_task& task) {
  task.is_reaped = true;
  siginfo_t ended = {};
  int waited = -1;
  do {
    waited = task.process.get() < 0
                 ? -1
                 : ::waitid(P_PIDFD, static_cast<id_t>(task.process.get()), &ended, WEXITED);
  } while (waited < 0 && errno == EINTR && task.process.get() >= 0);
  if (waited < 0) {
    return std::nullopt;
  }
  constexpr int kCore = 0x80;
  return ended.si_code == CLD_EXITED ? ended.si_status << 8
                                     : ended.si_status | (ended.si_code == CLD_DUMPED ? kCore : 0);
}

Answer lost(const migrate_task& task, std::optional<int> status) {
  const bool is_begun = task.received.starts_with(kMoved);
  std::string how = "its process has ended";
  if (status && WIFSIGNALED(*status)) {
    how += " by signal " + std::to_string(WTERMSIG(*status));
  } else if (status) {
    how += " with exit status " + std::to_string(WEXITSTATUS(*status));
  }
  Answer answer = is_begun
                      ? answer_of(MIGRATE_LOST, "the function was begun at " + task.destination +
                                                    " and has not returned: " + how)
                      : answer_of(MIGRATE_LOST, "whether the function was begun at " +
                                                    task.destination + " is not known: " + how);
  if (status) {
    answer.json = "{\"exit_status\":" + std::to_string(*status) + "}";
  }
  return answer;
}

/// The answer, if all of it has come.
void settle(migrate_task& task) {
  if (task.answer) {
    return;
  }
  const bool is_over = has_ended(task, 0);
  take(task);
  if (is_whole(task)) {
    const bool is_moved = task.received.front() == kMoved;
    if (has_ended(task, static_cast<int>(kEndSeconds * 1000))) {
      (void)reap(task);
    }
    task.received.resize(task.received.size() - sizeof task.end_mark);
    task.answer = is_moved ? answer_of(MIGRATE_DONE, {})
                           : not_moved(std::string_view(task.received).substr(1));
  } else if (is_over) {
    task.answer = lost(task, reap(task));
  }
}

TimeLimit limit_of(double seconds) {
  constexpr double kNow = 1e-9;
  return seconds < 0 ? TimeLimit() : TimeLimit(seconds > 0 ? seconds : kNow);
}

/// Waits until one is settled. Nothing: the time is over.
std::optional<std::size_t> await_any(std::span<migrate_task* const> tasks, double seconds) {
  const TimeLimit limit = limit_of(seconds);
  std::vector<pollfd> polled;
  for (;;) {
    polled.clear();
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      settle(*tasks[i]);
      if (tasks[i]->answer) {
        return i;
      }
      polled.push_back({tasks[i]->is_at_end ? -1 : tasks[i]->output.get(), POLLIN, 0});
      polled.push_back({tasks[i]->process.get(), POLLIN, 0});
    }
    if (limit.is_over()) {
      return std::nullopt;
    }
    ::poll(polled.data(), polled.size(), limit.left_ms());
  }
}

bool is_own(const migrate_task* task) {
  return task != nullptr && task->owner == ::getpid();
}

Answer wait_for_task(migrate_task* task, double seconds) {
  if (!is_own(task)) {
    return answer_of(MIGRATE_USAGE, "a task is waited for by the process that has begun it");
  }
  return await_any({&task, 1}, seconds) ? *task->answer
                                        : answer_of(MIGRATE_TIMEOUT,
                                                    "the function has not yet "
                                                    "returned");
}

}  // namespace
}  // namespace migrate::client

using namespace migrate::client;  // the functions below are C's

extern "C" int migrate_spawn(const char* destination, void (*function)(int output, void* data),
                             void* data, const struct migrate_options* options, migrate_task** task,
                             migrate_result** result) {
  return guarded(result, [&]() -> Answer {
    if (function == nullptr || task == nullptr) {
      return answer_of(MIGRATE_USAGE, "a task needs a function, and where it is to be put");
    }
    *task = nullptr;
    Options given = read_options(options);
    if (given.wrong) {
      return *std::move(given.wrong);
    }
    given.chosen.mode = or_default(given.chosen.mode, "demand");
    std::string members;
    if (auto wrong = move_members(given.chosen, destination, "resumed", members)) {
      return *std::move(wrong);
    }
    members += ",\"ships_unknown\":true";
    std::uint64_t end_mark = 0;
    if (::getrandom(&end_mark, sizeof end_mark, 0) != sizeof end_mark) {
      return task_failed("draw a random number");
    }
    return begin({function, data, given.chosen, members, end_mark}, destination, task);
  });
}

extern "C" int migrate_task_wait(migrate_task* task, double seconds, migrate_result** result) {
  return guarded(result, [&] { return wait_for_task(task, seconds); });
}

extern "C" int migrate_task_wait_any(migrate_task* const* tasks, size_t count, double seconds,
                                     size_t* index) {
  return guarded(nullptr, [&]() -> Answer {
    const std::span all(tasks, tasks == nullptr ? 0 : count);
    if (all.empty() || index == nullptr || !std::ranges::all_of(all, is_own)) {
      return answer_of(MIGRATE_USAGE, "wait for tasks: give some, of this process");
    }
    const auto settled = await_any(all, seconds);
    *index = settled.value_or(0);
    return settled ? answer_of(MIGRATE_DONE, {})
                   : answer_of(MIGRATE_TIMEOUT, "no function has returned yet");
  });
}

extern "C" const void* migrate_task_output(const migrate_task* task, size_t* bytes) {
  const bool is_done = task != nullptr && task->answer && task->answer->status == MIGRATE_DONE;
  if (bytes != nullptr) {
    *bytes = is_done ? task->received.size() - 1 : 0;
  }
  return is_done ? task->received.data() + 1 : nullptr;
}

extern "C" pid_t migrate_task_pid(const migrate_task* task) {
  return task == nullptr ? -1 : task->child;
}

extern "C" void migrate_task_free(migrate_task* task) {
  if (is_own(task) && !task->is_reaped && task->process.get() >= 0) {
    ::syscall(SYS_pidfd_send_signal, task->process.get(), SIGKILL, nullptr, 0);
    (void)reap(*task);
  }
  delete task;
}
