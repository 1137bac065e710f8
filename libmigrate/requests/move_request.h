#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "libmigrate/requests/members.h"
#include "libmigrate/requests/move_plan.h"
#include "libmigrate/requests/move_settings.h"
#include "libmigrate/requests/move_words.h"
#include "libmigrate/requests/page_transport_choice.h"
#include "libmigrate/rights/asker.h"

namespace migrate {

/// A `move` as asked for over the local socket, or passed on by the process's home.
struct MoveRequest {
  static constexpr std::string_view kWord = "move";
  pid_t pid = 0;
  std::string destination;  ///< HOST:PORT; one of a transport of pages becomes its daemon's.
  MovePlan plan;
  PageTransportChoice transport;
  MoveWait wait = MoveWait::kResumed;
  uid_t uid = 0;             ///< Whose process it is.
  Asker asker;               ///< In whose name the kernel is asked once it is frozen.
  double retry_seconds = 0;  ///< For so long it is tried while what is in the way is transient.
  bool strict = false;       ///< What would lose something is refused.
  PushLimits push;           ///< What is not given is the host's where the process is.
  RoundLimits rounds;
  ModeWish wish;
  /// For so long the process may take to come to one of its points, where it is then moved;
  /// nothing: it is moved wherever it is.
  std::optional<std::chrono::milliseconds> point_wait{};
  /// The same if it has hooks, which it calls nowhere else, and a point was not asked for.
  std::optional<std::chrono::milliseconds> hook_wait{};  ///< Nothing: kHookWait.
  /// Once it has come there: what it waits with. See ProgramWish.
  std::uint32_t at_point = 0;
  std::uint64_t asked = 0;  ///< What the process itself asks with; 0: someone else does.
  PolicyRules policy;       ///< Of whoever asks, within what the host's allows.
  NetworkOf network = NetworkOf::kHome;
  /// It is stopped (SIGSTOP) before its first instruction, with which it begins at the destination,
  /// where its program need not be known. If it must not, it is as it was, or was killed.
  bool starts = false;
  /// Of files that the destination has not, pages are sent when they are touched, where no rule and
  /// no advice says otherwise: of a process that starts always.
  bool ships_unknown = false;
  /// Of a check, which tells this alone: which files the destination has, whatever of them is sent.
  bool tells_files = false;

  template <class Members, class Self>
  static void each(Members& members, Self& self) {
    members.word("mode", self.plan, parse_mode, [](const MovePlan& mode) { return mode.word; });
    members.word("wait", self.wait, kMoveWaitWords);
    members.text("destination", self.destination);
    members.word("transport", self.transport, parse_page_transport,
                 [](const PageTransportChoice& way) { return to_string(way); });
    members.number("retry_seconds", self.retry_seconds);
    members.flag("strict", self.strict);
    members.number("bytes_per_second", self.push.bytes_per_second);
    members.seconds("deadline_seconds", self.push.deadline);
    members.whole("rounds", self.rounds.most, 1, 1000);
    members.microseconds("downtime_us", self.rounds.downtime);
    members.word("wish", self.wish.best, kWishes);
    members.seconds("sample_seconds", self.wish.sample);
    members.seconds("point_seconds", self.point_wait);
    members.seconds("hook_seconds", self.hook_wait);
    members.token("token", self.asked);
    members.rules("policy", self.policy);
    members.word("network", self.network, kNetworkWords);
    members.flag("starts", self.starts);
    members.flag("ships_unknown", self.ships_unknown);
  }
  /// What the members must be together. Errors: kInvalid.
  Result<void> settle();
};

}  // namespace migrate
