#include "libmigrate/requests/requests.h"

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

Result<void> CheckRequest::settle() const {
  if (!destination.empty()) {
    MIGRATE_TRY(Address::parse(destination));
  }
  return {};
}

}  // namespace migrate
