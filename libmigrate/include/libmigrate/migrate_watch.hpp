/// libmigrate for C++20: migrate_watch.h. migrate.hpp includes this.
#pragma once

#include <libmigrate/migrate.h>

#include <exception>
#include <functional>
#include <libmigrate/migrate_result.hpp>
#include <string>
#include <utility>

namespace migrate {

/// Where a process was seen.
struct sighting {
  std::string identity;  ///< Its global name.
  std::string state;
  std::string where;
};
/// Calls `seen` at once and whenever the process has changed its state or host, until that returns
/// false or the process has ended: migrate_watch(). What it throws ends that, and comes when the
/// call is over.
inline result try_watch(const std::string& name, std::function<bool(const sighting&)> seen,
                        const options& wanted = {}) {
  struct watcher {
    std::function<bool(const sighting&)> seen;
    std::exception_ptr thrown;
  } told{std::move(seen), nullptr};
  const auto tell = [](const migrate_sighting* each, void* data) noexcept -> int {
    auto& watching = *static_cast<watcher*>(data);
    try {
      return watching.seen({each->identity, each->state, each->where}) ? 0 : 1;
    } catch (...) {
      watching.thrown = std::current_exception();
      return 1;
    }
  };
  result came_to = detail::call(wanted, [&](const migrate_options* given, migrate_result** into) {
    return migrate_watch(name.c_str(), tell, &told, given, into);
  });
  if (told.thrown) {
    std::rethrow_exception(told.thrown);
  }
  return came_to;
}
/// Sends a signal to a process, wherever it is.
inline result try_send_signal(const std::string& name, int signal, const options& wanted = {}) {
  return detail::call(wanted, [&](const migrate_options* given, migrate_result** came_to) {
    return migrate_kill(name.c_str(), signal, given, came_to);
  });
}
inline void send_signal(const std::string& name, int signal, const options& wanted = {}) {
  detail::done(try_send_signal(name, signal, wanted));
}

}  // namespace migrate
