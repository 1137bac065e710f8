#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/result.h"
#include "libmigrate/requests/request_json.h"
#include "libmigrate/rights/asker.h"
#include "libmigrate/rights/peer_process.h"

namespace migrate {

/// One request of the local socket, read and with its asker known.
struct Request {
  AnyRequest wanted;
  ProcessName process;
  PeerProcess client;
  Asker asker;
  std::uint64_t token =
      0;  ///< By which a process that asks about itself knows the answer; 0: none.

  /// The process that it names by pid; -1 if there is none.
  pid_t pid() const { return process.pid == 0 ? client.pid() : process.pid; }
  /// Whether the process with pid `other` is the client itself.
  bool is_of_client(pid_t other) const { return other == client.pid() && client.is_there(); }
};

/// Reads the line of a request: what is wanted, and of which process. Errors: kInvalid (not a JSON
/// object, nested too deeply, no such command, a member that cannot be).
Result<Request> parse_request(std::string_view line);

/// kInvalid, which the command line tool reports as wrong usage.
Error usage_error(const char* operation, std::string object, std::string remedy);

}  // namespace migrate
