#pragma once

#include "base/result.h"
#include "base/unique_fd.h"

namespace migrate {

/// Puts the calling thread into a new network namespace in which every address is its own, so that
/// no packet leaves it. Errors: kSystem.
Result<void> enter_link_namespace(bool with_ipv6);

/// The network namespace in which a socket is. Errors: kSystem.
Result<UniqueFd> namespace_of(int socket);

/// setsockopt(2) of a number. Errors: kSystem.
Result<void> set_number(int fd, int level, int name, int value);
/// Whether the socket, of `family`, may be bound to addresses that no interface has.
Result<void> let_bind_anywhere(int fd, int family, bool may);

}  // namespace migrate
