#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "libmigrate/api/connection.h"

namespace migrate::client {

/// The members of a request for a move, without its braces; or what is wrong with it.
std::optional<Answer> move_members(const migrate_options& options, const char* destination,
                                   const char* wait, std::string& members);

/// The same of a check; no destination: by the rules of this host.
std::optional<Answer> check_members(const migrate_options& options, const char* destination,
                                    std::string& members);

/// The same of copies; `count` 0: one for each destination.
std::optional<Answer> fork_members(const migrate_options& options,
                                   std::span<const char* const> destinations, std::size_t count,
                                   std::string& members);

}  // namespace migrate::client
