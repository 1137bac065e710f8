#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "libmigrate/capture/timed_wait.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/inspect/process_inspector.h"
#include "libmigrate/move/clocks.h"
#include "libmigrate/move/page_transport.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

/// One process to be moved away from here.
struct SourceMoveOptions {
  pid_t pid = 0;
  KnownObjects known;
  Address destination;  ///< The request's.
  /// What is asked for, in which `pid` and `destination` count for nothing. What the frozen process
  /// is asked of it is judged there: whose asker it is, and the words of its program.
  MoveRequest request;
  SessionId process{};                     ///< Id of the process.
  Address home;                            ///< Of the process.
  std::string token;                       ///< Of the process.
  std::string command;                     ///< Command line.
  wire::GlobalName name;                   ///< Of the process; its moves: before this one.
  wire::HomeNetwork network;               ///< Of its home.
  std::vector<WaitRecord> waits;           ///< As the threads came here.
  ClockOffsets host_clocks;                ///< Of this worker's own time namespace.
  const WorkerContext* context = nullptr;  ///< Borrowed.
};

}  // namespace migrate
