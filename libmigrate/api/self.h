#pragma once

#include <string>

#include "libmigrate/api/connection.h"

namespace migrate::client {

/// Asks something about the caller itself, which is to be looked at or moved without a connection.
/// `members` are those of the request but for pid and token. MIGRATE_DONE without a daemon's word:
/// it was moved. Blocks the calling thread only.
Answer ask_about_self(const migrate_options& options, const std::string& members);

}  // namespace migrate::client
