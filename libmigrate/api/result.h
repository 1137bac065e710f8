#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "libmigrate/api/connection.h"
#include "libmigrate/include/libmigrate/migrate.h"

/// What migrate.h calls a result. Const-thread-safe.
struct migrate_result {
  explicit migrate_result(migrate::client::Answer from);

  struct Refusal {
    std::string code, object, reason, remedy;
  };
  struct Process {
    std::string id, role, state, where, home, command, origin;
    migrate_process values{};  // but for the strings
  };

  migrate::client::Answer answer;
  std::vector<Refusal> refusals;
  std::vector<Process> processes;
  std::string origin;  // of the caller's identity
  migrate_identity identity{};

  /// A member by its path; empty if there is none. `is_text`: a string, unescaped, else as it
  /// stands.
  const std::string& member(const std::string& path, bool is_text) const;

 private:
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::string> members_;  // Those that were asked for.
};

namespace migrate::client {

/// Sets the calling thread's last message; *result, unless `result` is NULL; returns the status.
int give(migrate_result** result, Answer answer);

/// Runs `body` and gives what it answers. What the C++ library throws (no memory) is a status, too:
/// callers are C. Nothing else is caught: by such a thing a thread ends that is cancelled.
int guarded(migrate_result** result, const std::function<Answer()>& body);
/// The calling thread's last message.
void note_message(const std::string& message) noexcept;

}  // namespace migrate::client
