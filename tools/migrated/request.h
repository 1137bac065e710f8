#pragma once

#include <sys/types.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/result.h"
#include "libmigrate/requests/requests.h"
#include "libmigrate/rights/asker.h"

namespace migrate {

/// One request of the local socket, read and with its asker known.
struct Request {
  nlohmann::json body;  ///< An object.
  Command command = Command::kPing;
  ProcessName process;
  pid_t client_pid = 0;
  Asker asker;
  std::uint64_t token =
      0;  ///< By which a process that asks about itself knows the answer; 0: none.

  /// The process that it names by pid; -1 if there is none.
  pid_t pid() const { return process.pid == 0 ? client_pid : process.pid; }
};

/// Reads the line of a request: body, command and process. Errors: kInvalid (not a JSON object,
/// nested too deeply, no such command).
Result<Request> parse_request(std::string_view line);

/// kInvalid, which the command line tool reports as wrong usage.
Error usage_error(const char* operation, std::string object, std::string remedy);

}  // namespace migrate
