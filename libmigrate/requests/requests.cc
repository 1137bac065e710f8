#include "libmigrate/requests/requests.h"

#include <algorithm>
#include <cctype>
#include <string>

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

Result<void> NameRequest::settle() const {
  const bool is_name = !name.empty() && name.size() <= kLongest && name.front() != '-' &&
                       name.find_first_not_of("0123456789") != name.npos &&
                       std::all_of(name.begin(), name.end(), [](unsigned char c) {
                         return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
                       });
  if (action != NameAction::kList && !is_name) {
    return fail(make_error(ErrorCode::kInvalid, "name", "\"" + name + "\"",
                           "write 1 to " + std::to_string(kLongest) +
                               " letters, digits, \".\", \"_\" or \"-\", not digits alone, and "
                               "no \"-\" first"));
  }
  return {};
}

}  // namespace migrate
