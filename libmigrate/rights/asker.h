#pragma once

#include <sys/types.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/rights/peer_process.h"

namespace migrate {

/// Who asks for something to be done with a process: what of him the kernel would look at if he did
/// it himself, such as attaching a debugger. A value type.
struct Asker {
  uid_t user = static_cast<uid_t>(-1);  ///< As of when he connected; so are the groups.
  gid_t group = static_cast<gid_t>(-1);
  std::vector<gid_t> groups{};
  /// A mask of CAP_*. Only root's are believed: those of other users may be of a program that one
  /// of them has started since he connected.
  std::uint64_t capabilities = 0;
  /// He is the process that he asks about, which the kernel asks of Yama for no leave.
  bool is_target = false;

  bool is_root() const { return user == 0; }
  /// "user 1000", for messages.
  std::string name() const;
};

/// Who is at the other end of a connected Unix socket, which is `process`. Of another user
/// namespace than ours nobody is let in, nor who is confined by a security module in another way
/// than we: the kernel would not judge them as their user. Errors: kRefused (that, or he has
/// ended), kSystem.
Result<Asker> asker_of(int unix_fd, const PeerProcess& process);

/// As the member "asker" of a request that one part of libmigrate sends to another.
nlohmann::json to_json(const Asker& asker);
/// The member "asker" of `request`. Errors: kRefused (there is none, or it is malformed).
Result<Asker> asker_from(const nlohmann::json& request);

}  // namespace migrate
