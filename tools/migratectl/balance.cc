#include "tools/migratectl/balance.h"

#include <fmt/core.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "libmigrate/balance/balancer.h"
#include "libmigrate/balance/measurement.h"
#include "libmigrate/migrate.h"
#include "tools/migratectl/balance_log.h"
#include "tools/migratectl/commands.h"
#include "tools/migratectl/conversation.h"
#include "tools/migratectl/number_limits.h"

namespace migrate {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::string_view kPlanOnly = "plan-only";
constexpr double kMostIntervalSeconds = 86400;
// A rank that was refused is asked for again after that.
constexpr std::chrono::seconds kRefusedFor{60};
// Where hosts did not answer.
constexpr std::chrono::seconds kPause{1};
// How long transient reasons against a move are waited for.
constexpr const char* kRetrySeconds = "5";

// As migmpirun ends.
constexpr int kNobodyMeasured = 1;
constexpr int kNotAllAsked = 4;
constexpr int kEndedMeanwhile = 5;

std::vector<std::string> policies() {
  std::vector<std::string> words;
  words.reserve(balance::kPolicies.size() + 1);
  for (const balance::Policy* policy : balance::kPolicies) {
    words.emplace_back(policy->word);
  }
  words.emplace_back(kPlanOnly);
  return words;
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
}

/// A name that one process of this host has at a time: gone as soon as that ends, however it ends.
Result<UniqueFd> take_job(const std::string& job) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string name = fmt::format("migrate-balance-{}", job);
  const std::size_t length = std::min(name.size(), sizeof address.sun_path - 1);
  std::memcpy(address.sun_path + 1, name.data(), length);  // The first byte is 0: no file.
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address),
             static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length)) != 0) {
    return fail(errno == EADDRINUSE
                    ? make_error(ErrorCode::kRefused, "balance", "job " + job,
                                 "another `migratectl balance` of this host does so already")
                    : system_error("bind", name));
  }
  return socket;
}

balance::BalancerSettings settings_of(const BalanceOptions& options) {
  balance::BalancerSettings settings;
  settings.min_gain = options.min_gain_percent / 100;
  settings.confirmations = 2;
  settings.intervals_to_judge = 2;
  return settings;
}

/// Whether a move was refused for this reason alone.
bool is_for(const json& result, std::string_view code) {
  const json refusals =
      result.is_object() ? result.value("refusals", json::array()) : json::array();
  return refusals.size() == 1 && refusals.front().value("code", "") == code;
}

/// Measures, decides, moves, in turn: so no rank is measured while it is moved, and no move is
/// asked for while another is under way.
class Balancing {
 public:
  Balancing(const BalanceOptions& options, bool as_json, StopSignals stop)
      : options_(options),
        plans_only_(options.policy == kPlanOnly),
        stop_(std::move(stop)),
        measurer_(options.hosts),
        balancer_(plans_only_ ? balance::kGreedyRefine : *balance::find_policy(options.policy),
                  settings_of(options)),
        log_(options.job, as_json) {
    std::error_code error;
    self_ = std::filesystem::read_symlink("/proc/self/exe", error);
    measuring_ = std::make_unique<Conversation>(measuring());
  }

  int run() {
    bool was_seen = false;
    for (;;) {
      const Ended told = measure();
      if (stop_.came()) {
        return end("told to end");
      }
      if (told.status == kNotAllAsked) {
        log_.unmeasured("not all hosts have answered, and no rank was found on the others");
        if (stop_.came(kPause)) {
          return end("told to end");
        }
        continue;
      }
      if (told.status == kEndedMeanwhile || (told.status == kNobodyMeasured && was_seen)) {
        return end("the job has ended");
      }
      auto measured = told.status == 0 ? measurer_.read(told.output)
                                       : fail(make_error(ErrorCode::kNotFound, "measure", "",
                                                         "see what migmpirun has said"));
      if (!measured) {
        fmt::print(stderr, "migratectl: {}\n", measured.error().message());
        return MIGRATE_ERROR;
      }
      was_seen = true;
      if (measured->has_ended) {
        return end("the job has ended");
      }
      if (measured->is_complete()) {
        decide(*measured);
      } else {
        log_.unmeasured(fmt::format("{} of {} ranks were measured", measured->job.ranks.size(),
                                    measured->expected_ranks));
      }
      if (stop_.came()) {
        return end("told to end");
      }
    }
  }

 private:
  Command measuring() const {
    std::string hosts;
    for (const std::string& host : options_.hosts) {
      hosts += (hosts.empty() ? "" : ",") + host;
    }
    return {(self_.parent_path() / "migmpirun").string(),
            "--report",
            options_.job,
            "--json",
            "--follow",
            "--interval",
            fmt::format("{}", options_.interval_s),
            "--hosts",
            hosts,
            "--agent",
            options_.agent};
  }

  /// What a report of its own would have ended with, and have said.
  Ended measure() {
    Ended answer = measuring_->ask(stop_);
    const json told = json::parse(answer.output, nullptr, /*allow_exceptions=*/false);
    if (answer.status == 0 && told.is_object()) {
      answer.status = told.value("status", kNobodyMeasured);
      answer.output = told.contains("report") ? told["report"].dump() : std::string();
    }
    return answer;
  }

  void decide(balance::Measurement& measured) {
    const auto now = Clock::now();
    for (std::size_t i = 0; i < measured.job.ranks.size(); ++i) {
      balance::Rank& rank = measured.job.ranks[i];
      const auto number = static_cast<std::uint32_t>(i);
      if (const auto moved = moved_.find(number); moved != moved_.end()) {
        rank.rest_s = std::chrono::duration<double>(now - moved->second).count();
      }
      const auto refused = refused_.find(number);
      rank.movable = refused == refused_.end() || now - refused->second > kRefusedFor;
    }
    for (std::size_t i = 0; i < options_.hosts.size(); ++i) {
      const auto drained = drained_.find(options_.hosts[i]);
      measured.job.hosts[i].usable =
          std::ranges::find(options_.leave, options_.hosts[i]) == options_.leave.end() &&
          (drained == drained_.end() || now - drained->second > kRefusedFor);
    }
    const balance::Plan plan = balancer_.decide(measured.job);
    std::vector<RankMove> moves;
    for (const balance::PlannedMove& each : plan.moves) {
      moves.push_back({.rank = each.rank,
                       .pid = measured.pids[each.rank],
                       .from = options_.hosts[each.from],
                       .to = options_.hosts[each.to],
                       .memory_bytes = measured.job.ranks[each.rank].memory_bytes,
                       .expected = costs_.costs()});
    }
    log_.decision(plan, measured, options_.hosts, moves, !plans_only_);
    if (plans_only_ || !carry_out(moves)) {
      balancer_.withdraw();
    }
  }

  /// On the host where each rank is: its daemon knows it, whether it is at home there or not.
  Command command_for(const RankMove& move) const {
    Command command{self_.string(), "--json", "move", std::to_string(move.pid),
                    move.to,        "--wait", "done", "--retry",
                    kRetrySeconds};
    if (move.from != host_name()) {
      command.insert(command.begin(), {options_.agent, move.from});
    }
    return command;
  }

  /// True if all of them were.
  bool carry_out(const std::vector<RankMove>& moves) {
    std::vector<Command> commands;
    commands.reserve(moves.size());
    for (const RankMove& move : moves) {
      commands.push_back(command_for(move));
    }
    const std::vector<Ended> ended = run_commands(commands, stop_, OnStop::kWaitForThem);
    bool all = true;
    for (std::size_t i = 0; i < moves.size(); ++i) {
      all = note(moves[i], ended[i]) && all;
    }
    balancer_.set_costs(costs_.costs());
    return all;
  }

  bool note(const RankMove& move, const Ended& ended) {
    const json result = json::parse(ended.output, nullptr, /*allow_exceptions=*/false);
    const bool is_moved = ended.status == MIGRATE_DONE && result.is_object();
    if (is_moved) {
      moved_[move.rank] = Clock::now();
      refused_.erase(move.rank);
      costs_.add(measured_move(move, result));
    } else if (ended.status == MIGRATE_REFUSED && is_for(result, "DRAINED")) {
      drained_[move.to] = Clock::now();
    } else if (ended.status == MIGRATE_REFUSED) {
      refused_[move.rank] = Clock::now();
    }
    log_.moved(move,
               is_moved                          ? "moved"
               : ended.status == MIGRATE_REFUSED ? "refused"
               : ended.status == MIGRATE_LOST    ? "lost"
                                                 : "failed",
               result.is_object() ? result : json::object());
    return is_moved;
  }

  int end(const char* why) const {
    log_.ended(why);
    return MIGRATE_DONE;
  }

  const BalanceOptions& options_;
  const bool plans_only_;
  StopSignals stop_;
  std::filesystem::path self_;
  std::unique_ptr<Conversation> measuring_;  // migmpirun, which asks the hosts
  balance::Measurer measurer_;
  balance::Balancer balancer_;
  balance::LearnedCosts costs_;
  BalanceLog log_;
  // Of ranks: when it was moved, and when it could not be.
  std::map<std::uint32_t, Clock::time_point> moved_;
  std::map<std::uint32_t, Clock::time_point> refused_;
  std::map<std::string, Clock::time_point> drained_;  // of hosts: when they took none
};

}  // namespace

void add_balance(CLI::App& app, BalanceOptions& options) {
  options.policy = balance::kGreedyRefine.word;
  CLI::App* command = app.add_subcommand(
      "balance", "Measure a job of MPI, and move its ranks between hosts while that pays");
  command->add_option("JOB", options.job, "Its name, as migmpirun --job gave it")
      ->required()
      ->check(CLI::Validator(plain_name_problem, ""));
  command
      ->add_option("--hosts", options.hosts,
                   "HOST,... where its ranks may be; all where they are must be among them")
      ->required()
      ->delimiter(',')
      ->type_name("HOST")
      ->check(CLI::Validator(plain_name_problem, ""));
  command
      ->add_option("--leave", options.leave,
                   "HOST,... of these that ranks are to leave, whatever that costs")
      ->delimiter(',')
      ->type_name("HOST")
      ->check(CLI::Validator(plain_name_problem, ""));
  command
      ->add_option("--policy", options.policy,
                   "What finds better places; plan-only: moves nothing, and tells what "
                   "greedy-refine would")
      ->check(CLI::IsMember(policies()))
      ->capture_default_str();
  command->add_option("--interval", options.interval_s, "Seconds of each measurement (default: 5)")
      ->check(up_to(kMostIntervalSeconds, "seconds"));
  command
      ->add_option("--min-gain", options.min_gain_percent,
                   "Percent of a step's time that a plan must gain (default: 10)")
      ->check(up_to(100, "percent"));
  command
      ->add_option("--agent", options.agent,
                   "Starts commands on other hosts, as PROGRAM HOST COMMAND...")
      ->type_name("FILE")
      ->capture_default_str();
}

int run_balance(const BalanceOptions& options, bool as_json) {
  for (const std::string& host : options.leave) {
    if (std::ranges::find(options.hosts, host) == options.hosts.end()) {
      fmt::print(stderr, "migratectl: {} of --leave is none of --hosts\n", host);
      return MIGRATE_USAGE;
    }
  }
  const auto job = take_job(options.job);
  auto stop = StopSignals::take();
  if (!job || !stop) {
    fmt::print(stderr, "migratectl: {}\n", (!job ? job.error() : stop.error()).message());
    return MIGRATE_ERROR;
  }
  return Balancing(options, as_json, std::move(*stop)).run();
}

}  // namespace migrate
