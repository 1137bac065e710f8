/// libmigrate for C++20: migrate.h with values, exceptions and scopes. Header-only; link
/// libmigrate.so. Needs exceptions and run-time type information (no -fno-exceptions, -fno-rtti).
///
///   migrate::move_self("hostB");                    // throws migrate::error where it was
///   if (auto moved = migrate::try_move_self("hostB"); !moved) {
///     for (const migrate::refusal& each : moved.refusals()) { ... }
///   }
///   const migrate::hold section;                    // not moved until the end of the scope
///
/// What migrate.h says of each function holds here. Functions that throw have a twin try_... that
/// returns the result instead, for what a program goes on from.
#pragma once

#include <functional>
#include <libmigrate/migrate_advice.hpp>
#include <libmigrate/migrate_arena.hpp>
#include <libmigrate/migrate_map.hpp>
#include <libmigrate/migrate_result.hpp>
#include <libmigrate/migrate_task.hpp>
#include <libmigrate/migrate_watch.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace migrate {

/// Moves the caller to `host`. Returns there.
inline result try_move_self(const std::string& host, const options& wanted = {}) {
  return detail::call(wanted, [&](const migrate_options* given, migrate_result** came_to) {
    return migrate_self(host.c_str(), given, came_to);
  });
}
inline void move_self(const std::string& host, const options& wanted = {}) {
  detail::done(try_move_self(host, wanted));
}

/// Whether the caller could be moved to `host` (empty: anywhere); the refusals say why not.
inline result check_self(const std::string& host = {}, const options& wanted = {}) {
  return detail::call(wanted, [&](const migrate_options* given, migrate_result** came_to) {
    return migrate_check_self(host.c_str(), given, came_to);
  });
}
/// The same of another process.
inline result check(pid_t pid, const std::string& host = {}, const options& wanted = {}) {
  return detail::call(wanted, [&](const migrate_options* given, migrate_result** came_to) {
    return migrate_check(pid, host.c_str(), given, came_to);
  });
}

/// Where the caller is. Throws error.
inline place here(const options& wanted = {}) {
  const result came_to =
      detail::done(detail::call(wanted, [](const migrate_options* given, migrate_result** into) {
        return migrate_here(given, into);
      }));
  return came_to.place().value();
}

/// The processes that this host knows; with `all` those that are over, too. Throws error.
inline std::vector<process> list(bool all = false, const options& wanted = {}) {
  return detail::done(detail::call(wanted,
                                   [all](const migrate_options* given, migrate_result** came_to) {
                                     return migrate_list(all ? 1 : 0, given, came_to);
                                   }))
      .processes();
}
/// One of them, by its id, the beginning of that, or its pid. Throws error.
inline process state(const std::string& name, const options& wanted = {}) {
  return detail::done(detail::call(wanted,
                                   [&](const migrate_options* given, migrate_result** came_to) {
                                     return migrate_state(name.c_str(), given, came_to);
                                   }))
      .processes()
      .at(0);
}

/// Moves another process.
inline result try_move_process(pid_t pid, const std::string& host, const options& wanted = {}) {
  return detail::call(wanted, [&](const migrate_options* given, migrate_result** came_to) {
    return migrate_move(pid, host.c_str(), given, came_to);
  });
}
inline result move_process(pid_t pid, const std::string& host, const options& wanted = {}) {
  return detail::done(try_move_process(pid, host, wanted));
}

/// Copies another process, which runs on, and runs the copies at `hosts`, one after the other, over
/// and over (`count` 0: one at each).
inline result try_fork_process(pid_t pid, const std::vector<std::string>& hosts,
                               std::size_t count = 0, const options& wanted = {}) {
  std::vector<const char*> names;
  for (const std::string& each : hosts) {
    names.push_back(each.c_str());
  }
  return detail::call(wanted, [&](const migrate_options* given, migrate_result** came_to) {
    return migrate_fork(pid, names.data(), names.size(), count, given, came_to);
  });
}
/// The copies that run there. Throws error if not all do; those that do run on.
inline std::vector<process> fork_process(pid_t pid, const std::vector<std::string>& hosts,
                                         std::size_t count = 0, const options& wanted = {}) {
  return detail::done(try_fork_process(pid, hosts, count, wanted)).processes();
}

/// Waits until a process is owed nothing.
inline result try_wait_done(const std::string& name, const options& wanted = {}) {
  return detail::call(wanted, [&](const migrate_options* given, migrate_result** came_to) {
    return migrate_wait(name.c_str(), "done", given, came_to);
  });
}
/// Waits until a process has ended; how, as waitpid gives it. Nothing: the time limit came first.
/// Throws error.
inline std::optional<int> wait_exit(const std::string& name, const options& wanted = {}) {
  result came_to = detail::call(wanted, [&](const migrate_options* given, migrate_result** into) {
    return migrate_wait(name.c_str(), "exit", given, into);
  });
  if (came_to.status() == MIGRATE_TIMEOUT) {
    return std::nullopt;
  }
  return static_cast<int>(detail::done(std::move(came_to)).number("exit_status").value_or(0));
}

/// A point at which the caller may be moved. True where it was.
inline bool point() {
  return migrate_point() != 0;
}

/// While one lives, these functions are called before and after a move; migrate_hooks says when. An
/// exception of `before` is a veto with its message; the others are to throw none. Throws error's
/// base, std::runtime_error, if there is no room for it.
class hooks {
 public:
  using reason = std::optional<std::string>;  ///< Against the move; nothing: none.

  hooks(std::function<reason()> before, std::function<void()> after,
        std::function<void(const std::string& why)> failed)
      : before_(std::move(before)), after_(std::move(after)), failed_(std::move(failed)) {
    migrate_hooks given = {};
    given.size = sizeof given;
    given.data = this;
    given.before = [](void* self) { return static_cast<hooks*>(self)->ask(); };
    given.after = [](void* self) { static_cast<hooks*>(self)->tell_moved(); };
    given.failed = [](const char* why, void* self) { static_cast<hooks*>(self)->tell_failed(why); };
    if (migrate_add_hooks(&given, &number_) != MIGRATE_DONE) {
      throw std::runtime_error(migrate_last_error());
    }
  }
  hooks(const hooks&) = delete;
  hooks& operator=(const hooks&) = delete;
  ~hooks() { static_cast<void>(migrate_remove_hooks(number_)); }

 private:
  const char* ask() {
    reason veto;
    try {
      veto = before_ ? before_() : reason();
    } catch (const std::exception& thrown) {
      veto = thrown.what();
    }
    veto_ = veto.value_or("");
    return veto ? veto_.c_str() : nullptr;
  }
  void tell_moved() noexcept {
    if (after_) {
      after_();
    }
  }
  void tell_failed(const char* why) noexcept {
    if (failed_) {
      failed_(why);
    }
  }

  std::function<reason()> before_;
  std::function<void()> after_;
  std::function<void(const std::string& why)> failed_;
  std::string veto_;
  int number_ = 0;
};

/// While one lives, the process is not moved. Throws std::runtime_error if that cannot be.
class hold {
 public:
  hold() {
    if (migrate_hold() != MIGRATE_DONE) {
      throw std::runtime_error(migrate_last_error());
    }
  }
  hold(const hold&) = delete;
  hold& operator=(const hold&) = delete;
  ~hold() { static_cast<void>(migrate_release()); }
};

}  // namespace migrate
