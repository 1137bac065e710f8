#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"
#include "libmigrate/requests/drain_request.h"
#include "libmigrate/requests/identity_requests.h"
#include "libmigrate/requests/members.h"
#include "libmigrate/requests/move_plan.h"
#include "libmigrate/requests/move_request.h"
#include "libmigrate/requests/move_settings.h"
#include "libmigrate/requests/move_words.h"
#include "libmigrate/rights/asker.h"

namespace migrate {

// A request is a struct here: its word, its members, which are read and written by its one each(),
// and its name in one of the two lists below. Whoever carries out requests goes by these lists, and
// does not compile while he has no answer to one of them.

/// A `check` as asked for over the local socket, or passed on.
struct CheckRequest {
  static constexpr std::string_view kWord = "check";
  pid_t pid = 0;
  std::string destination;  ///< HOST:PORT, or empty: the source's rules only.
  uid_t uid = 0;            ///< Whose process it is.
  Asker asker;
  bool strict = false;  ///< As of a move.
  MovePlan plan;        ///< How it would be moved.
  ModeWish wish;        ///< As of a move.
  PolicyRules policy;   ///< As of a move.
  NetworkOf network = NetworkOf::kHome;
  bool starts = false;  ///< As of a move.
  Detail detail = Detail::kVerdict;

  template <class Members, class Self>
  static void each(Members& members, Self& self) {
    members.text("destination", self.destination);
    members.flag("strict", self.strict);
    members.word("mode", self.plan, parse_mode, [](const MovePlan& mode) { return mode.word; });
    members.word("wish", self.wish.best, kWishes);
    members.seconds("sample_seconds", self.wish.sample);
    members.rules("policy", self.policy);
    members.word("network", self.network, kNetworkWords);
    members.flag("starts", self.starts);
    members.word("detail", self.detail, kDetails);
  }
  /// Errors: kInvalid (no address, or none where the mode depends on it).
  Result<void> settle() const;
};

/// What an operator decides about a process in doubt.
enum class Resolution : std::uint8_t {
  kResumeSource,  ///< It never ran at the destination: it runs on here.
  kGiveUp,        ///< It is lost: what is left of it here ends.
};
inline constexpr Words<Resolution, 2> kResolutions{
    {{"resume-source", Resolution::kResumeSource}, {"give-up", Resolution::kGiveUp}}};

/// That decision. There is no default: what is decided wrongly runs twice, or is lost.
struct ResolveRequest {
  static constexpr std::string_view kWord = "resolve";
  Resolution action = Resolution::kResumeSource;
  template <class Members, class Self>
  static void each(Members& members, Self& self) {
    members.needed_word("action", self.action, kResolutions);
  }
};

/// Of a worker, by a home: the process was killed there while it was in doubt where it ran.
struct EndRequest {
  static constexpr std::string_view kWord = "end";
  template <class Members, class Self>
  static void each(Members& /*members*/, Self& /*self*/) {}
};

/// The list of processes.
struct PsRequest {
  static constexpr std::string_view kWord = "ps";
  bool all = false;  ///< Those that are over, too.
  template <class Members, class Self>
  static void each(Members& members, Self& self) {
    members.flag("all", self.all);
  }
};

/// All that this host knows of a process.
struct ShowRequest {
  static constexpr std::string_view kWord = "show";
  template <class Members, class Self>
  static void each(Members& /*members*/, Self& /*self*/) {}
};

/// To wait until a process is owed nothing, or has ended.
struct WaitRequest {
  static constexpr std::string_view kWord = "wait";
  WaitFor wait_for = WaitFor::kDone;
  bool at_once = false;  ///< Answered now, with MIGRATE_TIMEOUT if there is still to be waited.
  template <class Members, class Self>
  static void each(Members& members, Self& self) {
    members.word("for", self.wait_for, kWaitWords);
    members.flag("at_once", self.at_once);
  }
};

/// Copies of a process that runs on, each of which runs at one of the destinations: as a child of
/// fork(2) goes on, from the moment at which all of them were made.
struct ForkRequest {
  static constexpr std::string_view kWord = "fork";
  static constexpr std::uint32_t kMost = 1024;
  std::vector<std::string> destinations;  ///< HOST:PORT; one after the other, over and over.
  std::uint32_t count = 0;                ///< 0: one for each destination.
  MoveRequest move;                       ///< How each goes there; of no process, to nowhere yet.

  template <class Members, class Self>
  static void each(Members& members, Self& self) {
    members.texts("destinations", self.destinations);
    members.whole("count", self.count, 0, kMost);
    MoveRequest::each(members, self.move);
  }
  /// Errors: kInvalid (no destination).
  Result<void> settle();
};

/// This host and those that it knows.
struct HostsRequest {
  static constexpr std::string_view kWord = "hosts";
  template <class Members, class Self>
  static void each(Members& /*members*/, Self& /*self*/) {}
};

/// Whether the daemon answers.
struct PingRequest {
  static constexpr std::string_view kWord = "ping";
  template <class Members, class Self>
  static void each(Members& /*members*/, Self& /*self*/) {}
};

/// Where the client itself is.
struct HereRequest {
  static constexpr std::string_view kWord = "here";
  template <class Members, class Self>
  static void each(Members& /*members*/, Self& /*self*/) {}
};

/// What the worker of a process carries out, where it has one.
using WorkerRequest = std::variant<MoveRequest, CheckRequest, ResolveRequest, EndRequest>;
/// What a daemon carries out.
using DaemonRequest = std::variant<PsRequest, ShowRequest, WaitRequest, ForkRequest, HostsRequest,
                                   PingRequest, HereRequest, IdentityRequest, WatchRequest,
                                   KillRequest, NameRequest, LinkRequest, DrainRequest>;
/// What a daemon asks another one, about a process whose home that is.
using HomeRequest = std::variant<ShowRequest, WaitRequest, KillRequest, NameRequest, LinkRequest>;
using AnyRequest = std::variant<WorkerRequest, DaemonRequest>;

}  // namespace migrate
