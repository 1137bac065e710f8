// migratectl: asks the daemon of this host to check, move, list and wait for processes.
#include <fmt/core.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libmigrate/migrate.h"
#include "libmigrate/requests/policy_file.h"
#include "libmigrate/requests/request_json.h"
#include "libmigrate/requests/status_words.h"
#include "libmigrate/requests/words.h"
#include "tools/manual/describe.h"
#include "tools/migratectl/balance.h"
#include "tools/migratectl/connection.h"
#include "tools/migratectl/inspect_words.h"
#include "tools/migratectl/keys.h"
#include "tools/migratectl/number_limits.h"
#include "tools/migratectl/print.h"
#include "tools/migratectl/progress.h"
#include "tools/migratectl/run.h"

namespace migrate {
namespace {

using nlohmann::json;

constexpr double kMostSeconds = 1e6;  // Nobody waits for longer,
constexpr double kMostSampleSeconds = 60;
constexpr double kMostRounds = 1000;
constexpr double kMostMib = 1e6;  // and no network is faster.

struct Options {
  std::string socket;
  bool json = false;
  std::string target;
  std::string destination;
  std::vector<std::string> destinations;
  std::uint32_t count = 0;
  std::string mode{MoveRequest().plan.word};
  std::string transport{to_string(MoveRequest().transport)};
  std::string wait{to_string(MoveRequest().wait)};
  std::string wait_for{word_for(WaitRequest().wait_for, kWaitWords)};
  std::string network{word_for(MoveRequest().network, kNetworkWords)};
  double retry_seconds = 0;
  std::optional<double> bandwidth_mib;
  double deadline_seconds = 0;
  bool strict = false;
  bool links = false;
  RoundLimits rounds;
  std::string wish{word_for(ModeWish().best, kWishes)};
  double sample_seconds = std::chrono::duration<double>(ModeWish().sample).count();
  double downtime_us = static_cast<double>(RoundLimits().downtime.count());
  bool at_point = false;
  double point_seconds = 60;
  bool resume_source = false;
  bool give_up = false;
  bool yes = false;
  std::string policy_file;
  std::vector<std::string> program;
  std::string report;
  std::string command;
  KeysOptions keys;
  BalanceOptions balance;
};

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

/// What of it travels, and to which network it belongs then.
void add_policy_and_network(CLI::App& command, Options& options) {
  command
      .add_option("--policy", options.policy_file,
                  "TOML file of rules: which of its memory and files is sent, when, and what is "
                  "taken from the destination's own; within what its host allows")
      ->type_name("FILE");
  command
      .add_option(
          "--network", options.network,
          "From where it connects to others from then on: its home, or the place where it is")
      ->check(CLI::IsMember(words_in(kNetworkWords)));
}

/// What mode auto goes by.
void add_wish(CLI::App& command, Options& options) {
  command
      .add_option("--wish", options.wish,
                  "Mode auto: what is to be best: the shortest stop, the shortest time in which it "
                  "needs both hosts (exposure), or the fewest bytes")
      ->check(CLI::IsMember(words_in(kWishes)));
  command
      .add_option("--sample", options.sample_seconds,
                  "The same: for so many seconds it is watched first how much of its memory it "
                  "writes, while it runs (default: 0.2)")
      ->check(up_to(kMostSampleSeconds, "seconds"));
}

void add_fork(CLI::App& app, Options& options) {
  CLI::App* fork =
      app.add_subcommand("fork", "Copy a process that runs on, and run the copies on other hosts");
  fork->add_option("PID", options.target, "Pid on this host")->required();
  fork->add_option("--to", options.destinations,
                   "HOST[:PORT],... to run them on, one after the other, over and over")
      ->required()
      ->delimiter(',')
      ->type_name("HOST");
  fork->add_option("--count", options.count, "How many copies (default: one for each host)")
      ->check(up_to(ForkRequest::kMost, "copies"));
  fork->add_option("--mode", options.mode, "How their memory follows")
      ->check(CLI::IsMember(mode_words()));
  fork->add_flag("--strict", options.strict,
                 "Refuse what would lose something that a move does not carry");
  add_policy_and_network(*fork, options);
}

/// inspect and run.
void add_programs(CLI::App& app, Options& options) {
  CLI::App* inspect = app.add_subcommand(
      "inspect", "Show what a program or process consists of, and what would be sent of it");
  inspect
      ->add_option("PROGRAM", options.program,
                   "Pid, or a command, which is started and ended before its first instruction")
      ->required()
      ->type_name("CMD");
  inspect->add_option("--to", options.destination, "HOST[:PORT] that it would move to")
      ->type_name("HOST");
  inspect->add_option("--mode", options.mode, "In which mode it would move")
      ->check(CLI::IsMember(mode_words()));
  add_policy_and_network(*inspect, options);
  inspect->positionals_at_end();

  CLI::App* run = app.add_subcommand(
      "run", "Run a command on another host, where it need not be installed; ends as that ends");
  run->add_option("--on", options.destination, "HOST[:PORT] to run it on")
      ->required()
      ->type_name("HOST");
  run->add_option("CMD", options.program, "The command and its arguments")
      ->required()
      ->type_name("CMD");
  run->add_option("--mode", options.mode, "How its memory follows")
      ->check(CLI::IsMember(mode_words()));
  run->add_option("--report", options.report, "Write what it came to into this file, as JSON")
      ->type_name("FILE");
  add_policy_and_network(*run, options);
  run->positionals_at_end();
}

/// check and move.
void add_moving(CLI::App& app, Options& options) {
  const char* target_help = "Pid on this host, or id of a process that was moved";
  CLI::App* check = app.add_subcommand("check", "Tell whether a process can be moved");
  check->add_option("PID", options.target, target_help)->required();
  check->add_option("--to", options.destination, "HOST[:PORT] that it would move to")
      ->type_name("HOST");
  const char* strict_help = "Refuse what would lose something that a move does not carry";
  check->add_flag("--strict", options.strict, strict_help);
  check->add_flag("--links", options.links, "List its links to others, and how each will go");
  check->add_option("--mode", options.mode, "In which mode it would move")
      ->check(CLI::IsMember(mode_words()));

  add_wish(*check, options);
  add_policy_and_network(*check, options);

  CLI::App* move = app.add_subcommand("move", "Move a running process to another host");
  move->add_option("PID", options.target, target_help)->required();
  move->add_option("HOST,--to", options.destination, "HOST[:PORT] to move it to")->required();
  move->add_option("--mode", options.mode, "How its memory follows")
      ->check(CLI::IsMember(mode_words()));
  std::string transports;
  for (const PageTransport* const each : page_transports()) {
    transports += (transports.empty() ? "" : " or ") + std::string(each->name);
  }
  move->add_option("--transport", options.transport,
                   "How its pages travel; auto: over " + transports + " where both hosts have it")
      ->check(CLI::IsMember(page_transport_words()));
  move->add_option("--wait", options.wait,
                   "Return when it runs there, nothing is owed any more, or it has ended")
      ->check(CLI::IsMember(move_wait_words()));
  move->add_option("--retry", options.retry_seconds,
                   "Seconds to wait for transient reasons against the move to pass")
      ->check(up_to(kMostSeconds, "seconds"));
  move->add_flag("--strict", options.strict, strict_help);
  add_policy_and_network(*move, options);

  move->add_option("--bandwidth", options.bandwidth_mib,
                   "MiB a second of its memory that are pushed (default: the daemon's setting; 0: "
                   "as fast as can be)")
      ->check(up_to(kMostMib, "MiB a second"));
  move->add_option(
          "--deadline", options.deadline_seconds,
          "Seconds after which its source is to owe nothing: pushes faster than the "
          "bandwidth, and in mode demand too, as far as that needs; says so if it is missed")
      ->check(up_to(kMostSeconds, "seconds"));
  move->add_option("--rounds", options.rounds.most,
                   "Modes precopy and hybrid: the most rounds in which it is sent while it runs "
                   "(default: 5)")
      ->check(up_to(kMostRounds, "rounds"));
  move->add_option(
          "--downtime", options.downtime_us,
          "The same: no further round when what is left can be sent in so many microseconds "
          "(default: 10000)")
      ->check(up_to(kMostSeconds, "microseconds"));
  add_wish(*move, options);
  move->add_flag("--at-point", options.at_point,
                 "Move it where the program says that it may be (migrate_point)");
  move->add_option("--point-wait", options.point_seconds,
                   "Seconds that the program may take to come there, which one with hooks does in "
                   "any case, and for its hooks (default: 60)")
      ->check(up_to(kMostSeconds, "seconds"));
}

void add_options(CLI::App& app, Options& options) {
  const char* from_environment = std::getenv("MIGRATE_SOCKET");
  options.socket = from_environment != nullptr ? from_environment : "/run/migrate/migrated.sock";
  app.add_option("--socket", options.socket, "Socket of this host's daemon (or MIGRATE_SOCKET)")
      ->type_name("FILE");
  app.add_flag("--json", options.json, "Print one JSON object (balance: one a line)");
  app.set_version_flag("--version", MIGRATE_VERSION);
  app.require_subcommand(1);
  app.fallthrough();

  add_moving(app, options);
  add_programs(app, options);
  add_fork(app, options);
  app.add_subcommand("ps", "List the processes that came here or went away");
  CLI::App* show = app.add_subcommand("show", "Show everything about one of them");
  show->add_option("ID", options.target, "Id, its beginning, or a pid")->required();
  CLI::App* wait = app.add_subcommand("wait", "Wait for one of them");
  wait->add_option("ID", options.target, "Id, its beginning, or a pid")->required();
  wait->add_option("--for", options.wait_for,
                   "Until nothing is owed any more, or it has ended: then with its exit status")
      ->check(CLI::IsMember(wait_for_words()));
  CLI::App* resolve = app.add_subcommand(
      "resolve", "Decide about a process whose move is in doubt, or whose host is lost for good");
  resolve->add_option("ID", options.target, "Id, its beginning, or a pid")->required();
  CLI::Option* resume = resolve->add_flag(
      "--resume-source", options.resume_source,
      "It never ran at the destination: let it run on here (wrong: it runs twice)");
  CLI::Option* give_up =
      resolve->add_flag("--give-up", options.give_up,
                        "It is lost: end what is left of it here (wrong: it loses its memory)");
  resume->excludes(give_up);
  resolve->add_flag("--yes", options.yes, "Do not ask");
  app.add_subcommand("hosts", "List this host and the hosts that it knows");
  app.add_subcommand("ping", "Tell whether the daemon answers");
  add_keys(app, options.keys);
  add_balance(app, options.balance);
  let_describe(app, {{"exit_statuses", exit_statuses()}});
}

Result<PolicyRules> policy_of(const Options& options) {
  return options.policy_file.empty() ? Result<PolicyRules>(PolicyRules())
                                     : read_policy(options.policy_file);
}

std::chrono::milliseconds milliseconds(double seconds) {
  constexpr double kMillisecondsPerSecond = 1000;
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * kMillisecondsPerSecond));
}

Result<ModeWish> wish_of(const Options& options) {
  return ModeWish{.best = MIGRATE_TRY(value_of(options.wish, "--wish", kWishes)),
                  .sample = milliseconds(options.sample_seconds)};
}

Result<CheckRequest> check_request_of(const Options& options) {
  CheckRequest check;
  check.destination = options.destination;
  check.strict = options.strict;
  check.plan = MIGRATE_TRY(parse_mode(options.mode));
  check.wish = MIGRATE_TRY(wish_of(options));
  check.policy = MIGRATE_TRY(policy_of(options));
  check.network = MIGRATE_TRY(value_of(options.network, "network", kNetworkWords));
  check.detail = options.command == "inspect" ? Detail::kFiles
                 : options.links              ? Detail::kLinks
                                              : Detail::kRules;
  return check;
}

Result<MoveRequest> run_request_of(const Options& options) {
  MoveRequest move;
  move.destination = options.destination;
  move.plan = MIGRATE_TRY(parse_mode(options.mode));
  move.policy = MIGRATE_TRY(policy_of(options));
  move.network = MIGRATE_TRY(value_of(options.network, "network", kNetworkWords));
  return move;
}

Result<json> move_request_of(const Options& options) {
  constexpr double kBytesPerMib = 1024 * 1024;
  MoveRequest move;
  move.destination = options.destination;
  move.plan = MIGRATE_TRY(parse_mode(options.mode));
  move.transport = MIGRATE_TRY(parse_page_transport(options.transport));
  move.wait = MIGRATE_TRY(parse_move_wait(options.wait));
  move.retry_seconds = options.retry_seconds;
  move.strict = options.strict;
  if (options.bandwidth_mib) {
    move.push.bytes_per_second = static_cast<std::uint64_t>(*options.bandwidth_mib * kBytesPerMib);
  }
  move.push.deadline = milliseconds(options.deadline_seconds);
  move.rounds = options.rounds;
  move.rounds.downtime = std::chrono::microseconds(static_cast<std::int64_t>(options.downtime_us));
  if (options.at_point) {
    move.point_wait = milliseconds(options.point_seconds);
  }
  move.hook_wait = milliseconds(options.point_seconds);
  move.wish = MIGRATE_TRY(wish_of(options));
  move.network = MIGRATE_TRY(value_of(options.network, "network", kNetworkWords));
  move.policy = MIGRATE_TRY(policy_of(options));
  return request_for(move);
}

Result<ForkRequest> fork_request_of(const Options& options) {
  ForkRequest fork{options.destinations, options.count, MIGRATE_TRY(run_request_of(options))};
  fork.move.strict = options.strict;
  return fork;
}

Result<json> request_of(const Options& options) {
  json request = {{"command", options.command}};  // What follows is for those with members.
  if (options.command == MoveRequest::kWord) {
    request = MIGRATE_TRY(move_request_of(options));
  } else if (options.command == CheckRequest::kWord || options.command == "inspect") {
    request = request_for(MIGRATE_TRY(check_request_of(options)));
  } else if (options.command == ForkRequest::kWord) {
    request = request_for(MIGRATE_TRY(fork_request_of(options)));
  } else if (options.command == WaitRequest::kWord) {
    request = request_for(WaitRequest{MIGRATE_TRY(parse_wait_for(options.wait_for))});
  } else if (options.command == ResolveRequest::kWord) {
    request = request_for(
        ResolveRequest{options.resume_source ? Resolution::kResumeSource : Resolution::kGiveUp});
  }
  name_process(request, {.id = options.target});
  return request;
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
    const bool says_all =
        exit_code == MIGRATE_ERROR || exit_code == MIGRATE_USAGE || options.command == "wait";
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
  } else {
    fmt::print("migrated answers (pid {})\n", text_of(result, "pid"));
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

int run(const Options& options) {
  if (options.command == "resolve") {
    if (options.resume_source == options.give_up) {
      return report_error(options, MIGRATE_USAGE, "usage", "give --resume-source or --give-up");
    }
    if (!confirmed(options)) {
      return report_error(options, MIGRATE_USAGE, "usage",
                          "nothing was done: say yes on a terminal, or give --yes");
    }
  }
  Result<DaemonConnection> connection =
      DaemonConnection::open(options.socket, DaemonConnection::Signals::kOfEvents);
  if (!connection) {
    return report_error(options, connection.error(), MIGRATE_ERROR);
  }
  const Result<json> request = request_of(options);
  if (!request) {
    return report_error(options, request.error(), MIGRATE_USAGE);
  }
  if (const Result<void> sent = connection->send(*request); !sent) {
    return report_error(options, sent.error(), MIGRATE_ERROR);
  }
  const bool terminal = isatty(STDOUT_FILENO) == 1;
  const bool is_move = options.command == "move";
  Progress progress(options.json || !is_move ? Progress::Style::kSilent
                    : terminal               ? Progress::Style::kTerminal
                                             : Progress::Style::kLines);
  json refusals;
  for (int interrupts = 0;;) {
    Result<std::optional<json>> event = connection->next_event();
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
    progress.show(**event);
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
  if (options.command == "inspect") {
    options.target = options.program.front();
  }
  return options.command == "keys" ? run_keys(app, options.keys) : run(options);
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
