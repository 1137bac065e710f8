#include "tools/migratectl/drain_log.h"

#include <fmt/core.h>

#include <cstdio>
#include <utility>

#include "tools/migratectl/print.h"

namespace migrate {
namespace {

using nlohmann::json;

constexpr double kUsPerDrainedSecond = 1e6;
constexpr std::size_t kLongestCommand = 48;

/// "4711 (xz -T1 big.tar, 64 MiB)".
std::string who(const json& process) {
  std::string command = text_of(process, "command");
  if (command.size() > kLongestCommand) {
    command = command.substr(0, kLongestCommand) + "...";
  }
  return fmt::format("{} ({}, {})", text_of(process, "pid"), command,
                     bytes_text(number_of(process, "memory_bytes")));
}

json named(const json& process, json more) {
  more["pid"] = process.value("pid", 0);
  more["uid"] = process.value("uid", 0);
  more["command"] = text_of(process, "command");
  more["memory_bytes"] = process.value("memory_bytes", std::uint64_t{0});
  return more;
}

void say(const std::string& line) {
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

}  // namespace

void DrainLog::leaves(const json& process, json move) {
  const std::string to = text_of(move, "to");
  if (!as_json_ && move.contains("seconds")) {
    say(fmt::format("{} moved to {} in {}", who(process), to,
                    duration_text(number_of(move, "seconds") * kUsPerDrainedSecond)));
  } else if (!as_json_) {
    say(fmt::format("{} would be moved to {}", who(process), to));
  }
  left_.push_back(named(process, std::move(move)));
}

void DrainLog::stays(const json& process, json why) {
  if (!as_json_) {
    const std::string remedy = text_of(why, "remedy");
    say(fmt::format("{} stays: {}: {}{}", who(process), text_of(why, "code"),
                    text_of(why, "reason"), remedy.empty() ? "" : "; " + remedy));
  }
  stays_.push_back(named(process, std::move(why)));
}

void DrainLog::end(const json& told, bool only_plans) const {
  const json away = told.value("away", json::array());
  if (as_json_) {
    const json object = {{"host", text_of(told, "host")},
                         {"drained", told.value("drained", false)},
                         {only_plans ? "would_move" : "moved", left_},
                         {"stays", stays_},
                         {"in_containers", told.value("in_containers", std::uint64_t{0})},
                         {"away", away}};
    fmt::print("{}\n", object.dump(-1, ' ', false, json::error_handler_t::replace));
    return;
  }
  say(fmt::format(
      "{}: {} {}, {} stay{}", text_of(told, "host"), left_.size(),
      only_plans ? "would be moved" : "moved", stays_.size(),
      told.value("drained", false) ? "; it takes no processes (migratectl undrain)" : ""));
  if (number_of(told, "in_containers") > 0) {
    say(fmt::format("{} more stay in containers", text_of(told, "in_containers")));
  }
  double owed = 0;
  for (const json& each : away) {
    owed += number_of(each, "owed_pages");
  }
  if (!away.empty()) {
    say(
        fmt::format("{} live elsewhere and have their home here: their connections, terminals and "
                    "parents go by this host, which is to stay up until they end",
                    away.size()));
  }
  if (owed > 0) {
    say(fmt::format("{:.0f} pages are still owed to some of them (migratectl ps)", owed));
  }
}

}  // namespace migrate
