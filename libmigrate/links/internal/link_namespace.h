#pragma once

#include <string>

#include "base/result.h"

namespace migrate {

/// Puts the calling thread into a new network namespace in which every address is its own, so that
/// no packet leaves it. Errors: kSystem.
Result<void> enter_link_namespace(bool with_ipv6);

/// The network namespace of the calling thread keeps nothing of connections that are over.
void forget_connections_at_once();
/// A setting of /proc/sys/net in the network namespace of the calling thread. Errors: kSystem.
Result<void> write_network_setting(const std::string& name, const std::string& value);

/// setsockopt(2) of a number. Errors: kSystem.
Result<void> set_number(int fd, int level, int name, int value);
/// Whether the socket, of `family`, may be bound to addresses that no interface has.
Result<void> let_bind_anywhere(int fd, int family, bool may);
/// Whatever the socket, of `family`, sends has this mark (SO_MARK), and goes out also if its name
/// is another host's. Errors: kSystem.
Result<void> send_marked(int fd, int family, int mark);

}  // namespace migrate
