#include "libmigrate/requests/requests.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/words.h"
#include "transport/address.h"

namespace migrate {
namespace {

using nlohmann::json;

constexpr double kMillisecondsPerSecond = 1000;
constexpr double kMostSeconds = 1e9;  // A clock's nanoseconds hold that, added to now.
constexpr double kMostNumber = 1e15;  // What an integer holds, and nobody reaches.

constexpr Words<Command, 10> kCommands{{{"move", Command::kMove},
                                        {"check", Command::kCheck},
                                        {"resolve", Command::kResolve},
                                        {"end", Command::kEnd},
                                        {"ps", Command::kPs},
                                        {"show", Command::kShow},
                                        {"wait", Command::kWait},
                                        {"hosts", Command::kHosts},
                                        {"ping", Command::kPing},
                                        {"here", Command::kHere}}};
constexpr Words<Resolution, 2> kResolutions{
    {{"resume-source", Resolution::kResumeSource}, {"give-up", Resolution::kGiveUp}}};

Result<void> must_be_object(const json& request) {
  if (!request.is_object()) {
    return fail(make_error(ErrorCode::kInvalid, "read a request", "that is no JSON object",
                           "send one object in a line"));
  }
  return {};
}

Error bad_member(const char* name, const std::string& came, const std::string& remedy) {
  return make_error(ErrorCode::kInvalid, "read a request", std::string(name) + " " + came, remedy);
}

Result<std::string> text_of(const json& request, const char* name, const char* fallback = "") {
  const auto member = request.find(name);
  if (member == request.end()) {
    return std::string(fallback);
  }
  if (!member->is_string()) {
    return fail(bad_member(name, "of type " + std::string(member->type_name()), "write a string"));
  }
  return member->get<std::string>();
}

Result<double> number_of(const json& request, const char* name, double fallback) {
  const auto member = request.find(name);
  if (member == request.end()) {
    return fallback;
  }
  const double number = member->is_number() ? member->get<double>() : std::nan("");
  if (!(number >= 0)) {
    return fail(bad_member(name, member->dump(-1, ' ', false, json::error_handler_t::replace),
                           "write a number from 0"));
  }
  return std::min(number, kMostNumber);
}

Result<bool> flag_of(const json& request, const char* name) {
  const auto member = request.find(name);
  if (member != request.end() && !member->is_boolean()) {
    return fail(
        bad_member(name, "of type " + std::string(member->type_name()), "write true or false"));
  }
  return member != request.end() && member->get<bool>();
}

/// A member that is a number of seconds.
Result<std::chrono::milliseconds> time_of(const json& request, const char* name) {
  const double seconds = MIGRATE_TRY(number_of(request, name, 0));
  return std::chrono::milliseconds(
      std::llround(std::min(seconds, kMostSeconds) * kMillisecondsPerSecond));
}

Result<RoundLimits> rounds_of(const json& request) {
  constexpr double kMostRounds = 1000;
  RoundLimits limits;
  const double most = MIGRATE_TRY(number_of(request, "rounds", limits.most));
  if (most < 1 || most > kMostRounds || most != std::floor(most)) {
    return fail(
        bad_member("rounds", request["rounds"].dump(), "write a whole number from 1 to 1000"));
  }
  limits.most = static_cast<std::uint32_t>(most);
  const double downtime =
      MIGRATE_TRY(number_of(request, "downtime_us", static_cast<double>(limits.downtime.count())));
  limits.downtime = std::chrono::microseconds(std::llround(std::min(downtime, kMostSeconds * 1e6)));
  return limits;
}

template <typename Value, std::size_t count>
Result<Value> word_of(const json& request, const char* name, const char* fallback,
                      const Words<Value, count>& words) {
  MIGRATE_TRY(must_be_object(request));
  return value_of(MIGRATE_TRY(text_of(request, name, fallback)), name, words);
}

}  // namespace

std::string_view to_string(Command command) {
  return word_for(command, kCommands);
}

std::string_view to_string(MoveWait wait) {
  return word_for(wait, kMoveWaitWords);
}

std::string_view to_string(Resolution resolution) {
  return word_for(resolution, kResolutions);
}

Result<MoveWait> parse_move_wait(std::string_view word) {
  return value_of(word, "wait", kMoveWaitWords);
}

Result<WaitFor> parse_wait_for(std::string_view word) {
  return value_of(word, "for", kWaitWords);
}

std::vector<std::string> move_wait_words() {
  return words_in(kMoveWaitWords);
}

std::vector<std::string> wait_for_words() {
  return words_in(kWaitWords);
}

Result<Command> parse_command(const json& request) {
  return word_of(request, "command", "", kCommands);
}

Result<ProcessName> parse_process(const json& request) {
  // No pid has more digits (the kernel's pid_max is at most 4194304); the short ids that `ps` shows
  // have more.
  constexpr std::size_t kLongestPid = 7;
  MIGRATE_TRY(must_be_object(request));
  ProcessName process;
  process.id = MIGRATE_TRY(text_of(request, "process"));
  const bool is_number = process.id.find_first_not_of("0123456789") == std::string::npos;
  if (!process.id.empty() && process.id.size() <= kLongestPid && process.id.front() != '0' &&
      is_number) {
    process.pid = std::stoi(process.id);
    process.id.clear();
    return process;
  }
  const auto pid = request.find("pid");
  if (pid == request.end()) {
    return process;
  }
  process.pid = integer_member(request, "pid", -1);
  if (process.pid < 0 || process.pid >= (1 << 30)) {
    return fail(bad_member("pid", pid->dump(-1, ' ', false, json::error_handler_t::replace),
                           "write the number of a process, or 0 for your own"));
  }
  return process;
}

Result<MoveRequest> parse_move(const json& request) {
  MIGRATE_TRY(must_be_object(request));
  MoveRequest move;
  move.plan = MIGRATE_TRY(parse_mode(MIGRATE_TRY(text_of(request, "mode", "lazy"))));
  move.wait = MIGRATE_TRY(word_of(request, "wait", "resumed", kMoveWaitWords));
  move.destination = MIGRATE_TRY(text_of(request, "destination"));
  if (move.destination.empty()) {
    return fail(
        make_error(ErrorCode::kInvalid, "move", "no destination", "give HOST or HOST:PORT"));
  }
  move.transport = MIGRATE_TRY(
      settle_page_transport(move.destination, MIGRATE_TRY(text_of(request, "transport", "auto"))));
  move.retry_seconds = MIGRATE_TRY(number_of(request, "retry_seconds", 0));
  move.strict = MIGRATE_TRY(flag_of(request, "strict"));
  if (request.contains("bytes_per_second")) {
    move.push.bytes_per_second =
        static_cast<std::uint64_t>(MIGRATE_TRY(number_of(request, "bytes_per_second", 0)));
  }
  move.push.deadline = MIGRATE_TRY(time_of(request, "deadline_seconds"));
  move.rounds = MIGRATE_TRY(rounds_of(request));
  if (request.contains("point_seconds")) {
    move.point_wait = MIGRATE_TRY(time_of(request, "point_seconds"));
  }
  if (request.contains("hook_seconds")) {
    move.hook_wait = MIGRATE_TRY(time_of(request, "hook_seconds"));
  }
  move.asked = MIGRATE_TRY(parse_token(request));
  return move;
}

Result<std::uint64_t> parse_token(const json& request) {
  MIGRATE_TRY(must_be_object(request));
  const auto token = request.find("token");
  if (token == request.end()) {
    return 0;
  }
  if (!token->is_number_unsigned() || token->get<std::uint64_t>() == 0) {
    return fail(bad_member("token", token->dump(-1, ' ', false, json::error_handler_t::replace),
                           "write a whole number from 1"));
  }
  return token->get<std::uint64_t>();
}

Result<CheckRequest> parse_check(const json& request) {
  MIGRATE_TRY(must_be_object(request));
  CheckRequest check;
  check.destination = MIGRATE_TRY(text_of(request, "destination"));
  if (!check.destination.empty()) {
    MIGRATE_TRY(Address::parse(check.destination));
  }
  check.strict = MIGRATE_TRY(flag_of(request, "strict"));
  check.rounds = MIGRATE_TRY(parse_mode(MIGRATE_TRY(text_of(request, "mode", "lazy")))).rounds;
  return check;
}

Result<Resolution> parse_resolve(const json& request) {
  return word_of(request, "action", "", kResolutions);
}

Result<WaitFor> parse_wait(const json& request) {
  return word_of(request, "for", "done", kWaitWords);
}

Result<bool> parse_ps(const json& request) {
  MIGRATE_TRY(must_be_object(request));
  return flag_of(request, "all");
}

json request_for(Command command) {
  return {{"command", to_string(command)}};
}

json request_for(const MoveRequest& move) {
  json request = request_for(Command::kMove);
  request["destination"] = move.destination;
  request["mode"] = move.plan.word;
  request["transport"] = to_string(move.transport);
  request["wait"] = to_string(move.wait);
  request["retry_seconds"] = move.retry_seconds;
  if (move.strict) {
    request["strict"] = true;
  }
  if (move.push.bytes_per_second) {
    request["bytes_per_second"] = *move.push.bytes_per_second;
  }
  if (move.push.deadline.count() != 0) {
    request["deadline_seconds"] =
        static_cast<double>(move.push.deadline.count()) / kMillisecondsPerSecond;
  }
  if (move.plan.rounds) {
    request["rounds"] = move.rounds.most;
    request["downtime_us"] = move.rounds.downtime.count();
  }
  if (move.point_wait) {
    request["point_seconds"] =
        static_cast<double>(move.point_wait->count()) / kMillisecondsPerSecond;
  }
  if (move.hook_wait != kHookWait) {
    request["hook_seconds"] = static_cast<double>(move.hook_wait.count()) / kMillisecondsPerSecond;
  }
  if (move.asked != 0) {
    request["token"] = move.asked;
  }
  return request;
}

json request_for(const CheckRequest& check) {
  json request = request_for(Command::kCheck);
  if (!check.destination.empty()) {
    request["destination"] = check.destination;
  }
  if (check.strict) {
    request["strict"] = true;
  }
  if (check.rounds) {
    request["mode"] = "hybrid";  // What precopy needs, too.
  }
  return request;
}

json request_for(Resolution resolution) {
  json request = request_for(Command::kResolve);
  request["action"] = to_string(resolution);
  return request;
}

json request_for(WaitFor wait) {
  json request = request_for(Command::kWait);
  request["for"] = word_for(wait, kWaitWords);
  return request;
}

void name_process(json& request, const ProcessName& process) {
  if (!process.id.empty()) {
    request["process"] = process.id;
  }
  if (process.pid >= 0) {
    request["pid"] = process.pid;
  }
}

}  // namespace migrate
