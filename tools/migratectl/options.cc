#include "tools/migratectl/options.h"

#include <cstdlib>

#include "libmigrate/requests/policy_file.h"
#include "libmigrate/requests/status_words.h"
#include "tools/manual/describe.h"
#include "tools/migratectl/number_limits.h"
#include "tools/migratectl/print.h"

namespace migrate {
namespace {

using nlohmann::json;

constexpr double kMostSeconds = 1e6;  // Nobody waits for longer,
constexpr double kMostSampleSeconds = 60;
constexpr double kMostRounds = 1000;
constexpr double kMostMib = 1e6;  // and no network is faster.

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
                   "Seconds to wait for transient reasons against the move to pass, and for a "
                   "destination whose daemon is being started again")
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

}  // namespace

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
  show->add_option("ID", options.target, "Global name, id or its beginning, or a pid")->required();
  CLI::App* wait = app.add_subcommand("wait", "Wait for one of them");
  wait->add_option("ID", options.target, "Global name, id or its beginning, or a pid")->required();
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
  add_identity_commands(app, options.identity, options.target);
  app.add_subcommand("hosts", "List this host and the hosts that it knows");
  app.add_subcommand("ping", "Tell whether the daemon answers");
  add_keys(app, options.keys);
  add_balance(app, options.balance);
  add_drain(app, options.drain);
  let_describe(app, {{"exit_statuses", exit_statuses()}});
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

Result<json> request_of(const CLI::App& app, const Options& options) {
  json request = {{"command", options.command}};  // What follows is for those with members.
  if (is_identity_command(options.command)) {
    request = MIGRATE_TRY(identity_request_of(app, options.identity));
  } else if (options.command == MoveRequest::kWord) {
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

}  // namespace migrate
