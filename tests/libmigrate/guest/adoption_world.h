#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "libmigrate/cell/cell_control.h"
#include "libmigrate/proto/session.pb.h"
#include "libmigrate/state/session_file.h"
#include "tests/libmigrate/guest/arrival_world.h"

namespace migrate {

/// What a guest's worker leaves that died: its record, and its cell, whose init is a thread of the
/// test that speaks as one.
class AdoptionWorld : public ArrivalWorld {
 public:
  AdoptionWorld();
  ~AdoptionWorld();

  /// The record, in that phase; locked, as whoever takes over has it.
  SessionFile leave(GuestPhase phase);
  /// The init holds that.
  void hold(Kept what, UniqueFd fd);
  /// The init is there, and gives what it holds to the next worker that comes.
  void start_init();
  /// What the new worker has told the init to close.
  std::vector<Kept> dropped();

  wire::CellSession noted;

 private:
  std::vector<std::pair<Kept, UniqueFd>> held_;
  UniqueFd told_;  // the connection of the new worker
  std::thread init_thread_;
};

}  // namespace migrate
