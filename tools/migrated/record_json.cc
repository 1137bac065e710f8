#include "tools/migrated/record_json.h"

#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>

#include "base/clock.h"
#include "libmigrate/requests/json_member.h"

namespace migrate {
namespace {

std::int64_t age_us(std::int64_t since_us) {
  return std::max<std::int64_t>(calendar_us() - since_us, 0);
}

nlohmann::json result_of(const ProcessRecord& record) {
  nlohmann::json result = parse_object(record.result);
  return result.is_object() ? result : nlohmann::json::object();
}

/// What the last move came to; of a process that has ended nothing is still to come.
void add_last_move(const ProcessRecord& record, nlohmann::json& object) {
  nlohmann::json result = result_of(record);
  result.erase("event");
  result.erase("exit");
  const auto expected = result.find("expected_independence_us");
  if (expected != result.end()) {
    if (is_live(record.state)) {
      object["expected_independence_us"] = *expected;
    }
    result.erase(expected);
  }
  const auto drained = result.find("owed_nothing_after_us");
  if (!is_live(record.state) &&
      (result.contains("lost") || drained == result.end() || drained->is_null())) {
    result.erase("owed_nothing_after_us");  // It ended, perhaps with pages owed.
    result.erase("state");
  }
  if (!result.empty()) {
    object["last_move"] = std::move(result);
  }
}

}  // namespace

std::string lost_reason(const ProcessRecord& record) {
  const std::string reason = text_member(result_of(record), "lost");
  return reason.empty() && record.state == ProcessState::kLost ? "this host was started again"
                                                               : reason;
}

std::string exit_text(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    const int number = WTERMSIG(wait_status);
    return "ended by signal " + std::to_string(number) + " (" + strsignal(number) + ")";
  }
  return "exited with status " + std::to_string(WEXITSTATUS(wait_status));
}

nlohmann::json record_json(const ProcessRecord& record, const std::string& here) {
  nlohmann::json object = {{"process", record.process},
                           {"role", to_string(record.role)},
                           {"pid", record.pid},
                           {"state", to_string(record.state)},
                           {"home", record.home.empty() ? here : record.home},
                           {"where", record.where.empty() ? here : record.where},
                           {"session", record.session},
                           {"mode", record.mode},
                           {"uid", record.uid},
                           {"command", record.command},
                           {"worker", record.worker},
                           {"age_us", age_us(record.created_us)},
                           {"updated_us_ago", age_us(record.updated_us)}};
  if (!record.identity.empty()) {
    object["identity"] = record.identity;
  }
  // What a later place than the first is owed by the one before, home may not have heard yet.
  if (record.owed_pages == 0 && record.state == ProcessState::kAway) {
    object["owed_pages"] = nullptr;
  } else {
    object["owed_pages"] = record.owed_pages;
  }
  if (record.owed_pages != 0 && is_live(record.state)) {
    object["owed_by"] = record.owed_by.empty() ? here : record.owed_by;
  }
  if (is_live(record.state)) {
    object["worker_alive"] = record.has_worker();
  }
  if (!record.waits_for.empty() && is_live(record.state)) {
    object["waits_for"] = record.waits_for;
    object["waits_us"] = age_us(record.waits_since_us);
  }
  if (record.exit_status) {
    object["exit_status"] = *record.exit_status;
    object["exit_text"] = exit_text(*record.exit_status);
  }
  if (const std::string reason = lost_reason(record); !reason.empty()) {
    object["lost"] = reason;
  }
  add_last_move(record, object);
  return object;
}

}  // namespace migrate
