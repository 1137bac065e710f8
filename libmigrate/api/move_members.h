#pragma once

#include <optional>
#include <string>

#include "libmigrate/api/connection.h"

namespace migrate::client {

/// The members of a request for a move, without its braces; or what is wrong with it.
std::optional<Answer> move_members(const migrate_options& options, const char* destination,
                                   const char* wait, std::string& members);

}  // namespace migrate::client
