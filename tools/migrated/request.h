#pragma once

#include <sys/types.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/rights/asker.h"

namespace migrate {

/// One request of the local socket, read and with its asker known.
struct Request {
  nlohmann::json body;  ///< An object, as parse_request() gives it.
  pid_t client_pid = 0;
  Asker asker;
  UniqueFd answer;  ///< Where the answer goes instead of the client, if valid.

  /// A member of another type counts as absent.
  std::string text(const char* name, const char* fallback = "") const;
  /// The process that it names by pid, the client itself for 0; -1 if there is none.
  pid_t pid() const;
};

/// Parses the line of a request. A process named by digits as a pid is written goes by pid from
/// then on. Errors: kInvalid (not a JSON object, or nested too deeply).
Result<nlohmann::json> parse_request(std::string_view line);

/// kInvalid, which the command line tool reports as wrong usage.
Error usage_error(const char* operation, std::string object, std::string remedy);

}  // namespace migrate
