#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "libmigrate/capture/timed_wait.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/inspect/process_inspector.h"
#include "libmigrate/move/clocks.h"
#include "libmigrate/move/page_transport.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

/// One process to be moved away from here.
struct SourceMoveOptions {
  pid_t pid = 0;
  KnownObjects known;
  Address destination;
  MovePlan plan;
  PageTransport transport = PageTransport::kAuto;
  SessionId process{};            ///< Id of the process.
  Address home;                   ///< Of the process.
  std::string token;              ///< Of the process.
  std::string command;            ///< Command line.
  wire::GlobalName name;          ///< Of the process; its moves: before this one.
  std::uint32_t at_point = 0;     ///< At whose point it is to be, as MoveRequest.
  std::uint64_t asked = 0;        ///< With what it asks for this itself, as MoveRequest.
  Asker asker;                    ///< Who wants it, judged on the frozen process.
  std::vector<WaitRecord> waits;  ///< As the threads came here.
  bool strict = false;            ///< What would lose something is refused.
  PolicyRules policy;             ///< Of whoever asks, as MoveRequest.
  bool starts = false;            ///< As MoveRequest.
  PushLimits push;
  RoundLimits rounds;
  ModeWish wish;
  ClockOffsets host_clocks;                ///< Of this worker's own time namespace.
  const WorkerContext* context = nullptr;  ///< Borrowed.
};

}  // namespace migrate
