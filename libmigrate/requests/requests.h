#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "libmigrate/host/worker_context.h"
#include "libmigrate/rights/asker.h"

namespace migrate {

/// How fast the memory of a process follows it; see PageServerOptions.
struct PushLimits {
  std::uint64_t bytes_per_second = 0;
  std::chrono::milliseconds deadline{0};
};

/// A `move` as asked for over the local socket.
struct MoveRequest {
  pid_t pid = 0;
  std::string process;             ///< Id, if the process was named by id.
  std::string destination;         ///< HOST:PORT.
  std::string mode;                ///< lazy, demand or eager.
  std::string transport = "auto";  ///< Of the pages; see PageTransport.
  std::string wait;                ///< resumed, done or exit.
  uid_t uid = 0;                   ///< Whose process it is.
  Asker asker;                     ///< In whose name the kernel is asked once it is frozen.
  double retry_seconds = 0;
  PushLimits push;
};

/// The limits that a request for a move asks for ("bytes_per_second", "deadline_seconds"), else
/// those of the host.
PushLimits push_limits(const nlohmann::json& request, const WorkerContext& context);

/// A `check` as asked for over the local socket.
struct CheckRequest {
  pid_t pid = 0;
  std::string destination;  ///< HOST:PORT, or empty: the source's rules only.
  uid_t uid = 0;            ///< Whose process it is.
  Asker asker;
};

}  // namespace migrate
