#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "libmigrate/cell/cell.h"
#include "libmigrate/guest/guest.h"
#include "libmigrate/guest/guest_world.h"
#include "libmigrate/host/mailbox.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/state/session_file.h"

namespace migrate {

/// Builds, from what a dead worker left, the guest that it had. Owned by one thread.
class GuestAdoption {
 public:
  /// `context` and `world` are borrowed, and outlive the guest.
  GuestAdoption(const WorkerContext& context, const SessionId& session, const GuestWorld& world)
      : context_(context), session_(session), world_(world) {}

  struct Adopted {
    std::unique_ptr<Guest> guest;
    std::optional<Mailbox> mailbox;
    ClockOffsets host_clocks;
  };
  /// Nothing: the process never ran here, and nothing of it is left. Errors: kRetry (the dead
  /// worker is still there, or the cell cannot be reached now), kSystem.
  Result<std::optional<Adopted>> take_over(SessionFile file);

 private:
  Result<void> adopt_cell(Guest& guest);
  Result<std::unique_ptr<OwedPages>> adopt_pages(Guest& guest, Cell& cell);
  Result<void> adopt_relay(Guest& guest);

  const WorkerContext& context_;
  const SessionId session_;
  const GuestWorld& world_;
  std::vector<KeptDescriptor> kept_;  // by the cell's init
};

}  // namespace migrate
