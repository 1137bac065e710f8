#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "libmigrate/include/libmigrate/migrate.h"

namespace migrate::client {

/// What a call came to, before it is a migrate_result.
struct Answer {
  int status = MIGRATE_ERROR;
  std::string message;      ///< Why it is not MIGRATE_DONE.
  std::string json = "{}";  ///< An object.
};

Answer answer_of(int status, std::string message);

/// The end of a time, or none. By CLOCK_MONOTONIC, which goes on where a process is moved to.
class TimeLimit {
 public:
  TimeLimit() = default;
  explicit TimeLimit(double seconds);

  bool is_over() const { return end_ && Clock::now() >= *end_; }
  /// For poll(2): at most `most`, -1 for any time.
  int left_ms(int most = -1) const;

 private:
  using Clock = std::chrono::steady_clock;
  std::optional<Clock::time_point> end_;
};

/// A struct of options as this library knows it, or an answer that says what is wrong with it.
struct Options {
  migrate_options chosen{};
  std::optional<Answer> wrong;
};
Options read_options(const migrate_options* given);

/// What the daemon says before the result: one JSON object. False: nothing more is wanted.
using OnEvent = std::function<bool(const std::string& event)>;

/// Sends one request (a JSON object without its end of line) to the daemon of this host and waits
/// for the result; the refusals that were told before are in it. Leaves no descriptor open. Where
/// `on_event` ends it, the answer is MIGRATE_DONE. `before_close` is called once the answer is
/// there.
Answer exchange(
    const migrate_options& options, const std::string& request, const TimeLimit& limit,
    const OnEvent& on_event, const std::function<void()>& before_close = [] {});

/// The answer that a result line, or object, stands for.
Answer parse_result(const std::string& line, const std::string& refusals = {});

/// `text`, or `fallback` if it is NULL or empty.
const char* or_default(const char* text, const char* fallback);

}  // namespace migrate::client
