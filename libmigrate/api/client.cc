#include <unistd.h>

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "libmigrate/api/connection.h"
#include "libmigrate/api/hooks.h"
#include "libmigrate/api/json_text.h"
#include "libmigrate/api/move_members.h"
#include "libmigrate/api/own_block.h"
#include "libmigrate/api/result.h"
#include "libmigrate/api/self.h"
#include "libmigrate/include/libmigrate/migrate.h"
#include "libmigrate/requests/move_words.h"
#include "libmigrate/requests/status_words.h"

namespace migrate::client {
namespace {

/// Microseconds and such are of migratectl's: this is what a callback hears of.
bool tell_progress(const migrate_options& options, const std::string& event) {
  const ObjectScanner scanner(event);
  const std::string kind = scanner.string("event").value_or("");
  if (options.progress == nullptr || (kind != "phase" && kind != "progress")) {
    return true;
  }
  const std::string phase = kind == "phase" ? scanner.string("phase").value_or("") : "pages";
  const auto count = [&scanner](const char* name) {
    return static_cast<std::uint64_t>(scanner.number(name).value_or(0));
  };
  const migrate_progress progress = {
      sizeof progress,     phase.c_str(),       count("arrived_pages"),
      count("owed_pages"), count("wire_bytes"), scanner.number("bytes_per_second").value_or(0)};
  options.progress(&progress, options.progress_data);
  return true;
}

/// A request about anything but the caller.
Answer ask(const migrate_options& options, const std::string& request) {
  return exchange(options, request, TimeLimit(options.time_limit_seconds),
                  [&options](const std::string& event) { return tell_progress(options, event); });
}

/// The same of one that takes a moment: whoever moves the caller waits until the connection, which
/// could not travel, is closed.
Answer ask_briefly(const migrate_options& options, const std::string& request) {
  const Holding holding(own_block());
  return exchange(options, request, TimeLimit(options.time_limit_seconds),
                  [](const std::string&) { return true; });
}

bool is_caller(pid_t pid) {
  return pid == 0 || pid == getpid();
}

Answer check(const migrate_options& options, pid_t pid, const char* destination) {
  if (pid < 0) {
    return answer_of(MIGRATE_USAGE, "a pid cannot be negative");
  }
  std::string members;
  if (auto wrong = check_members(options, destination, members)) {
    return *std::move(wrong);
  }
  return is_caller(pid) ? ask_about_self(options, members)
                        : ask(options, "{\"pid\":" + std::to_string(pid) + "," + members + "}");
}

Answer vetoed(const std::string& why) {
  Answer answer = answer_of(MIGRATE_REFUSED, "a hook of the program is against it: " + why);
  answer.json = "{\"refusals\":[{\"code\":\"HOOK_VETO\",\"object\":" +
                quote("process " + std::to_string(getpid())) + ",\"reason\":" + quote(why) +
                ",\"remedy\":\"try again when the program has no reason against it\"}]}";
  return answer;
}

/// With its hooks, which take part in nothing else that is asked.
Answer move_self(const migrate_options& options, const char* destination) {
  std::string members;
  if (auto wrong = move_members(options, destination, "resumed", members)) {
    return *std::move(wrong);
  }
  HookedMove hooks;
  if (!hooks.is_begun()) {
    return answer_of(MIGRATE_ERROR,
                     "a thread of this program is at a move already, or its hooks are called for "
                     "one; ask when that is over");
  }
  if (const auto veto = hooks.before()) {
    hooks.failed(veto->c_str());
    return vetoed(*veto);
  }
  if (!hooks.is_begun()) {
    return answer_of(MIGRATE_ERROR, "this is a child that a hook of its parent has made");
  }
  Answer answer = ask_about_self(options, members);
  if (answer.status == MIGRATE_DONE) {
    hooks.after();
  } else {
    hooks.failed(answer.message.c_str());
  }
  return answer;
}

Answer move(const migrate_options& options, pid_t pid, const char* destination) {
  std::string members;
  if (pid < 0) {
    return answer_of(MIGRATE_USAGE, "a pid cannot be negative");
  }
  if (is_caller(pid)) {
    return answer_of(MIGRATE_USAGE, "call migrate_self to move the caller");
  }
  if (auto wrong =
          move_members(options, destination, or_default(options.wait, "resumed"), members)) {
    return *std::move(wrong);
  }
  return ask(options, "{\"pid\":" + std::to_string(pid) + "," + members + "}");
}

Answer fork_process(const migrate_options& options, pid_t pid,
                    std::span<const char* const> destinations, std::size_t count) {
  if (pid < 0) {
    return answer_of(MIGRATE_USAGE, "a pid cannot be negative");
  }
  if (is_caller(pid)) {
    return answer_of(MIGRATE_USAGE, "call migrate_spawn, or fork and migrate_self");
  }
  std::string members;
  if (auto wrong = fork_members(options, destinations, count, members)) {
    return *std::move(wrong);
  }
  return ask(options, "{\"pid\":" + std::to_string(pid) + "," + members + "}");
}

Answer wait_for(const migrate_options& options, const char* process, const char* condition) {
  const std::string what = or_default(condition, "done");
  if (process == nullptr || *process == '\0' || !find_word(what, kWaitWords)) {
    return answer_of(MIGRATE_USAGE, "wait needs a process and \"done\" or \"exit\"");
  }
  return ask(options, "{\"command\":\"wait\",\"process\":" + quote(process) +
                          ",\"for\":" + quote(what) + "}");
}

/// Whether the daemon went away before it had said anything about the request's end.
bool was_left(const Answer& answer) {
  return answer.status == MIGRATE_ERROR && answer.json == "{}";
}

Answer watch(const migrate_options& options, const char* process,
             const std::function<bool(const migrate_sighting&)>& seen) {
  if (process == nullptr || *process == '\0') {
    return answer_of(MIGRATE_USAGE, "watch needs a process: its global name, id or pid");
  }
  constexpr double kRestartedWithinSeconds = 60;
  constexpr unsigned kPauseUs = 200'000;
  const std::string request = "{\"command\":\"watch\",\"process\":" + quote(process) + "}";
  const TimeLimit limit(options.time_limit_seconds);
  std::optional<TimeLimit> restart;  // Nothing: the daemon answers, or has not answered yet.
  bool was_seen = false;
  for (;;) {
    Answer answer = exchange(options, request, limit, [&](const std::string& event) {
      const ObjectScanner scanner(event);
      if (scanner.string("event").value_or("") != "process") {
        return true;
      }
      was_seen = true;
      restart.reset();
      const auto text = [&](const char* name) { return scanner.string(name).value_or(""); };
      const std::string identity = text("identity");
      const std::string state = text("state");
      const std::string where = text("where");
      return seen({sizeof(migrate_sighting), identity.c_str(), state.c_str(), where.c_str()});
    });
    if (was_seen && was_left(answer) && !restart) {
      restart.emplace(kRestartedWithinSeconds);
    }
    if (!was_seen || !was_left(answer) || restart->is_over() || limit.is_over()) {
      return answer;
    }
    ::usleep(kPauseUs);
  }
}

Answer kill_process(const migrate_options& options, const char* process, int signal) {
  if (process == nullptr || *process == '\0') {
    return answer_of(MIGRATE_USAGE, "kill needs a process: its global name, id or pid");
  }
  return ask_briefly(options, "{\"command\":\"kill\",\"process\":" + quote(process) +
                                  ",\"signal\":" + std::to_string(signal) + "}");
}

Answer state_of(const migrate_options& options, const char* process) {
  if (process == nullptr || *process == '\0') {
    return answer_of(MIGRATE_USAGE, "state needs a process: its id or pid");
  }
  return ask_briefly(options, "{\"command\":\"show\",\"process\":" + quote(process) + "}");
}

/// Reads the options, and calls `body` with them.
template <class Body>
int with_options(const migrate_options* given, migrate_result** result, const Body& body) {
  return guarded(result, [&]() -> Answer {
    Options options = read_options(given);
    return options.wrong ? *std::move(options.wrong) : body(options.chosen);
  });
}

}  // namespace
}  // namespace migrate::client

using namespace migrate::client;  // the functions below are C's

extern "C" int migrate_version(void) {
  return MIGRATE_VERSION_NUMBER;
}

extern "C" int migrate_here(const struct migrate_options* options, migrate_result** result) {
  return with_options(options, result, [](const migrate_options& chosen) {
    return ask_briefly(chosen, "{\"command\":\"here\"}");
  });
}

extern "C" int migrate_check(pid_t pid, const char* destination,
                             const struct migrate_options* options, migrate_result** result) {
  return with_options(options, result, [&](const migrate_options& chosen) {
    return check(chosen, pid, destination);
  });
}

extern "C" int migrate_check_self(const char* destination, const struct migrate_options* options,
                                  migrate_result** result) {
  return with_options(options, result,
                      [&](const migrate_options& chosen) { return check(chosen, 0, destination); });
}

extern "C" int migrate_list(int all, const struct migrate_options* options,
                            migrate_result** result) {
  return with_options(options, result, [&](const migrate_options& chosen) {
    return ask_briefly(
        chosen, std::string("{\"command\":\"ps\",\"all\":") + (all != 0 ? "true" : "false") + "}");
  });
}

extern "C" int migrate_state(const char* process, const struct migrate_options* options,
                             migrate_result** result) {
  return with_options(options, result,
                      [&](const migrate_options& chosen) { return state_of(chosen, process); });
}

extern "C" int migrate_wait(const char* process, const char* condition,
                            const struct migrate_options* options, migrate_result** result) {
  return with_options(options, result, [&](const migrate_options& chosen) {
    return wait_for(chosen, process, condition);
  });
}

extern "C" int migrate_watch(const char* process,
                             int (*seen)(const struct migrate_sighting* sighting, void* data),
                             void* data, const struct migrate_options* options,
                             migrate_result** result) {
  return with_options(options, result, [&](const migrate_options& chosen) {
    return watch(chosen, process, [&](const migrate_sighting& sighting) {
      return seen == nullptr || seen(&sighting, data) == 0;
    });
  });
}

extern "C" int migrate_kill(const char* process, int signal, const struct migrate_options* options,
                            migrate_result** result) {
  return with_options(options, result, [&](const migrate_options& chosen) {
    return kill_process(chosen, process, signal);
  });
}

extern "C" int migrate_move(pid_t pid, const char* destination,
                            const struct migrate_options* options, migrate_result** result) {
  return with_options(options, result, [&](const migrate_options& chosen) {
    return move(chosen, pid, destination);
  });
}

extern "C" int migrate_fork(pid_t pid, const char* const* destinations, size_t destination_count,
                            size_t count, const struct migrate_options* options,
                            migrate_result** result) {
  return with_options(options, result, [&](const migrate_options& chosen) {
    return fork_process(chosen, pid,
                        {destinations, destinations == nullptr ? 0 : destination_count}, count);
  });
}

extern "C" int migrate_self(const char* destination, const struct migrate_options* options,
                            migrate_result** result) {
  return with_options(options, result, [&](const migrate_options& chosen) {
    return move_self(chosen, destination);
  });
}

extern "C" const char* migrate_strerror(int status) {
  return migrate::meaning_of(status);
}
