#pragma once

#include <memory>
#include <vector>

#include "libmigrate/guest/guest.h"
#include "libmigrate/guest/onward.h"
#include "libmigrate/host/mailbox.h"

namespace migrate {

/// Runs a guest through its phases, from where it runs here or, with `onward`, from where Run was
/// sent for its next place, until nothing is left to do here. `early`: letters that came before.
void live(Guest& guest, Mailbox& mailbox, OnwardMoves& moves, std::unique_ptr<OnwardMove> onward,
          std::vector<Letter> early);

}  // namespace migrate
