#pragma once

#include <sys/types.h>

#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace migrate {

/// A connection of Unix domain stream sockets as a process has it.
struct UnixPairNames {
  std::string local = {};  ///< What getsockname(2) gives in sun_path; empty: it has no name.
  std::string peer = {};   ///< The same of getpeername(2).
  uid_t peer_user = 0;     ///< As SO_PEERCRED tells; the pid there is 0.
  gid_t peer_group = 0;
};

/// Two such sockets that are connected to each other: `end` has the names that were asked for.
struct UnixPair {
  UniqueFd end;
  UniqueFd mate;
};

/// The most bytes of a name: sun_path.
inline constexpr std::size_t kMostUnixNameBytes = 108;

/// Makes pairs. Those with names are made where nobody else looks (a file system, and a network
/// namespace for abstract names, of their own), so that neither is left to be seen, and a name that
/// somebody has here is no obstacle. Needs CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID. Blocks for a
/// moment. Errors: kInvalid (a name is too long), kSystem (also if two need the same name in a way
/// that no two sockets can have it).
Result<std::vector<UnixPair>> make_unix_pairs(std::span<const UnixPairNames> wanted);

/// The name of a socket as getsockname(2), or getpeername(2) if it is `of_peer`, gives it in
/// sun_path; of a file without the 0 at its end. Errors: kSystem.
Result<std::string> unix_name_of(int fd, bool of_peer);

}  // namespace migrate
