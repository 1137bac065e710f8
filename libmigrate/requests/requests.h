#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"
#include "libmigrate/requests/move_plan.h"
#include "libmigrate/requests/page_transport_choice.h"
#include "libmigrate/rights/asker.h"

namespace migrate {

/// What a request to the worker of a process wants.
enum class Command : std::uint8_t {
  kMove,
  kCheck,
  kResolve,
  kEnd,  ///< A home's: the process was killed there while it was in doubt where it ran.
};

/// What a client waits for before it hears of a move's result.
enum class MoveWait : std::uint8_t {
  kResumed,  ///< The process runs there.
  kDone,     ///< Its source owes it nothing any more.
  kExit,     ///< It has ended.
};

/// How fast the memory of a process follows it; see PageServerOptions.
struct PushLimits {
  std::uint64_t bytes_per_second = 0;
  std::chrono::milliseconds deadline{0};
};

/// A `move` as asked for over the local socket, or passed on by the process's home.
struct MoveRequest {
  pid_t pid = 0;
  std::string destination;  ///< HOST:PORT.
  MovePlan plan;
  PageTransport transport = PageTransport::kAuto;
  MoveWait wait = MoveWait::kResumed;
  uid_t uid = 0;             ///< Whose process it is.
  Asker asker;               ///< In whose name the kernel is asked once it is frozen.
  double retry_seconds = 0;  ///< For so long it is tried while what is in the way is transient.
  PushLimits push;
};

/// A `check` as asked for over the local socket, or passed on.
struct CheckRequest {
  pid_t pid = 0;
  std::string destination;  ///< HOST:PORT, or empty: the source's rules only.
  uid_t uid = 0;            ///< Whose process it is.
  Asker asker;
};

/// A `resolve`: what an operator decides about a process in doubt.
enum class Resolution : std::uint8_t {
  kResumeSource,  ///< It never ran at the destination: it runs on here.
  kGiveUp,        ///< It is lost: what is left of it here ends.
};

/// Each parser names in its error (kInvalid) the member, what came, and what may come. A member
/// that is not there has its default; one of another type is an error, too. They fill in what the
/// request says: who asks, and of which process, the caller knows better.

/// What the request wants of the worker of a process.
Result<Command> parse_command(const nlohmann::json& request);
/// A `move`. `host_bytes_per_second`: of this host, where the request has no limit of its own. A
/// destination by rdma:// becomes its daemon's address.
Result<MoveRequest> parse_move(const nlohmann::json& request, std::uint64_t host_bytes_per_second);
/// A `check`.
Result<CheckRequest> parse_check(const nlohmann::json& request);
/// A `resolve`. There is no default: what is decided wrongly runs twice, or is lost.
Result<Resolution> parse_resolve(const nlohmann::json& request);

/// The words of a request's members.
std::string_view to_string(PageTransport transport);
std::string_view to_string(MoveWait wait);
std::string_view to_string(Resolution resolution);

}  // namespace migrate
