#pragma once

#include <string>

#include "base/result.h"
#include "transport/channel.h"
#include "transport/preamble.h"

namespace migrate {

/// That the one who connects knows a token, without sending it: the side that accepted sends 32
/// random bytes, the other answers with HMAC-SHA256 under the token of these and the preamble. An
/// answer that was overheard is worth nothing to who did: the next connection asks anew.

/// Asks, and checks the answer. Blocks up to `timeout_ms`. Errors: kRefused (not of this token),
/// kRetry (timeout), as Channel.
Result<void> ask_proof(Channel& channel, const std::string& token, const Preamble& preamble,
                       int timeout_ms);

/// Answers. Blocks up to `timeout_ms` for the question. Errors: kCorrupt (no such question), kRetry
/// (timeout), as Channel.
Result<void> give_proof(Channel& channel, const std::string& token, const Preamble& preamble,
                        int timeout_ms);

}  // namespace migrate
