// migratectl: asks the daemon of this host to check, move, list and wait for processes.
#include <fmt/core.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "libmigrate/migrate.h"
#include "libmigrate/requests/request_json.h"
#include "libmigrate/requests/status_words.h"
#include "tools/migratectl/balance.h"
#include "tools/migratectl/connection.h"
#include "tools/migratectl/drain.h"
#include "tools/migratectl/inspect_words.h"
#include "tools/migratectl/keys.h"
#include "tools/migratectl/options.h"
#include "tools/migratectl/print.h"
#include "tools/migratectl/progress.h"
#include "tools/migratectl/run.h"

namespace migrate {
namespace {

using nlohmann::json;

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

int report_error(const Options& options, int exit_code, const std::string& code,
                 const std::string& message) {
  if (options.json) {
    fmt::print("{}\n", dump({{"error", {{"code", code}, {"message", message}}}}));
  } else {
    fmt::print(stderr, "migratectl: {}\n", message);
  }
  return exit_code;
}

int report_error(const Options& options, const Error& error, int exit_code) {
  return report_error(options, exit_code, std::string(to_string(error.code)), error.message());
}

/// The exit code of `wait --for exit`: as a shell gives that of a command.
int shell_status(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

void print_text(const Options& options, const json& result, int exit_code) {
  const json refusals = result.value("refusals", json::array());
  if (options.command == "inspect" && result.contains("files")) {
    fmt::print("{}{}", files_text(result), policy_text(result));
  }
  if (options.command == "fork" && result.contains("processes")) {
    fmt::print("{}", copies_text(result));
  } else if (exit_code == MIGRATE_REFUSED && refusals.is_array() && !refusals.empty()) {
    fmt::print("{}{}{}", not_movable_text(refusals), hooks_text(result), links_text(result));
  } else if (exit_code != MIGRATE_DONE) {
    const std::string error = error_text(result);
    const bool says_all = exit_code == MIGRATE_ERROR || exit_code == MIGRATE_USAGE ||
                          options.command == "wait" || is_identity_command(options.command);
    fmt::print(stderr, "migratectl: {}\n",
               error.empty() ? meaning_of(exit_code)
               : says_all    ? error
                             : fmt::format("{}: {}", meaning_of(exit_code), error));
  } else if (options.command == "check" || options.command == "inspect") {
    fmt::print("movable\n{}{}{}{}{}{}", losses_text(result), notes_text(result), hooks_text(result),
               choice_text(result), policy_text(result), links_text(result));
  } else if (options.command == "move" && text_of(result, "state") == "already there") {
    fmt::print("{} is at {} already\n", options.target, options.destination);
  } else if (options.command == "move") {
    const std::string id = text_of(result, "process").substr(0, 8);
    fmt::print("moved {}{} to {}\n{}", options.target, id.empty() ? "" : " (" + id + ")",
               options.destination, move_text(result));
  } else if (options.command == "ps") {
    fmt::print("{}", fit_to_terminal(processes_text(result.value("processes", json::array()))));
  } else if (options.command == "hosts") {
    fmt::print("{}", hosts_text(result.value("hosts", json::array())));
  } else if (options.command == "show") {
    fmt::print("{}", process_text(result));
  } else if (options.command == "resolve") {
    fmt::print("{}: {}\n", options.target, text_of(result, "resolved"));
  } else if (options.command == "wait") {
    const std::string how = text_of(result, "exit_text");
    fmt::print("{}{}\n", text_of(result, "state"), how.empty() ? "" : " (" + how + ")");
  } else if (is_identity_command(options.command)) {
    fmt::print("{}", identity_text(options.command, result));
  } else if (options.command == "ping") {
    fmt::print("migrated answers (pid {})\n", text_of(result, "pid"));
  } else {
    fmt::print("done\n");
  }
}

/// Prints the result and returns the exit code of this program.
int finish(const Options& options, json result, const json& refusals) {
  int exit_code = static_cast<int>(number_of(result, "exit"));
  if (!result.contains("exit")) {
    exit_code = MIGRATE_ERROR;
  }
  if (!refusals.is_null() && !result.contains("refusals")) {
    result["refusals"] = refusals;
  }
  if (options.json) {
    json object = result;
    object.erase("event");
    object.erase("exit");
    fmt::print("{}\n", dump(object));
  } else {
    print_text(options, result, exit_code);
  }
  if (options.command == "wait" && options.wait_for == "exit" && exit_code == MIGRATE_DONE) {
    return shell_status(static_cast<int>(number_of(result, "exit_status")));
  }
  return exit_code;
}

/// Asks that a move be given up, at the first interrupt; what becomes of that, the result says. At
/// the second, or once the process runs there, nobody waits for it any more.
bool cancels(const Options& options, const Progress& progress, DaemonConnection& connection,
             int interrupts) {
  if (options.command != "move" || progress.committed() || interrupts > 1) {
    return false;
  }
  if (!connection.send(json::parse(kCancel))) {
    return false;
  }
  fmt::print(stderr, "migratectl: cancelling the move; interrupt again to wait no longer\n");
  return true;
}

int interrupted(const Options& options, const Progress& progress) {
  if (options.command != "move") {
    return report_error(options, MIGRATE_ERROR, "interrupted", "interrupted");
  }
  return report_error(
      options, MIGRATE_ERROR, "interrupted",
      progress.committed()
          ? "no longer watching; the process runs at the destination and the move goes on: see "
            "`migratectl ps`"
          : "no longer watching; unless `migratectl ps` lists the process as moving or away, it "
            "was not moved");
}

/// Says what the decision risks, and asks on the terminal.
bool confirmed(const Options& options) {
  fmt::print(
      stderr, "{}",
      options.resume_source
          ? "If the process runs at the destination after all, it will run twice from now on:\n"
            "both copies write to the same files and answer to the same peers. Make sure that\n"
            "the destination host is down, or that `migratectl ps` there does not list it.\n"
          : "What is left of the process on this host will be ended: its memory here is lost,\n"
            "and if it still runs elsewhere it can never get the pages that it lacks.\n");
  if (options.yes) {
    return true;
  }
  fmt::print(stderr, "Type yes to go on: ");
  char answer[16] = {};
  return isatty(STDIN_FILENO) == 1 && std::fgets(answer, sizeof(answer), stdin) != nullptr &&
         std::string_view(answer) == "yes\n";
}

Result<DaemonConnection> ask(const Options& options, const json& request) {
  DaemonConnection connection =
      MIGRATE_TRY(DaemonConnection::open(options.socket, DaemonConnection::Signals::kOfEvents));
  MIGRATE_TRY(connection.send(request));
  return connection;
}

/// Whoever watches goes on when the daemon has been started again.
Result<DaemonConnection> ask_again(const Options& options, const json& request) {
  constexpr std::chrono::seconds kRestartedWithin{60};
  constexpr std::chrono::milliseconds kPause{200};
  const auto deadline = std::chrono::steady_clock::now() + kRestartedWithin;
  for (;;) {
    auto connection = ask(options, request);
    if (connection || std::chrono::steady_clock::now() > deadline) {
      return connection;
    }
    std::this_thread::sleep_for(kPause);
  }
}

void print_watched(const Options& options, const json& event) {
  fmt::print("{}", options.json ? dump(event) + "\n" : watch_text(event));
  std::fflush(stdout);
}

int run(const CLI::App& app, const Options& options) {
  if (options.command == "resolve") {
    if (options.resume_source == options.give_up) {
      return report_error(options, MIGRATE_USAGE, "usage", "give --resume-source or --give-up");
    }
    if (!confirmed(options)) {
      return report_error(options, MIGRATE_USAGE, "usage",
                          "nothing was done: say yes on a terminal, or give --yes");
    }
  }
  const Result<json> request = request_of(app, options);
  if (!request) {
    return report_error(options, request.error(), MIGRATE_USAGE);
  }
  Result<DaemonConnection> connection = ask(options, *request);
  if (!connection) {
    return report_error(options, connection.error(), MIGRATE_ERROR);
  }
  const bool terminal = isatty(STDOUT_FILENO) == 1;
  const bool is_move = options.command == "move";
  Progress progress(options.json || !is_move ? Progress::Style::kSilent
                    : terminal               ? Progress::Style::kTerminal
                                             : Progress::Style::kLines);
  json refusals;
  for (int interrupts = 0;;) {
    Result<std::optional<json>> event = connection->next_event();
    if (!event && options.command == "watch" && (connection = ask_again(options, *request))) {
      continue;
    }
    if (!event) {
      progress.clear();
      return report_error(options, event.error(),
                          progress.committed() ? MIGRATE_LOST : MIGRATE_ERROR);
    }
    if (!*event) {
      progress.clear();
      if (cancels(options, progress, *connection, ++interrupts)) {
        continue;
      }
      return interrupted(options, progress);
    }
    const std::string kind = text_of(**event, "event");
    if (kind == "result") {
      progress.clear();
      if (interrupts > 0 && text_of(**event, "exit") == "0") {
        fmt::print(stderr, "migratectl: it was too late to cancel the move\n");
      }
      return finish(options, **event, refusals);
    }
    if (kind == "refused") {
      refusals = (*event)->value("refusals", json::array());
    }
    if (options.command == "watch") {
      print_watched(options, **event);
    } else {
      progress.show(**event);
    }
  }
}

/// inspect of a command, and run.
int run_program(const Options& options) {
  const RunOptions program{options.socket, options.program, options.report};
  if (options.command == "run") {
    const auto move = run_request_of(options);
    return move ? run_elsewhere(program, *move) : report_error(options, move.error(), kNotStarted);
  }
  const auto check = check_request_of(options);
  if (!check) {
    return report_error(options, check.error(), MIGRATE_USAGE);
  }
  auto result = inspect_program(program, *check);
  return result ? finish(options, *result, {})
                : report_error(options, result.error(), MIGRATE_ERROR);
}

int parse_and_run(int argc, char** argv) {
  CLI::App app("Moves running processes between hosts (libmigrate)");
  Options options;
  add_options(app, options);
  try {
    app.parse(argc, argv);
    if (app.got_subcommand("inspect") && options.program.size() > 1 &&
        is_pid(options.program.front())) {
      app.parse(pid_last(argc, argv, std::string(options.program.front())));
    }
  } catch (const CLI::ParseError& error) {
    for (int i = 1; i < argc; ++i) {
      options.json = options.json || std::string_view(argv[i]) == "--json";
    }
    const int usage = app.got_subcommand("run") ? kNotStarted : MIGRATE_USAGE;
    if (error.get_exit_code() != 0 && options.json) {
      return report_error(options, usage, "usage", error.what());
    }
    return app.exit(error) == 0 ? MIGRATE_DONE : usage;
  }
  options.command = app.get_subcommands().front()->get_name();
  const bool inspects_pid = options.command == "inspect" && options.program.size() == 1 &&
                            is_pid(options.program.front());
  if (options.command == "inspect" && !inspects_pid) {
    if (auto own = check_own_options(options.program, argc, argv); !own) {
      return report_error(options, own.error(), MIGRATE_USAGE);
    }
  }
  if (options.command == "run" || (options.command == "inspect" && !inspects_pid)) {
    return run_program(options);
  }
  if (options.command == "balance") {
    return run_balance(options.balance, options.json);
  }
  if (options.command == "drain" || options.command == "undrain") {
    return run_drain(options.socket, options.drain, options.command == "drain", options.json);
  }
  if (options.command == "inspect") {
    options.target = options.program.front();
  }
  return options.command == "keys" ? run_keys(app, options.keys) : run(app, options);
}

}  // namespace
}  // namespace migrate

int main(int argc, char** argv) {
  try {
    return migrate::parse_and_run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "migratectl: {}\n", error.what());
    return 1;
  }
}
