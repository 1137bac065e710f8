/// Values, results and errors of libmigrate for C++20. Part of migrate.hpp, which programs include.
#pragma once

#include <libmigrate/migrate.h>

#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace migrate {

using seconds = std::chrono::duration<double>;

/// A reason against a move.
struct refusal {
  std::string code, object, reason, remedy;
};

/// What names a process wherever it is, and no other one.
struct identity {
  std::string origin;
  std::uint64_t serial = 0;
  std::uint64_t epoch = 0;
  friend auto operator<=>(const identity&, const identity&) = default;
};

/// Where the caller is.
struct place {
  std::string host, address, home;
  unsigned moves = 0;
  migrate::identity identity;
  std::uint64_t owed_pages = 0;
};

/// A process that came to this host or went away from it.
struct process {
  std::string id;
  pid_t pid = 0;
  std::string role, state, where, home, command;
  migrate::identity identity;
  std::optional<std::uint64_t> owed_pages;
  std::optional<int> exit_status;  ///< As waitpid gives it.
};

/// How to do it; what is not set is as in migrate.h.
struct options {
  std::string socket{};
  std::string mode{};
  std::string wait{};
  seconds retry{0};
  seconds time_limit{0};
  std::function<void(const migrate_progress&)> progress{};
  std::string network{};
};

/// What a call came to; true if that is MIGRATE_DONE. Move-only. Const-thread-safe.
class result {
 public:
  explicit result(migrate_result* owned) noexcept : owned_(owned) {}

  int status() const noexcept { return migrate_result_status(owned_.get()); }
  explicit operator bool() const noexcept { return status() == MIGRATE_DONE; }
  std::string message() const { return migrate_result_message(owned_.get()); }
  std::string json() const { return migrate_result_json(owned_.get()); }
  std::string text(const char* name) const { return migrate_result_text(owned_.get(), name); }
  std::optional<double> number(const char* name) const {
    double value = 0;
    return migrate_result_number(owned_.get(), name, &value) == 0 ? std::optional(value)
                                                                  : std::nullopt;
  }
  std::vector<refusal> refusals() const {
    std::vector<refusal> all;
    migrate_refusal each = {};
    each.size = sizeof each;
    for (std::size_t i = 0; migrate_result_refusal(owned_.get(), i, &each) == 0; ++i) {
      all.push_back({each.code, each.object, each.reason, each.remedy});
    }
    return all;
  }
  std::vector<process> processes() const {
    std::vector<process> all;
    migrate_process each = {};
    each.size = sizeof each;
    for (std::size_t i = 0; migrate_result_process(owned_.get(), i, &each) == 0; ++i) {
      all.push_back({.id = each.id,
                     .pid = each.pid,
                     .role = each.role,
                     .state = each.state,
                     .where = each.where,
                     .home = each.home,
                     .command = each.command,
                     .identity = known(each.identity),
                     .owed_pages = {},
                     .exit_status = {}});
      if (each.owed_pages != UINT64_MAX) {
        all.back().owed_pages = each.owed_pages;
      }
      if (each.exit_status >= 0) {
        all.back().exit_status = each.exit_status;
      }
    }
    return all;
  }
  std::optional<migrate::place> place() const {
    migrate_place here = {};
    here.size = sizeof here;
    if (migrate_result_place(owned_.get(), &here) != 0) {
      return std::nullopt;
    }
    return migrate::place{here.host,  here.address,         here.home,
                          here.moves, known(here.identity), here.owed_pages};
  }
  const migrate_result* get() const noexcept { return owned_.get(); }

 private:
  struct deleter {
    void operator()(migrate_result* each) const noexcept { migrate_result_free(each); }
  };
  static migrate::identity known(const migrate_identity& from) {
    return {from.origin, from.serial, from.epoch};
  }

  std::unique_ptr<migrate_result, deleter> owned_;
};

/// A call that did not come to what was asked: its result, as an exception.
class error : public std::runtime_error {
 public:
  explicit error(result from)
      : std::runtime_error(from.message()),
        from_(std::make_shared<const result>(std::move(from))) {}
  int status() const noexcept { return from_->status(); }
  std::vector<refusal> refusals() const { return from_->refusals(); }

 private:
  std::shared_ptr<const result> from_;  // An exception is copied.
};

namespace detail {

/// Calls a function of migrate.h. What the progress function throws is thrown again when the call
/// is over: the library is not to be left by an exception.
template <class Call>
result call(const options& wanted, const Call& function) {
  struct hearer {
    const options& wanted;
    std::exception_ptr thrown;
  } hears{wanted, nullptr};
  migrate_options given = {};
  given.size = sizeof given;
  given.socket = wanted.socket.c_str();
  given.mode = wanted.mode.c_str();
  given.wait = wanted.wait.c_str();
  given.network = wanted.network.c_str();
  given.retry_seconds = wanted.retry.count();
  given.time_limit_seconds = wanted.time_limit.count();
  if (wanted.progress) {
    given.progress_data = &hears;
    given.progress = [](const migrate_progress* progress, void* data) {
      auto& to = *static_cast<hearer*>(data);
      try {
        if (!to.thrown) {
          to.wanted.progress(*progress);
        }
      } catch (...) {
        to.thrown = std::current_exception();
      }
    };
  }
  migrate_result* owned = nullptr;
  static_cast<void>(function(&given, &owned));
  result came_to(owned);
  if (hears.thrown) {
    std::rethrow_exception(hears.thrown);
  }
  if (owned == nullptr) {
    throw std::bad_alloc();
  }
  return came_to;
}

inline result done(result came_to) {
  return came_to ? std::move(came_to) : throw error(std::move(came_to));
}

}  // namespace detail

}  // namespace migrate
