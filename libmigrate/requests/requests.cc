#include "libmigrate/requests/requests.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "transport/address.h"

namespace migrate {
namespace {

using nlohmann::json;

constexpr double kMostNumber = 1e15;  // What an integer holds, and nobody reaches.

template <typename Value>
using Words = std::pair<std::string_view, Value>;

constexpr std::array<Words<Command>, 4> kCommands{{{"move", Command::kMove},
                                                   {"check", Command::kCheck},
                                                   {"resolve", Command::kResolve},
                                                   {"end", Command::kEnd}}};
constexpr std::array<Words<MoveWait>, 3> kWaits{
    {{"resumed", MoveWait::kResumed}, {"done", MoveWait::kDone}, {"exit", MoveWait::kExit}}};
constexpr std::array<Words<PageTransport>, 3> kTransports{
    {{"auto", PageTransport::kAuto}, {"rdma", PageTransport::kRdma}, {"tcp", PageTransport::kTcp}}};
constexpr std::array<Words<Resolution>, 2> kResolutions{
    {{"resume-source", Resolution::kResumeSource}, {"give-up", Resolution::kGiveUp}}};

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

template <typename Value, std::size_t count>
Result<Value> word_of(const json& request, const char* name, const char* fallback,
                      const std::array<Words<Value>, count>& words) {
  const std::string text = MIGRATE_TRY(text_of(request, name, fallback));
  std::string allowed;
  for (const auto& [word, value] : words) {
    if (word == text) {
      return value;
    }
    allowed += (allowed.empty() ? "use one of: " : ", ") + std::string(word);
  }
  return fail(bad_member(name, "\"" + text + "\"", allowed));
}

template <typename Value, std::size_t count>
std::string_view word_for(Value value, const std::array<Words<Value>, count>& words) {
  return std::find_if(words.begin(), words.end(),
                      [&](const auto& each) { return each.second == value; })
      ->first;
}

Result<void> must_be_object(const json& request) {
  if (!request.is_object()) {
    return fail(make_error(ErrorCode::kInvalid, "read a request", "that is no JSON object",
                           "send one object in a line"));
  }
  return {};
}

}  // namespace

std::string_view to_string(PageTransport transport) {
  return word_for(transport, kTransports);
}

std::string_view to_string(MoveWait wait) {
  return word_for(wait, kWaits);
}

std::string_view to_string(Resolution resolution) {
  return word_for(resolution, kResolutions);
}

Result<Command> parse_command(const json& request) {
  MIGRATE_TRY(must_be_object(request));
  return word_of(request, "command", "", kCommands);
}

Result<MoveRequest> parse_move(const json& request, std::uint64_t host_bytes_per_second) {
  constexpr double kMillisecondsPerSecond = 1000;
  MIGRATE_TRY(must_be_object(request));
  MoveRequest move;
  move.plan = MIGRATE_TRY(parse_mode(MIGRATE_TRY(text_of(request, "mode", "lazy"))));
  move.wait = MIGRATE_TRY(word_of(request, "wait", "resumed", kWaits));
  move.destination = MIGRATE_TRY(text_of(request, "destination"));
  if (move.destination.empty()) {
    return fail(
        make_error(ErrorCode::kInvalid, "move", "no destination", "give HOST or HOST:PORT"));
  }
  move.transport = MIGRATE_TRY(
      settle_page_transport(move.destination, MIGRATE_TRY(text_of(request, "transport", "auto"))));
  move.retry_seconds = MIGRATE_TRY(number_of(request, "retry_seconds", 0));
  move.push.bytes_per_second = static_cast<std::uint64_t>(MIGRATE_TRY(
      number_of(request, "bytes_per_second", static_cast<double>(host_bytes_per_second))));
  const double seconds = MIGRATE_TRY(number_of(request, "deadline_seconds", 0));
  move.push.deadline =
      std::chrono::milliseconds(static_cast<std::int64_t>(seconds * kMillisecondsPerSecond));
  return move;
}

Result<CheckRequest> parse_check(const json& request) {
  MIGRATE_TRY(must_be_object(request));
  CheckRequest check;
  check.destination = MIGRATE_TRY(text_of(request, "destination"));
  if (!check.destination.empty()) {
    MIGRATE_TRY(Address::parse(check.destination));
  }
  return check;
}

Result<Resolution> parse_resolve(const json& request) {
  MIGRATE_TRY(must_be_object(request));
  return word_of(request, "action", "", kResolutions);
}

}  // namespace migrate
