#include "libmigrate/requests/requests.h"

#include <algorithm>

#include "transport/address.h"

namespace migrate {

Result<void> MoveRequest::settle() {
  if (destination.empty()) {
    return fail(
        make_error(ErrorCode::kInvalid, "move", "no destination", "give HOST or HOST:PORT"));
  }
  transport = MIGRATE_TRY(settle_page_transport(destination, to_string(transport)));
  return {};
}

Result<void> ForkRequest::settle() {
  if (destinations.empty()) {
    return fail(make_error(ErrorCode::kInvalid, "fork", "no destination",
                           "give at least one HOST or HOST:PORT"));
  }
  if (count == 0) {
    count = static_cast<std::uint32_t>(std::min<std::size_t>(destinations.size(), kMost));
  }
  for (std::string& destination : destinations) {
    MIGRATE_TRY(Address::parse(destination));
  }
  return {};
}

Result<void> CheckRequest::settle() const {
  if (!destination.empty()) {
    MIGRATE_TRY(Address::parse(destination));
  } else if (plan.decides) {
    return fail(make_error(ErrorCode::kInvalid, "check", "mode " + std::string(plan.word),
                           "say where it would go to: that decides, too"));
  }
  return {};
}

}  // namespace migrate
