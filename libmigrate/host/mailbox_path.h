#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/result.h"

namespace migrate {

/// Where workers listen: `<state>/mailbox`, each in a SOCK_SEQPACKET socket of its own. The
/// daemon's children pass them one handoff (transport/handoff.h) per connection: a peer's
/// connection with the preamble's bytes, to the mailbox named by the session's id; or a client of
/// the local socket with its request (a JSON object, checked for permission), to the mailbox named
/// by the process's id.
std::string mailbox_directory(const std::string& state_directory);
std::string mailbox_path(const std::string& state_directory, const std::string& name);

/// Passes `fd` (borrowed; the worker gets its own) and `message` to the worker whose mailbox is
/// `name`. False if there is none: the name is unknown, or its worker has ended or ends meanwhile.
/// Blocks only while the worker's queue is full. Errors: kInvalid (name, message too long),
/// kSystem.
Result<bool> hand_to_worker(const std::string& state_directory, const std::string& name, int fd,
                            std::span<const std::byte> message);

}  // namespace migrate
