#include "tools/migratectl/balance_log.h"

#include <fmt/chrono.h>
#include <fmt/core.h>

#include <cmath>
#include <cstdio>
#include <ctime>

#include "tools/migratectl/print.h"

namespace migrate {
namespace {

using nlohmann::json;

constexpr double kMicroseconds = 1e6;

/// JSON has no number for what never ends.
json finite(double value) {
  return std::isfinite(value) ? json(value) : json();
}

double seconds_of(const json& result, const char* member) {
  const auto found = result.find(member);
  return found != result.end() && found->is_number() ? found->get<double>() / kMicroseconds : 0;
}

json moves_json(const std::vector<RankMove>& moves) {
  json list = json::array();
  for (const RankMove& move : moves) {
    list.push_back({{"rank", move.rank},
                    {"pid", move.pid},
                    {"from", move.from},
                    {"to", move.to},
                    {"memory_bytes", move.memory_bytes},
                    {"expected_stop_s", move.expected.stop_s},
                    {"expected_transfer_s", move.expected.transfer_s(move.memory_bytes)}});
  }
  return list;
}

json hosts_json(const balance::Job& job, const std::vector<std::string>& hosts) {
  const std::vector<balance::Load> loads = loads_of(job, current_placement(job));
  json list = json::array();
  for (std::size_t host = 0; host < hosts.size(); ++host) {
    json ranks = json::array();
    for (std::size_t rank = 0; rank < job.ranks.size(); ++rank) {
      if (job.ranks[rank].host == host) {
        ranks.push_back(rank);
      }
    }
    list.push_back({{"name", hosts[host]},
                    {"processors", job.hosts[host].processors},
                    {"speed", job.hosts[host].speed},
                    {"work_s", loads[host].work_s},
                    {"ranks", std::move(ranks)}});
  }
  return list;
}

std::string word_text(const balance::Word& word) {
  return fmt::format("the last plan promised {:.0f} % and brought {:.0f} %: {}",
                     word.promised * 100, word.came * 100, word.kept ? "kept" : "broken");
}

}  // namespace

balance::MeasuredMove measured_move(const RankMove& move, const json& result) {
  return {.memory_bytes = move.memory_bytes,
          .stop_s = seconds_of(result, "freeze_us"),
          .transfer_s = seconds_of(result, "owed_nothing_after_us")};
}

void BalanceLog::print(json line) const {
  line["job"] = job_;
  line["time"] = std::time(nullptr);
  fmt::print("{}\n", line.dump(-1, ' ', false, json::error_handler_t::replace));
  (void)std::fflush(stdout);
}

void BalanceLog::decision(const balance::Plan& plan, const balance::Measurement& measured,
                          const std::vector<std::string>& hosts, const std::vector<RankMove>& moves,
                          bool carries_out) const {
  if (as_json_) {
    json line = {{"event", "decision"},
                 {"has_steps", measured.has_steps},
                 {"step_s", finite(measured.job.step_s)},
                 {"expected_step_s", finite(plan.step_s)},
                 {"expected_step_after_s", finite(plan.step_after_s)},
                 {"expected_by_home_s", plan.by_home_s},
                 {"best_step_s", finite(plan.bound_s)},
                 {"cost_s", plan.cost_s},
                 {"reason", plan.reason},
                 {"carried_out", carries_out},
                 {"moves", moves_json(moves)},
                 {"hosts", hosts_json(measured.job, hosts)}};
    if (plan.word) {
      line["last_plan"] = {{"promised_gain", plan.word->promised},
                           {"gain", finite(plan.word->came)},
                           {"kept", plan.word->kept}};
    }
    print(std::move(line));
    return;
  }
  if (plan.word) {
    fmt::print("{}\n", word_text(*plan.word));
  }
  const std::time_t now = std::time(nullptr);
  fmt::print("{:%H:%M:%S} {}\n", fmt::localtime(now), plan.reason);
  for (const RankMove& move : moves) {
    fmt::print("  rank {} (pid {}, {:.0f} MB) {} from {} to {}, expected to stop for {:.3g} s\n",
               move.rank, move.pid, move.memory_bytes / 1e6,
               carries_out ? "is moved" : "would be moved", move.from, move.to,
               move.expected.stop_s);
  }
  (void)std::fflush(stdout);
}

void BalanceLog::unmeasured(const std::string& why) const {
  if (as_json_) {
    print({{"event", "unmeasured"}, {"reason", why}});
  } else {
    fmt::print("nothing is decided: {}\n", why);
    (void)std::fflush(stdout);
  }
}

void BalanceLog::moved(const RankMove& move, const std::string& state, const json& result) const {
  const balance::MeasuredMove measured = measured_move(move, result);
  const json refusals = result.value("refusals", json::array());
  std::string why = error_text(result);
  if (why.empty() && refusals.is_array() && !refusals.empty()) {
    why = text_of(refusals.front(), "code") + ": " + text_of(refusals.front(), "reason");
  }
  if (as_json_) {
    json line = {{"event", "move"},
                 {"rank", move.rank},
                 {"pid", move.pid},
                 {"from", move.from},
                 {"to", move.to},
                 {"state", state},
                 {"memory_bytes", move.memory_bytes},
                 {"expected_stop_s", move.expected.stop_s},
                 {"expected_transfer_s", move.expected.transfer_s(move.memory_bytes)}};
    if (state == "moved") {
      line["stop_s"] = measured.stop_s;
      line["transfer_s"] = measured.transfer_s;
    } else {
      line["reason"] = why;
    }
    print(std::move(line));
    return;
  }
  if (state == "moved") {
    fmt::print(
        "  rank {} runs on {}: stopped for {:.3g} s, all there after {:.3g} s (expected {:.3g} "
        "s)\n",
        move.rank, move.to, measured.stop_s, measured.transfer_s,
        move.expected.transfer_s(move.memory_bytes));
  } else {
    fmt::print("  rank {} was not moved ({}): {}\n", move.rank, state, why);
  }
  (void)std::fflush(stdout);
}

void BalanceLog::ended(const std::string& why) const {
  if (as_json_) {
    print({{"event", "end"}, {"reason", why}});
  } else {
    fmt::print("{}\n", why);
    (void)std::fflush(stdout);
  }
}

}  // namespace migrate
