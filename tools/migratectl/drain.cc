#include "tools/migratectl/drain.h"

#include <fmt/core.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "libmigrate/balance/leaving.h"
#include "libmigrate/migrate.h"
#include "libmigrate/requests/request_json.h"
#include "tools/migratectl/commands.h"
#include "tools/migratectl/connection.h"
#include "tools/migratectl/drain_log.h"
#include "tools/migratectl/number_limits.h"
#include "tools/migratectl/print.h"

namespace migrate {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr double kMostDeadlineSeconds = 1e6;
constexpr double kUsPerSecond = 1e6;
// For how long transient reasons against a move are waited for, at the first host that it is
// offered to.
constexpr double kDrainRetrySeconds = 5;

std::string number_of_user(const std::string& name) {
  const passwd* const entry = ::getpwnam(name.c_str());
  return entry != nullptr ? std::to_string(entry->pw_uid) : name;
}

/// For a validator of options: what is wrong.
std::string known_user(const std::string& name) {
  const bool is_number = !name.empty() && name.find_first_not_of("0123456789") == name.npos;
  return is_number || ::getpwnam(name.c_str()) != nullptr ? "" : "there is no user " + name;
}

json why_not(const json& result, int status) {
  const json refusals = result.value("refusals", json::array());
  if (!refusals.empty()) {
    const json& first = refusals.front();
    json why = {{"code", text_of(first, "code")},
                {"reason", text_of(first, "object") + ": " + text_of(first, "reason")}};
    if (const std::string remedy = text_of(first, "remedy"); !remedy.empty()) {
      why["remedy"] = remedy;
    }
    return why;
  }
  const std::string error = error_text(result);
  return {{"code", status == MIGRATE_LOST ? "LOST" : "FAILED"},
          {"reason", error.empty() ? "nothing was said of why" : error}};
}

/// Asks the daemon of this host, one request after the other.
class DaemonTalk {
 public:
  explicit DaemonTalk(std::string socket) : socket_(std::move(socket)) {}

  /// The result, with the refusals that came before it. A signal takes a move back, if that can
  /// still be. Errors: as DaemonConnection.
  Result<json> operator()(const json& request) {
    DaemonConnection connection =
        MIGRATE_TRY(DaemonConnection::open(socket_, DaemonConnection::Signals::kOfEvents));
    MIGRATE_TRY(connection.send(request));
    json refusals;
    for (;;) {
      const std::optional<json> event = MIGRATE_TRY(connection.next_event());
      if (!event) {
        was_interrupted_ = true;
        MIGRATE_TRY(connection.send(json::parse(kCancel)));
      } else if (text_of(*event, "event") == "refused") {
        refusals = event->value("refusals", json());
      } else if (text_of(*event, "event") == "result") {
        json result = *event;
        if (!refusals.is_null() && !result.contains("refusals")) {
          result["refusals"] = std::move(refusals);
        }
        return result;
      }
    }
  }
  bool was_interrupted() const { return was_interrupted_; }

 private:
  std::string socket_;
  bool was_interrupted_ = false;
};

/// What this host is called; empty if its daemon does not answer. Leaves signals as they are.
std::string name_of_this_host(const std::string& socket) {
  auto connection = DaemonConnection::open(socket, DaemonConnection::Signals::kOfOthers);
  if (!connection || !connection->send(request_for(PingRequest()))) {
    return "";
  }
  const auto told = connection->next_event();
  return told && *told ? text_of(**told, "host") : "";
}

int status_of(const json& result) {
  return result.contains("exit") ? static_cast<int>(number_of(result, "exit")) : MIGRATE_ERROR;
}

/// Processes leave, one after the other.
class Draining {
 public:
  Draining(DaemonTalk& asking, const DrainOptions& options, bool as_json)
      : asking_(asking), options_(options), log_(as_json), begun_(Clock::now()) {}

  /// Errors: those of asking, and what the daemon refuses.
  Result<int> run() {
    const json told =
        MIGRATE_TRY(tell(options_.only_plans ? DrainAction::kTell : DrainAction::kBegin));
    MIGRATE_TRY(find_refuges(text_of(told, "address")));
    const json processes = told.value("processes", json::array());
    std::vector<balance::Leaving> leaving;
    for (const json& each : processes) {
      leaving.push_back(
          {static_cast<std::uint64_t>(number_of(each, "memory_bytes")), text_of(each, "home")});
    }
    for (const std::size_t each : order_of_leaving(leaving, costs_.costs())) {
      MIGRATE_TRY(see_off(processes[each], leaving[each]));
    }
    log_.end(MIGRATE_TRY(tell(DrainAction::kTell)), options_.only_plans);
    return asking_.was_interrupted() ? MIGRATE_ERROR
           : log_.all_left()         ? MIGRATE_DONE
                                     : MIGRATE_REFUSED;
  }

 private:
  Result<json> tell(DrainAction action) {
    DrainRequest request{action, {}};
    for (const std::string& user : options_.users) {
      request.users.push_back(number_of_user(user));
    }
    json told = MIGRATE_TRY(asking_(request_for(request)));
    if (status_of(told) != MIGRATE_DONE) {
      return fail(make_error(ErrorCode::kRefused, "drain", "this host", error_text(told)));
    }
    return told;
  }

  /// Hosts that answer and are to be left by nobody; of `--to`, if it is given.
  Result<void> find_refuges(const std::string& own_address) {
    const json told = MIGRATE_TRY(asking_(request_for(HostsRequest())));
    for (const json& host : told.value("hosts", json::array())) {
      const std::string address = text_of(host, "address");
      const std::string name = text_of(host, "host");
      const bool is_wanted = options_.to.empty() ||
                             std::ranges::find(options_.to, name) != options_.to.end() ||
                             std::ranges::find(options_.to, address) != options_.to.end();
      const bool takes = text_of(host, "state") == "up" && !host.value("drained", false);
      if (is_wanted && takes && address != own_address) {
        refuges_.push_back(
            {address, static_cast<std::uint64_t>(number_of(host, "memory_available_bytes"))});
        names_.push_back(name);
      }
    }
    // One that this host has not heard of yet, or that did not answer in time.
    for (const std::string& word : options_.to) {
      const bool is_known = std::ranges::find(names_, word) != names_.end() ||
                            std::ranges::any_of(refuges_, [&](const balance::Refuge& each) {
                              return each.address == word;
                            });
      if (!is_known) {
        refuges_.push_back({word, UINT64_MAX});
        names_.push_back(word);
      }
    }
    if (refuges_.empty()) {
      return fail(make_error(ErrorCode::kNotFound, "drain", "this host",
                             "no other host is known that answers and takes processes: name some "
                             "(--to HOST,...), or set `peers` in migrated.toml"));
    }
    return {};
  }

  double seconds() const { return std::chrono::duration<double>(Clock::now() - begun_).count(); }

  /// What keeps it from being moved before anybody is asked.
  std::optional<json> hindrance(const balance::Leaving& process) const {
    if (asking_.was_interrupted()) {
      return json{{"code", "INTERRUPTED"}, {"reason", "the drain was interrupted before its turn"}};
    }
    const double needed = seconds_to_leave(process, costs_.costs());
    if (options_.deadline_s > 0 && seconds() + needed > options_.deadline_s) {
      return json{
          {"code", "DEADLINE"},
          {"reason", fmt::format("it would take {} as moves went so far, and {} are left",
                                 duration_text(needed * kUsPerSecond),
                                 duration_text(std::max(options_.deadline_s - seconds(), 0.0) *
                                               kUsPerSecond))}};
    }
    return std::nullopt;
  }

  Result<json> request_of(const json& process, const std::string& address, bool is_first) const {
    json request;
    if (options_.only_plans) {
      CheckRequest check;
      check.destination = address;
      check.plan = MIGRATE_TRY(parse_mode(options_.mode));
      request = request_for(check);
    } else {
      MoveRequest move;
      move.destination = address;
      move.plan = MIGRATE_TRY(parse_mode(options_.mode));
      move.wait = MoveWait::kDone;
      move.retry_seconds = is_first ? kDrainRetrySeconds : 0;
      if (options_.deadline_s > 0) {
        const double left = std::max(options_.deadline_s - seconds(), 1.0);
        move.push.deadline = std::chrono::milliseconds(static_cast<std::int64_t>(left * 1000));
      }
      request = request_for(move);
    }
    const std::string target = text_of(process, "target");
    name_process(request, {.id = target});
    return request;
  }

  Result<void> see_off(const json& process, const balance::Leaving& leaving) {
    if (auto why = hindrance(leaving)) {
      log_.stays(process, std::move(*why));
      return {};
    }
    json why = {{"code", "MEMORY"}, {"reason", "no host has so much memory free"}};
    bool is_first = true;
    for (const std::size_t place : refuges_of(leaving, refuges_)) {
      const auto begun = Clock::now();
      const json result =
          MIGRATE_TRY(asking_(MIGRATE_TRY(request_of(process, refuges_[place].address, is_first))));
      const int status = status_of(result);
      if (status == MIGRATE_DONE) {
        note(process, leaving, place, result,
             std::chrono::duration<double>(Clock::now() - begun).count());
        return {};
      }
      // What the first host says is what counts: it would have been the best one.
      why = is_first ? why_not(result, status) : why;
      is_first = false;
      if (status == MIGRATE_LOST || asking_.was_interrupted()) {
        break;
      }
      const json error = result.value("error", json::object());
      if (error.is_object() && text_of(error, "code") == to_string(ErrorCode::kPeerLost)) {
        refuges_[place].memory_bytes = 0;  // It does not answer: nobody else is to wait for it.
      }
    }
    log_.stays(process, std::move(why));
    return {};
  }

  void note(const json& process, const balance::Leaving& leaving, std::size_t place,
            const json& result, double seconds) {
    balance::Refuge& refuge = refuges_[place];
    refuge.memory_bytes -= refuge.memory_bytes == UINT64_MAX ? 0 : leaving.memory_bytes;
    json move = {{"to", names_[place]}};
    if (!options_.only_plans) {
      move["seconds"] = seconds;
      move["freeze_us"] = number_of(result, "freeze_us");
      costs_.add({.memory_bytes = static_cast<double>(leaving.memory_bytes),
                  .stop_s = number_of(result, "freeze_us") / kUsPerSecond,
                  .transfer_s = seconds});
    }
    log_.leaves(process, std::move(move));
  }

  DaemonTalk& asking_;
  const DrainOptions& options_;
  DrainLog log_;
  Clock::time_point begun_;
  std::vector<balance::Refuge> refuges_;
  std::vector<std::string> names_;  // of these
  balance::LearnedCosts costs_;
};

/// The host takes processes again; those that have their home there come back if that is wanted.
class Undraining {
 public:
  Undraining(DaemonTalk& asking, const DrainOptions& options, bool as_json)
      : asking_(asking), options_(options), as_json_(as_json) {}

  Result<int> run() {
    const json told = MIGRATE_TRY(asking_(request_for(DrainRequest{DrainAction::kEnd, {}})));
    if (status_of(told) != MIGRATE_DONE) {
      return fail(make_error(ErrorCode::kRefused, "undrain", "this host", error_text(told)));
    }
    json away = told.value("away", json::array());
    json back = json::array();
    if (options_.fetches) {
      MIGRATE_TRY(fetch(text_of(told, "address"), away, back));
    }
    if (as_json_) {
      const json object = {{"host", text_of(told, "host")},
                           {"drained", told.value("drained", false)},
                           {"came_back", back},
                           {"away", away}};
      fmt::print("{}\n", object.dump(-1, ' ', false, json::error_handler_t::replace));
      return MIGRATE_DONE;
    }
    fmt::print("{} takes processes again\n", text_of(told, "host"));
    for (const json& each : back) {
      fmt::print("{} ({}) came back\n", text_of(each, "pid"), text_of(each, "command"));
    }
    for (const json& each : away) {
      fmt::print("{} ({}) is at {}{}\n", text_of(each, "pid"), text_of(each, "command"),
                 text_of(each, "where"), options_.fetches ? "" : "; --fetch brings it back");
    }
    return MIGRATE_DONE;
  }

 private:
  /// On the host where each is: its daemon knows it.
  Result<void> fetch(const std::string& own_address, json& away, json& back) {
    const json told = MIGRATE_TRY(asking_(request_for(HostsRequest())));
    StopSignals stop = MIGRATE_TRY(StopSignals::take());
    json still_away = json::array();
    for (json& each : away) {
      std::string host = text_of(each, "where");
      for (const json& known : told.value("hosts", json::array())) {
        if (text_of(known, "address") == host && !text_of(known, "host").empty()) {
          host = text_of(known, "host");
        }
      }
      const Command command = {
          options_.agent, host.substr(0, host.find(':')), "migratectl", "--json",
          "move",         text_of(each, "process"),       own_address,  "--wait",
          "done"};
      const bool comes = !stop.came() && plain_name_problem(command[1]).empty() &&
                         run_commands({command}, stop, OnStop::kWaitForThem).front().status == 0;
      (comes ? back : still_away).push_back(std::move(each));
    }
    away = std::move(still_away);
    return {};
  }

  DaemonTalk& asking_;
  const DrainOptions& options_;
  bool as_json_;
};

/// This program on that host, in place of this one. Returns only if that fails.
int become_remote(const DrainOptions& options, bool begins, bool as_json) {
  std::vector<std::string> words = {options.agent, options.host, "migratectl"};
  if (as_json) {
    words.emplace_back("--json");
  }
  words.insert(words.end(), {begins ? "drain" : "undrain", options.host});
  const auto add_list = [&words](const char* option, const std::vector<std::string>& values) {
    for (const std::string& value : values) {
      words.insert(words.end(), {option, value});
    }
  };
  add_list("--to", options.to);
  add_list("--user", options.users);
  if (begins) {
    words.insert(words.end(),
                 {"--mode", options.mode, "--deadline", fmt::format("{}", options.deadline_s)});
  }
  if (options.only_plans) {
    words.emplace_back("--plan");
  }
  if (options.fetches) {
    words.insert(words.end(), {"--fetch", "--agent", options.agent});
  }
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (std::string& word : words) {
    arguments.push_back(word.data());
  }
  arguments.push_back(nullptr);
  ::execvp(arguments.front(), arguments.data());
  fmt::print(
      stderr,
      "migratectl: cannot start {} to reach {}: {}; run this on {} itself, or give --agent\n",
      options.agent, options.host, std::strerror(errno), options.host);
  return MIGRATE_ERROR;
}

void add_host_and_agent(CLI::App& command, DrainOptions& options) {
  command.add_option("HOST", options.host, "The host (default: this one)")
      ->check(CLI::Validator(plain_name_problem, ""));
  command
      .add_option("--agent", options.agent,
                  "Starts commands on other hosts, as PROGRAM HOST COMMAND...")
      ->type_name("FILE")
      ->capture_default_str();
}

}  // namespace

void add_drain(CLI::App& app, DrainOptions& options) {
  CLI::App* drain = app.add_subcommand(
      "drain", "Have a host take no processes any more, and move all off it that can be moved");
  add_host_and_agent(*drain, options);
  drain->add_option("--to", options.to, "HOST,... to move them to (default: all that are known)")
      ->delimiter(',')
      ->type_name("HOST")
      ->check(CLI::Validator(plain_address_problem, ""));
  drain
      ->add_option(
          "--user", options.users,
          "USER,... whose processes leave, beside those of users 1000 to 60000 and all that "
          "came from other hosts")
      ->delimiter(',')
      ->type_name("USER")
      ->check(CLI::Validator(known_user, ""));
  drain->add_option("--mode", options.mode, "How their memory follows")
      ->check(CLI::IsMember(mode_words()));
  drain
      ->add_option("--deadline", options.deadline_s,
                   "Seconds: what would not be away by then, as moves went so far, is left alone")
      ->check(up_to(kMostDeadlineSeconds, "seconds"));
  drain->add_flag(
      "--plan", options.only_plans,
      "Only tell what would be moved, and where to; the host takes processes as before");
  CLI::App* undrain = app.add_subcommand("undrain", "Have a host take processes again");
  add_host_and_agent(*undrain, options);
  undrain->add_flag("--fetch", options.fetches, "Bring those back that have their home there");
}

int run_drain(const std::string& socket, const DrainOptions& options, bool begins, bool as_json) {
  if (!options.host.empty() && options.host != name_of_this_host(socket)) {
    return become_remote(options, begins, as_json);
  }
  DaemonTalk asking(socket);
  const auto status = begins ? Draining(asking, options, as_json).run()
                             : Undraining(asking, options, as_json).run();
  if (status) {
    return *status;
  }
  const Error& error = status.error();
  if (as_json) {
    const json object = {
        {"error", {{"code", to_string(error.code)}, {"message", error.message()}}}};
    fmt::print("{}\n", object.dump(-1, ' ', false, json::error_handler_t::replace));
  } else {
    fmt::print(stderr, "migratectl: {}\n", error.message());
  }
  return error.code == ErrorCode::kRefused ? MIGRATE_REFUSED : MIGRATE_ERROR;
}

}  // namespace migrate
