#include "tools/migrated/identity_requests.h"

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "libmigrate/migrate.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/request_json.h"
#include "libmigrate/rights/stand_in.h"
#include "libmigrate/state/global_name.h"
#include "libmigrate/state/registry.h"
#include "tools/migrated/ask_home.h"
#include "tools/migrated/find_process.h"
#include "tools/migrated/home_answers.h"
#include "tools/migrated/known_hosts.h"
#include "transport/wait.h"

namespace migrate {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr int kShortestPauseMs = 20;
constexpr int kLongestPauseMs = 500;
/// Within it a worker that has died is replaced.
constexpr std::chrono::seconds kReplacedWithin{10};

/// The global name of the process that a request names.
Result<std::string> identity_of(const LocalService& service, const Request& request) {
  const std::string& id = request.process.id;
  if (is_global_name(id)) {
    return to_string(MIGRATE_TRY(parse_global_name(id)));
  }
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  std::optional<ProcessRecord> record;
  if (id.empty() && request.process.given()) {
    record = MIGRATE_TRY(registry.find_pid(request.pid()));
  } else if (auto records = MIGRATE_TRY(find_records(registry, request)); !records.empty()) {
    record = std::move(records.front());
  }
  if (record) {
    return record->identity;
  }
  if (id.empty()) {
    const auto own = first_global_name(request.pid(), service.context.host_name);
    if (own.serial() != 0) {
      return to_string(own);
    }
  }
  return fail(unknown_process(request));
}

void tell(EventSink& client, Answer answer) {
  client.finish(answer.exit_code, std::move(answer.result));
}

/// Whether the home of a process is likely to say something else soon: its worker has died.
bool is_passing(const Answer& answer) {
  return answer.exit_code == MIGRATE_ERROR && answer.error_code() == "state";
}

/// What is asked of a process's home, again and again, until that is the end.
class Watching {
 public:
  Watching(const LocalService& service, HomeQuestion question, bool tells, EventSink& client)
      : service_(service), question_(std::move(question)), tells_(tells), client_(client) {}

  /// Errors: those of the first time.
  Result<void> run() {
    for (int pause_ms = kShortestPauseMs;; pause_ms = std::min(pause_ms * 2, kLongestPauseMs)) {
      auto answer = ask_home(service_, question_);
      if (!answer && !was_known_) {
        return fail(std::move(answer).error());
      }
      if (answer ? take(std::move(*answer)) : note_silence(answer.error())) {
        return {};
      }
      if (MIGRATE_TRY(wait_for(client_.descriptor(), POLLIN | POLLRDHUP, Deadline(pause_ms)))) {
        return {};  // the client is gone
      }
    }
  }

 private:
  // True: that was the end.
  bool take(Answer answer) {
    is_silent_ = false;
    if (answer.exit_code == MIGRATE_TIMEOUT) {
      was_known_ = true;
      passing_since_.reset();
      tell_change(answer.result);
      return false;
    }
    if (was_known_ && answer.error_code() == to_string(ErrorCode::kNotFound)) {
      answer.result["error"]["message"] =
          "it has ended; as it was not moved, only its parent knows how";
    }
    const auto now = Clock::now();
    if (is_passing(answer) && now - passing_since_.value_or(now) < kReplacedWithin) {
      passing_since_ = passing_since_.value_or(now);
      return false;
    }
    tell(client_, std::move(answer));
    return true;
  }

  bool note_silence(const Error& error) {
    if (tells_ && !is_silent_) {
      client_.send({{"event", "unreachable"}, {"message", error.message()}});
    }
    is_silent_ = true;
    return false;
  }

  void tell_change(const json& process) {
    json now = {{"event", "process"}};
    for (const char* const member : {"identity", "state", "where"}) {
      now[member] = process.value(member, json());
    }
    if (tells_ && now != last_) {
      client_.send(now);
    }
    last_ = std::move(now);
  }

  const LocalService& service_;
  HomeQuestion question_;
  bool tells_;
  EventSink& client_;
  bool was_known_ = false;
  bool is_silent_ = false;
  std::optional<Clock::time_point> passing_since_;
  json last_;
};

/// Sends it where it runs, which is here.
Result<Answer> kill_here(const LocalService& service, const HomeQuestion& question,
                         const KillRequest& kill, const Error& unreachable) {
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  const auto rows = MIGRATE_TRY(registry.find_identity(question.identity));
  const auto found = std::ranges::find_if(rows, [&](const ProcessRecord& row) {
    return row.role == ProcessRole::kGuest && row.state == ProcessState::kRunningHere &&
           may_see(question.asker, row);
  });
  if (found == rows.end()) {
    return fail(unreachable);
  }
  MIGRATE_TRY(send_signal_as(question.asker, ProcessIdentity::of(found->pid),
                             static_cast<int>(kill.signal)));
  return Answer{MIGRATE_DONE,
                {{"identity", question.identity},
                 {"where", service.context.host_name},
                 {"signal", kill.signal}}};
}

/// What every known host that has the name says of it; who does not answer has none.
Result<Answer> find_name(const LocalService& service, const HomeQuestion& question,
                         const std::string& name) {
  std::vector<Answer> found;
  std::string silent;
  const auto add = [&](Answer answer) {
    const bool is_new = std::ranges::find(found, answer.result, &Answer::result) == found.end();
    if (answer.exit_code == MIGRATE_DONE && is_new) {  // One host may have several addresses.
      found.push_back(std::move(answer));
    }
  };
  add(answer_at_home(service.context, question));
  if (!found.empty()) {
    return std::move(found.front());
  }
  for (const std::string& text : MIGRATE_TRY(known_addresses(service))) {
    const auto address = Address::parse(text);
    auto answer = address ? ask_host(service.context.trust, *address, question)
                          : Result<Answer>(fail(address.error()));
    if (answer) {
      add(std::move(*answer));
    } else {
      silent += (silent.empty() ? "" : ", ") + text;
    }
  }
  if (found.size() == 1) {
    return std::move(found.front());
  }
  std::string hosts;
  for (const Answer& each : found) {
    hosts += (hosts.empty() ? "" : ", ") + text_member(each.result, "host");
  }
  return fail(hosts.empty()
                  ? make_error(ErrorCode::kNotFound, "find the name", name,
                               "no host that is known here has it" +
                                   (silent.empty() ? "" : "; no answer from " + silent))
                  : make_error(ErrorCode::kInvalid, "find the name", name,
                               "several hosts have it: " + hosts + "; say which, by NAME@HOST"));
}

}  // namespace

Result<json> tell_identity(const LocalService& service, const Request& request) {
  return json{{"identity", MIGRATE_TRY(identity_of(service, request))}};
}

Result<void> show_by_home(const LocalService& service, const Request& request, EventSink& client) {
  tell(client,
       MIGRATE_TRY(ask_home(service, {.asker = request.asker,
                                      .identity = MIGRATE_TRY(identity_of(service, request)),
                                      .wanted = ShowRequest()})));
  return {};
}

Result<void> wait_by_home(const LocalService& service, const Request& request,
                          const WaitRequest& wait, EventSink& client) {
  const HomeQuestion question{request.asker, MIGRATE_TRY(identity_of(service, request)),
                              WaitRequest{wait.wait_for, true}};
  if (wait.at_once) {
    tell(client, MIGRATE_TRY(ask_home(service, question)));
    return {};
  }
  return Watching(service, question, false, client).run();
}

Result<void> watch_process(const LocalService& service, const Request& request, EventSink& client) {
  return Watching(service,
                  {request.asker, MIGRATE_TRY(identity_of(service, request)),
                   WaitRequest{WaitFor::kExit, true}},
                  true, client)
      .run();
}

Result<void> kill_process(const LocalService& service, const Request& request,
                          const KillRequest& kill, EventSink& client) {
  const HomeQuestion question{request.asker, MIGRATE_TRY(identity_of(service, request)), kill};
  auto answer = ask_home(service, question);
  if (!answer) {
    answer = kill_here(service, question, kill, answer.error());
  }
  tell(client, MIGRATE_TRY(std::move(answer)));
  return {};
}

Result<void> use_name(const LocalService& service, const Request& request, const NameRequest& name,
                      EventSink& client) {
  HomeQuestion question{request.asker, {}, name};
  if (name.action == NameAction::kSet) {
    question.identity = MIGRATE_TRY(identity_of(service, request));
    tell(client, MIGRATE_TRY(ask_home(service, question)));
  } else if (name.action == NameAction::kGet && name.host.empty()) {
    tell(client, MIGRATE_TRY(find_name(service, question, name.name)));
  } else {
    tell(client, MIGRATE_TRY(ask_home(service, question, name.host)));
  }
  return {};
}

Result<void> link_processes(const LocalService& service, const Request& request,
                            const LinkRequest& link, EventSink& client) {
  Request other_request;
  other_request.asker = request.asker;
  other_request.process = MIGRATE_TRY(parse_process({{"process", link.other}}));
  const std::string first = MIGRATE_TRY(identity_of(service, request));
  const std::string second = MIGRATE_TRY(identity_of(service, other_request));
  if (first == second) {
    return fail(usage_error("link", first, "give two processes"));
  }
  const auto half = [&](const std::string& process, const std::string& other, bool ends) {
    LinkRequest wanted = link;
    wanted.other = other;
    wanted.ends = ends;
    return ask_home(service, {request.asker, process, wanted});
  };
  Answer answer = MIGRATE_TRY(half(first, second, link.ends));
  if (answer.exit_code == MIGRATE_DONE && !link.one_way) {
    auto other = half(second, first, link.ends);
    if ((!other || other->exit_code != MIGRATE_DONE) && !link.ends) {
      static_cast<void>(half(first, second, true));
    }
    answer = MIGRATE_TRY(std::move(other));
  }
  tell(client, std::move(answer));
  return {};
}

}  // namespace migrate
