#pragma once

#include <optional>
#include <string>

#include "base/unique_fd.h"
#include "tools/migrated/local_request.h"

namespace migrate {

/// The right to look after the links of processes whose home is here (NameBook), if there are any
/// and nobody has it; it is given up with its last descriptor. Blocks hardly ever.
std::optional<UniqueFd> take_links(const std::string& state_directory);

/// Looks after them until there are none, or the process that has started this one has ended: when
/// one of a link has ended, its signal is sent to the other, by its home, and the link is
/// forgotten. A home that does not answer is asked again, ever more rarely; nobody's links keep
/// those of others waiting for more than some seconds. `taken`: see take_links().
void keep_links(const LocalService& service, UniqueFd taken);

}  // namespace migrate
