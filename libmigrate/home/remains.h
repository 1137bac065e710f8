#pragma once

#include <cstdint>

#include "base/result.h"
#include "libmigrate/home/departed.h"
#include "libmigrate/proto/control.pb.h"
#include "libmigrate/proto/session.pb.h"
#include "libmigrate/state/phase.h"

namespace migrate {

/// What a new worker finds of a process whose worker at home died.
enum class Found : std::uint8_t {
  kParked,  ///< It is parked, or its deputy.
  kRunsOn,  ///< A process that is not parked.
  kGone,    ///< Nothing has its pid any more, or another process has.
};

/// What is to be done with it.
enum class TakenOverAs : std::uint8_t {
  kEnded,     ///< Nothing: it has ended, and so has its deputy.
  kStayed,    ///< Nothing: it runs on here; its move was not decided.
  kKilled,    ///< Its deputy was killed while no worker looked: so shall be the process.
  kAskAbout,  ///< The same, but where it runs is in doubt: HomeKilled.
  kDeputy,    ///< It is away, or in doubt.
  kKeeper,    ///< It has ended, and children of it have not.
};

/// By the phase of the record, its text, and what was found.
TakenOverAs taken_over_as(HomePhase phase, const wire::HomeSession& noted, Found found);

/// Finds what is left of a process whose worker died. ParkedProcess and SourceMove are behind it;
/// tests have another. Owned by one thread, which becomes the tracer of what it finds.
class HomeRemains {
 public:
  HomeRemains() = default;
  HomeRemains(const HomeRemains&) = delete;
  HomeRemains& operator=(const HomeRemains&) = delete;
  virtual ~HomeRemains() = default;

  /// Looks for the parked process, first of all. Errors: kSystem (nobody can say).
  virtual Result<Found> find() = 0;
  /// Looks for the keeper that is noted. True: it lives. Errors: kSystem.
  virtual Result<bool> find_keeper() = 0;
  /// Goes on with the noted move, with whatever was found. Called once. Errors: kInvalid (the note
  /// is damaged).
  virtual Result<Departed> go_on() = 0;
  /// Asks the destination of the noted move what became of the process, of which nothing is left
  /// here. Blocks for up to eight seconds.
  virtual Result<wire::Verdict> ask_verdict() = 0;
};

}  // namespace migrate
