#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "tools/testbed/host.h"

namespace migrate::testbed {

/// Where the daemon of a host finds its keys, as it sees it.
inline constexpr const char* kKeysDirectory = "/var/lib/migrate/keys";

/// Makes an authority in `directory`, and for each host a key and a certificate for its name and
/// address, which are put into its state. `migratectl` is the path of that program.
/// Errors: kSystem with what the program said.
Result<void> make_keys(const std::string& migratectl, const std::string& directory,
                       const std::vector<Host>& hosts);

}  // namespace migrate::testbed
