#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "libmigrate/state/database.h"

namespace migrate {

/// A name that a user has given to a process whose home is here.
struct GivenName {
  std::string name;
  std::string identity;  ///< Its global name, as to_string() gives it.
  uid_t user = 0;        ///< Who gave it.
  friend bool operator==(const GivenName&, const GivenName&) = default;
};

/// When `process`, whose home is here, has ended, `other` is sent a signal.
struct EndLink {
  std::string process;  ///< Global names, as to_string() gives them.
  std::string other;
  int signal = 0;
  uid_t user = 0;     ///< Who asked for it,
  std::string asker;  ///< and in whose name the signal is sent: an Asker, as JSON.
  friend bool operator==(const EndLink&, const EndLink&) = default;
};

/// What users have said of processes whose home is here: a database `names.sqlite` in the state
/// directory. It outlives daemons and workers. Errors and threads: as Database.
class NameBook {
 public:
  /// The most names, and the most links, of one user.
  static constexpr std::size_t kMostOfUser = 1024;

  /// Creates it if missing. Waits up to `patience_ms` for others, now and in each call.
  static Result<NameBook> open(const std::string& state_directory, int patience_ms = 5000);
  static std::string path(const std::string& state_directory);
  /// A file that is there if there may be links; whoever finds none removes it, and looks again.
  static std::string links_mark(const std::string& state_directory);

  NameBook(NameBook&&) noexcept = default;
  NameBook& operator=(NameBook&&) noexcept = default;

  /// Gives the name, which its process had before or nobody has. Errors: kRefused (another process
  /// has it, or the user has kMostOfUser others).
  Result<void> give(const GivenName& given);
  Result<std::optional<GivenName>> find(const std::string& name);
  /// Whether it was given to that process until now.
  Result<bool> take_away(const GivenName& given);
  /// All of them, in the order of their names.
  Result<std::vector<GivenName>> names();

  /// Replaces a link of the same two. Errors: kRefused (the user has kMostOfUser others).
  Result<void> link(const EndLink& link);
  /// Whether there was one of these two.
  Result<bool> unlink(const std::string& process, const std::string& other);
  /// Sets the mark: see links_mark().
  Result<void> mark_links();
  /// All of them, oldest first; those of one process only, if it is given.
  Result<std::vector<EndLink>> links(const std::string& process = {});

 private:
  NameBook(Database database, std::string links_mark)
      : database_(std::move(database)), links_mark_(std::move(links_mark)) {}
  Result<std::size_t> count(const char* table, uid_t user);
  Result<bool> remove(const char* sql, const std::string& first, const std::string& second);

  Database database_;
  std::string links_mark_;
};

}  // namespace migrate
