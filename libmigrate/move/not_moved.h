#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "libmigrate/host/event_sink.h"
#include "libmigrate/move/move_outcome.h"
#include "libmigrate/move/source_move.h"

namespace migrate {

/// Tells who asked for a move of process `pid` that it is refused, and what it would have lost.
void tell_refused(EventSink& sink, const std::vector<wire::Refusal>& refusals, pid_t pid,
                  const std::vector<Loss>& losses = {});

/// Tells who asked for a move of `process` that it was taken back, as he wished, before it began.
void tell_cancelled(EventSink& sink, const std::string& process);

/// Tells who asked for `move` of process `pid`, which is refused or failed (`outcome`), why: also
/// that the process has ended meanwhile, which is no failure to move it.
void tell_not_moved(EventSink& sink, const SourceMove& move, MoveOutcome outcome, pid_t pid,
                    const std::string& command);

}  // namespace migrate
