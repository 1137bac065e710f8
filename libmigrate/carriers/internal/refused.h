#pragma once

#include <string_view>

#include "libmigrate/proto/image.pb.h"

namespace migrate::carriers {

/// The code of the refusal of objects that no carrier claims and whose link tells what they are, or
/// empty.
std::string_view refusal_of_link(std::string_view link);

/// The code of the refusal of a file with a path that no carrier claims.
std::string_view refusal_of_file(const wire::FileIdentity& identity);

/// A POSIX message queue, which looks like a regular file.
bool is_message_queue(const wire::FileIdentity& identity);

}  // namespace migrate::carriers
