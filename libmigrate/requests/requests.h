#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "libmigrate/requests/move_plan.h"
#include "libmigrate/requests/move_words.h"
#include "libmigrate/requests/page_transport_choice.h"
#include "libmigrate/rights/asker.h"

namespace migrate {

/// The line by which a client takes a move back that it asked for, while that can be.
inline constexpr std::string_view kCancel = R"({"command":"cancel"})";

/// What a request wants, of a daemon or of the worker of a process.
enum class Command : std::uint8_t {
  kMove,
  kCheck,
  kResolve,
  kEnd,  ///< Of a worker, by a home: the process was killed there while it was in doubt where it
         ///< ran.
  kPs,   ///< Of a daemon, as are those that follow.
  kShow,
  kWait,
  kHosts,
  kPing,
  kHere,
};

/// Which process a request is about: by an id or the beginning of one, or by a pid.
struct ProcessName {
  std::string id;
  pid_t pid = -1;  ///< 0: the client itself. Counts where there is no id.
  bool given() const { return !id.empty() || pid >= 0; }
};

/// How fast the memory of a process follows it; see PageServerOptions.
struct PushLimits {
  std::optional<std::uint64_t> bytes_per_second{};  ///< Nothing: as the source's host is set.
  std::chrono::milliseconds deadline{0};
};

/// How long a program with hooks may take to come to a point, if nobody says otherwise.
inline constexpr std::chrono::milliseconds kHookWait{60'000};

/// When a process that is sent in rounds while it runs has been sent often enough (modes precopy
/// and hybrid): whichever comes first, or that it writes faster than can be sent.
struct RoundLimits {
  std::uint32_t most = 5;                      ///< At least 1.
  std::chrono::microseconds downtime{10'000};  ///< What is left can be sent in that time.
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
  bool strict = false;       ///< What would lose something is refused.
  PushLimits push;
  RoundLimits rounds;
  /// For so long the process may take to come to one of its points, where it is then moved;
  /// nothing: it is moved wherever it is.
  std::optional<std::chrono::milliseconds> point_wait{};
  /// The same if it has hooks, which it calls nowhere else, and a point was not asked for.
  std::chrono::milliseconds hook_wait = kHookWait;
  /// Once it has come there: what it waits with. See ProgramWish.
  std::uint32_t at_point = 0;
  std::uint64_t asked = 0;  ///< What the process itself asks with; 0: someone else does.
};

/// A `check` as asked for over the local socket, or passed on.
struct CheckRequest {
  pid_t pid = 0;
  std::string destination;  ///< HOST:PORT, or empty: the source's rules only.
  uid_t uid = 0;            ///< Whose process it is.
  Asker asker;
  bool strict = false;  ///< As of a move.
  bool rounds = false;  ///< It would be moved in a mode that sends it in rounds.
};

/// A `resolve`: what an operator decides about a process in doubt.
enum class Resolution : std::uint8_t {
  kResumeSource,  ///< It never ran at the destination: it runs on here.
  kGiveUp,        ///< It is lost: what is left of it here ends.
};

/// Each parser names in its error (kInvalid) the member, what came, and what may come. A member
/// that is not there has its default; one of another type is an error, too. They fill in what the
/// request says: who asks, and of which process, the caller knows better.

/// What the request wants.
Result<Command> parse_command(const nlohmann::json& request);
/// Which process it is about; none given is no error. Digits as a pid is written are a pid, also
/// where an id may be.
Result<ProcessName> parse_process(const nlohmann::json& request);
/// A `move`. A destination by rdma:// becomes its daemon's address. A limit that it does not give
/// stays away: it is the host's where the process is, which may be another one's.
Result<MoveRequest> parse_move(const nlohmann::json& request);
/// A `check`.
Result<CheckRequest> parse_check(const nlohmann::json& request);
/// A `resolve`. There is no default: what is decided wrongly runs twice, or is lost.
Result<Resolution> parse_resolve(const nlohmann::json& request);
/// A `wait`.
Result<WaitFor> parse_wait(const nlohmann::json& request);
/// What the process that asks will know the answer by (`token`); 0: it waits for it at the socket.
Result<std::uint64_t> parse_token(const nlohmann::json& request);
/// A `ps`: whether processes that are over are wanted, too.
Result<bool> parse_ps(const nlohmann::json& request);

/// The requests as JSON, which the parsers read back; without a process, and who asks.
nlohmann::json request_for(Command command);
nlohmann::json request_for(const MoveRequest& move);
nlohmann::json request_for(const CheckRequest& check);
nlohmann::json request_for(Resolution resolution);
nlohmann::json request_for(WaitFor wait);
/// Adds the process that a request is about.
void name_process(nlohmann::json& request, const ProcessName& process);

/// The words of a request's members. Errors of parsing one: kInvalid.
std::string_view to_string(Command command);
std::string_view to_string(MoveWait wait);
std::string_view to_string(Resolution resolution);
Result<MoveWait> parse_move_wait(std::string_view word);
Result<WaitFor> parse_wait_for(std::string_view word);
std::vector<std::string> move_wait_words();
std::vector<std::string> wait_for_words();

}  // namespace migrate
