#include "tools/migrated/home_answers.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "libmigrate/home/home_record.h"
#include "libmigrate/migrate.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/rights/stand_in.h"
#include "libmigrate/state/global_name.h"
#include "tools/migrated/asked_process.h"
#include "tools/migrated/find_process.h"
#include "tools/migrated/links_of.h"
#include "tools/migrated/record_json.h"

namespace migrate {
namespace {

using nlohmann::json;

Error not_known(const std::string& identity) {
  return make_error(ErrorCode::kNotFound, "find the process", identity,
                    "its home does not know it: it has ended without having been moved, or the "
                    "name is wrong");
}

/// A process that has not been moved, as far as there is a row of it.
ProcessRecord unmoved(const ProcessIdentity& process, uid_t user, const std::string& identity) {
  ProcessRecord record;
  record.pid = process.pid;
  record.uid = user;
  record.command = command_line(process.pid);
  record.identity = identity;
  return record;
}
bool is_unmoved(const ProcessRecord& record) {
  return record.process.empty();
}

json told_of_unmoved(const ProcessRecord& record, const std::string& here) {
  return {{"identity", record.identity},
          {"pid", record.pid},
          {"state", "not-moved"},
          {"home", here},
          {"where", here},
          {"uid", record.uid},
          {"command", record.command}};
}

/// What is known of the process here; its row at home, if it has one, is the first. Not empty.
/// Errors: kNotFound (also of others' processes), and as Registry.
Result<std::vector<ProcessRecord>> find_fates(const WorkerContext& context, const Asker& asker,
                                              const std::string& identity) {
  const wire::GlobalName name = MIGRATE_TRY(parse_global_name(identity));
  const std::string known_as = to_string(name);
  Registry registry = MIGRATE_TRY(Registry::open(context.state_directory));
  std::vector<ProcessRecord> rows = MIGRATE_TRY(registry.find_identity(known_as));
  std::erase_if(rows, [](const ProcessRecord& row) { return row.state == ProcessState::kFailed; });
  const auto rank = [](const ProcessRecord& row) {
    return std::pair(row.role != ProcessRole::kHome, !is_live(row.state));
  };
  std::ranges::stable_sort(rows, {}, rank);
  if (rows.empty() || rows.front().role != ProcessRole::kHome) {
    const auto process = process_of(name);
    if (!process || name.origin() != context.host_name || !process->is_alive()) {
      return fail(not_known(identity));
    }
    rows = {unmoved(*process, MIGRATE_TRY(owner_of(process->pid)), known_as)};
  }
  if (!may_see(asker, rows.front())) {
    return fail(not_known(identity));
  }
  return rows;
}

/// That who asks may signal the process, or sends it a signal: for the kernel to say.
Result<void> signal_process(const Asker& asker, const std::string& identity, int signal) {
  const auto process = process_of(MIGRATE_TRY(parse_global_name(identity)));
  if (!process) {
    return fail(not_known(identity));
  }
  return send_signal_as(asker, *process, signal);
}

json told_of(const GivenName& given, const std::string& host) {
  return {{"name", given.name}, {"identity", given.identity}, {"host", host}, {"uid", given.user}};
}

/// A function for each kind of question.
struct HomeAnswers {
  const WorkerContext& context;
  const HomeQuestion& question;

  Result<Answer> operator()(const ShowRequest& /*show*/) const {
    return Answer{
        MIGRATE_DONE,
        shown(context, MIGRATE_TRY(find_fates(context, question.asker, question.identity)))};
  }

  Result<Answer> operator()(const WaitRequest& wait) const {
    const auto rows = MIGRATE_TRY(find_fates(context, question.asker, question.identity));
    const bool for_exit = wait.wait_for == WaitFor::kExit;
    const ProcessRecord& row = rows.front();
    if (is_unmoved(row)) {  // It is owed nothing.
      return Answer{for_exit ? MIGRATE_TIMEOUT : MIGRATE_DONE, told_of_unmoved(row, own())};
    }
    return wait_end(row, for_exit, own())
        .value_or(Answer{MIGRATE_TIMEOUT, record_json(row, own())});
  }

  Result<Answer> operator()(const KillRequest& kill) const {
    const auto rows = MIGRATE_TRY(find_fates(context, question.asker, question.identity));
    MIGRATE_TRY(signal_process(question.asker, question.identity, static_cast<int>(kill.signal)));
    log::info("{} sends signal {} to {}", question.asker.name(), kill.signal, question.identity);
    const ProcessRecord& row = rows.front();
    return Answer{MIGRATE_DONE,
                  {{"identity", row.identity},
                   {"where", row.where.empty() ? own() : row.where},
                   {"signal", kill.signal}}};
  }

  Result<Answer> operator()(const NameRequest& name) const {
    NameBook book = MIGRATE_TRY(NameBook::open(context.state_directory));
    if (name.action == NameAction::kList) {
      json names = json::array();
      for (const GivenName& given : MIGRATE_TRY(book.names())) {
        if (!is_over(given.identity)) {
          names.push_back(told_of(given, context.host_name));
        }
      }
      return Answer{MIGRATE_DONE, {{"names", std::move(names)}, {"host", context.host_name}}};
    }
    auto given = MIGRATE_TRY(book.find(name.name));
    if (given && is_over(given->identity)) {
      MIGRATE_TRY(book.take_away(*given));
      given.reset();
    }
    if (name.action == NameAction::kSet) {
      return give(book, name.name, given);
    }
    if (!given) {
      return fail(make_error(ErrorCode::kNotFound, "find the name", name.name,
                             "no process whose home is " + context.host_name + " has it"));
    }
    if (name.action == NameAction::kUnset) {
      MIGRATE_TRY(must_own("take away the name", name.name, given->user));
      MIGRATE_TRY(book.take_away(*given));
    }
    return Answer{MIGRATE_DONE, told_of(*given, context.host_name)};
  }

  Result<Answer> operator()(const LinkRequest& link) const {
    const std::string identity = to_string(MIGRATE_TRY(parse_global_name(question.identity)));
    const std::string other = to_string(MIGRATE_TRY(parse_global_name(link.other)));
    NameBook book = MIGRATE_TRY(NameBook::open(context.state_directory));
    const std::vector<EndLink> links = MIGRATE_TRY(book.links(identity));
    const auto found = std::ranges::find(links, other, &EndLink::other);
    if (found != links.end()) {
      MIGRATE_TRY(must_own("change the link of", identity, found->user));
    }
    if (link.ends) {
      if (found == links.end()) {
        return fail(make_error(ErrorCode::kNotFound, "find the link of", identity,
                               "it has none to " + other));
      }
      MIGRATE_TRY(book.unlink(identity, other));
    } else {
      MIGRATE_TRY(find_fates(context, question.asker, identity));
      MIGRATE_TRY(signal_process(question.asker, identity, 0));
      MIGRATE_TRY(book.link({.process = identity,
                             .other = other,
                             .signal = static_cast<int>(link.signal),
                             .user = question.asker.user,
                             .asker = json_text({{"asker", to_json(question.asker)}})}));
    }
    return Answer{MIGRATE_DONE, {{"identity", identity}, {"other", other}}};
  }

 private:
  const std::string& own() const { return context.host_name; }

  Result<Answer> give(NameBook& book, const std::string& name,
                      const std::optional<GivenName>& held) const {
    const std::string identity = to_string(MIGRATE_TRY(parse_global_name(question.identity)));
    MIGRATE_TRY(find_fates(context, question.asker, identity));
    MIGRATE_TRY(signal_process(question.asker, identity, 0));
    if (held) {
      MIGRATE_TRY(must_own("give the name", name, held->user));
    }
    for (const GivenName& each : MIGRATE_TRY(book.names())) {
      if (each.user == question.asker.user && is_over(each.identity)) {
        MIGRATE_TRY(book.take_away(each));  // It would count for him.
      }
    }
    const GivenName given{.name = name, .identity = identity, .user = question.asker.user};
    MIGRATE_TRY(book.give(given));
    return Answer{MIGRATE_DONE, told_of(given, context.host_name)};
  }

  Result<void> must_own(const char* operation, const std::string& object, uid_t owner) const {
    if (question.asker.is_root() || question.asker.user == owner) {
      return {};
    }
    return fail(make_error(ErrorCode::kRefused, operation, object,
                           "user " + std::to_string(owner) + " has made it; ask him or root"));
  }
};

}  // namespace

Answer Answer::of(const Error& error) {
  const int exit_code = error.code == ErrorCode::kInvalid   ? MIGRATE_USAGE
                        : error.code == ErrorCode::kRefused ? MIGRATE_REFUSED
                                                            : MIGRATE_ERROR;
  return {exit_code, {{"error", {{"code", to_string(error.code)}, {"message", error.message()}}}}};
}

std::string Answer::error_code() const {
  const auto error = result.find("error");
  return error == result.end() ? std::string() : text_member(*error, "code");
}

bool is_over(const std::string& identity) {
  const auto name = parse_global_name(identity);
  const auto process = name ? process_of(*name) : std::nullopt;
  return !process || !process->is_alive();
}

nlohmann::json shown(const WorkerContext& context, const std::vector<ProcessRecord>& records) {
  if (is_unmoved(records.front())) {
    return told_of_unmoved(records.front(), context.host_name);
  }
  const auto with_links = [&](const ProcessRecord& record) {
    nlohmann::json object = record_json(record, context.host_name);
    if (nlohmann::json links = links_of(context.state_directory, record); !links.empty()) {
      object["links"] = std::move(links);
    }
    if (nlohmann::json rules = link_rules_of(context.state_directory, record); !rules.empty()) {
      object["link_rules"] = std::move(rules);
    }
    return object;
  };
  nlohmann::json told = with_links(records.front());
  for (std::size_t i = 1; i < records.size(); ++i) {
    told["other_roles"].push_back(with_links(records[i]));
  }
  return told;
}

std::optional<Answer> wait_end(const ProcessRecord& record, bool for_exit,
                               const std::string& here) {
  const auto end = [&](int exit_code, const std::string& error = {}) {
    Answer answer{exit_code, record_json(record, here)};
    if (!error.empty()) {
      answer.result["error"] = {{"code", "state"}, {"message", error}};
    }
    return answer;
  };
  if (const std::string reason = lost_reason(record); !reason.empty()) {
    return end(MIGRATE_LOST, "the process was lost: " + reason);
  }
  switch (record.state) {
    case ProcessState::kExited:
      return end(MIGRATE_DONE);
    case ProcessState::kChildrenLeft:
      if (for_exit) {
        return end(MIGRATE_DONE);
      }
      break;
    case ProcessState::kFailed:
      return end(MIGRATE_FAILED, "the move failed; the process runs on as if never moved");
    case ProcessState::kMoving:
    case ProcessState::kRunningHere:
    case ProcessState::kAway:
    case ProcessState::kDone:
    case ProcessState::kLost:  // Told above.
      break;
  }
  const bool is_owed_nothing =
      record.state == ProcessState::kDone ||
      (record.state == ProcessState::kRunningHere && record.owed_pages == 0);
  if (!for_exit && is_owed_nothing) {
    return end(MIGRATE_DONE);
  }
  if (!record.has_worker()) {
    return end(MIGRATE_ERROR, "its worker " + std::to_string(record.worker) +
                                  " has ended; the log of migrated says why");
  }
  return std::nullopt;
}

Answer answer_at_home(const WorkerContext& context, const HomeQuestion& question) {
  Result<Answer> answer = std::visit(HomeAnswers{context, question}, question.wanted);
  return answer ? std::move(*answer) : Answer::of(answer.error());
}

}  // namespace migrate
