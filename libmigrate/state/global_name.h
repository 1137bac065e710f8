#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "base/process_identity.h"
#include "base/result.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// The global name of a process that was started on this host and has not left it: of no other
/// process of any host, however often pids and boots come again. All zeros in `serial` if it has
/// ended.
wire::GlobalName first_global_name(pid_t process, const std::string& host_name);

/// ORIGIN/SERIAL/EPOCH, numbers in hexadecimal; empty for a name without an origin. Characters that
/// no terminal should see are replaced.
std::string to_string(const wire::GlobalName& name);
/// What to_string() gave, or a user wrote. Errors: kInvalid.
Result<wire::GlobalName> parse_global_name(std::string_view text);
/// Whether `text` is meant as a global name: it has a slash, as no pid, id or given name has.
constexpr bool is_global_name(std::string_view text) {
  return text.find('/') != std::string_view::npos;
}

/// The process of this host that `name` was made of by first_global_name(), if this is still the
/// boot in which it was; whether it is there still, is_alive() tells. Its origin is not looked at.
std::optional<ProcessIdentity> process_of(const wire::GlobalName& name);

}  // namespace migrate
