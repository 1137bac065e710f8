#include "tools/migratectl/run.h"

#include <fmt/core.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <future>
#include <optional>
#include <thread>
#include <utility>

#include "libmigrate/migrate.h"
#include "libmigrate/requests/request_json.h"
#include "tools/migratectl/connection.h"
#include "tools/migratectl/first_instruction.h"
#include "tools/migratectl/print.h"
#include "tools/migratectl/progress.h"

namespace migrate {
namespace {

using nlohmann::json;

// As env(1), nohup(1) and timeout(1) have these.
constexpr int kNotExecutable = 126;
constexpr int kNoProgram = 127;

std::atomic<pid_t> program = 0;

/// What is meant for the program, but was sent to us.
void hand_on(int signal) {
  if (const pid_t pid = program; pid > 0) {
    ::kill(pid, signal);
  }
}

/// What ends us ends a program, too, that was not to run.
void end_with_program(int signal) {
  if (const pid_t pid = program; pid > 0) {
    ::kill(pid, SIGKILL);
  }
  (void)std::signal(signal, SIG_DFL);
  ::raise(signal);
}

/// Holds back what would end us while nobody sees to the program.
class SignalsHeld {
 public:
  SignalsHeld() {
    sigset_t ends;
    sigemptyset(&ends);
    for (const int each : {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2}) {
      sigaddset(&ends, each);
    }
    ::sigprocmask(SIG_BLOCK, &ends, &before_);
  }
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;
  ~SignalsHeld() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }
  const sigset_t& before() const { return before_; }

 private:
  sigset_t before_{};
};

/// From here on the program gets what a terminal sends to both by itself, and all else from us.
void take_signals_for_program() {
  (void)std::signal(SIGINT, SIG_IGN);
  (void)std::signal(SIGQUIT, SIG_IGN);
  for (const int each : {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2}) {
    (void)std::signal(each, hand_on);
  }
}

void end_program_with_us() {
  for (const int each : {SIGINT, SIGQUIT, SIGTERM, SIGHUP}) {
    if (std::signal(each, end_with_program) == SIG_IGN) {
      (void)std::signal(each, SIG_IGN);
    }
  }
}

/// Starts it; `take_signals` sees to what comes from then on.
Result<StartedProgram> start_program(const std::vector<std::string>& command,
                                     void (*take_signals)()) {
  const SignalsHeld held;
  StartedProgram started = MIGRATE_TRY(start_stopped(command, held.before()));
  program = started.pid;
  take_signals();
  return started;
}

json error_json(const Error& error) {
  return {{"exit", MIGRATE_ERROR},
          {"error", {{"code", to_string(error.code)}, {"message", error.message()}}}};
}

/// What came of a program that was to run there.
struct Start {
  std::optional<json> why_not;  // it runs nowhere
  bool is_here = false;         // that is this host: it is stopped still
};

/// Asks the daemon, and hears it to the end, in a thread of its own.
class Asking {
 public:
  Asking(const RunOptions& options, json request)
      : options_(options), request_(std::move(request)), thread_([this] { ask(); }) {}
  Asking(const Asking&) = delete;
  Asking& operator=(const Asking&) = delete;
  ~Asking() { thread_.join(); }

  /// Until it runs there, or was not moved.
  Start await_start() { return started_.get_future().get(); }
  /// The last word.
  json result() { return ended_.get_future().get(); }

 private:
  void ask() {
    const json result = hear();
    if (!std::exchange(told_, true)) {
      const bool done = static_cast<int>(number_of(result, "exit")) == MIGRATE_DONE;
      started_.set_value({.why_not = done ? std::nullopt : std::optional(result),
                          .is_here = done && text_of(result, "state") == "already there"});
    }
    ended_.set_value(result);
  }

  json hear() {
    auto connection = DaemonConnection::open(options_.socket, DaemonConnection::Signals::kOfOthers);
    if (!connection) {
      return error_json(connection.error());
    }
    if (auto sent = connection->send(request_); !sent) {
      return error_json(sent.error());
    }
    Progress progress(Progress::Style::kSilent);
    json refusals;
    for (;;) {
      auto event = connection->next_event();
      if (!event) {
        return error_json(event.error());
      }
      json& said = **event;
      if (text_of(said, "event") == "result") {
        if (!refusals.is_null() && !said.contains("refusals")) {
          said["refusals"] = refusals;
        }
        return said;
      }
      if (text_of(said, "event") == "refused") {
        refusals = said.value("refusals", json::array());
      }
      progress.show(said);
      if (text_of(said, "phase") == "run" && !std::exchange(told_, true)) {
        started_.set_value({});
      }
    }
  }

  const RunOptions& options_;
  const json request_;
  bool told_ = false;  // of the thread
  std::promise<Start> started_;
  std::promise<json> ended_;
  std::thread thread_;  // the last, which uses the others
};

int complain(const Error& error) {
  fmt::print(stderr, "migratectl: {}\n", error.message());
  return error.code == ErrorCode::kNotFound  ? kNoProgram
         : error.code == ErrorCode::kRefused ? kNotStarted
                                             : kNotExecutable;
}

void tell_why(const json& result) {
  const json refusals = result.value("refusals", json::array());
  if (refusals.is_array() && !refusals.empty()) {
    fmt::print(stderr, "migratectl: it was not started\n{}", not_movable_text(refusals));
  } else {
    fmt::print(stderr, "migratectl: it was not started: {}\n", error_text(result));
  }
}

int await_end(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  program = 0;
  return status;
}

/// As the program has ended.
int end_as(int status) {
  if (!WIFSIGNALED(status)) {
    return WEXITSTATUS(status);
  }
  const int signal = WTERMSIG(status);
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  (void)std::signal(signal, SIG_DFL);
  ::raise(signal);
  return 128 + signal;  // As a shell says it, if that signal ends nothing.
}

}  // namespace

int run_elsewhere(const RunOptions& options, MoveRequest move) {
  auto started = start_program(options.command, take_signals_for_program);
  if (!started) {
    return complain(started.error());
  }
  const pid_t pid = started->pid;
  move.starts = true;
  move.wait = options.report.empty() ? MoveWait::kResumed : MoveWait::kExit;
  json request = request_for(move);
  name_process(request, {.id = std::to_string(pid)});
  Asking asking(options, std::move(request));
  const Start start = asking.await_start();
  if (start.why_not) {
    ::kill(pid, SIGKILL);
    await_end(pid);
    tell_why(*start.why_not);
    return kNotStarted;
  }
  started->guard.let_go();
  if (start.is_here) {
    if (!options.report.empty()) {
      fmt::print(stderr, "migratectl: it runs here: {} is this host\n", move.destination);
    }
    ::kill(pid, SIGCONT);  // Nobody else ends its stop.
  }
  const int status = await_end(pid);
  if (!options.report.empty()) {
    json result = asking.result();
    result.erase("event");
    if (start.is_here) {
      result["exit_status"] = status;
    }
    std::ofstream(options.report) << result.dump() << '\n';
  }
  return end_as(status);
}

Result<json> inspect_program(const RunOptions& options, CheckRequest check) {
  auto begun = start_program(options.command, end_program_with_us);
  if (!begun && begun.error().code == ErrorCode::kNotFound) {
    begun.error().remedy =
        "give a command or a pid of this host; of a process that was moved, `migratectl show ID` "
        "tells";
  }
  const StartedProgram started = MIGRATE_TRY(std::move(begun));
  const pid_t pid = started.pid;
  check.starts = true;
  json request = request_for(check);
  name_process(request, {.id = std::to_string(pid)});
  json result;
  {
    Asking asking(options, std::move(request));
    result = asking.result();
  }
  ::kill(pid, SIGKILL);
  await_end(pid);
  return result;
}

}  // namespace migrate
