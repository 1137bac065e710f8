#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/carriers/carrier.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/trace/script.h"

namespace migrate {

/// What a process has made itself, with its user's ids, since the kernel remembers who it was.
struct SelfMade {
  std::vector<carriers::MadeSocketPair> socket_pairs;  ///< As in Objects.socket_pairs.
  std::vector<UniqueFd> files;  ///< As in Objects.files; invalid: none of Carrier::create.
};

/// The calls by which a process that has no descriptors makes them: socket pairs, of which
/// SO_PEERCRED names who made them, and the files of Carrier::create.
class SelfMaking {
 public:
  /// Adds the calls to `script`, with the real and effective ids of `wanted`. `own` are the
  /// credentials that the process has now, and afterwards. `objects` must outlive this.
  SelfMaking(Script& script, const wire::Objects& objects, const wire::Credentials& wanted,
             const wire::Credentials& own);

  /// Whether there is anything to be made of `objects`.
  static bool is_needed(const wire::Objects& objects);

  /// Takes all out of `process`, which keeps its own, when `script` has run. Errors: kSystem.
  Result<SelfMade> fetch(const Script& script, pid_t process) const;

 private:
  struct MadeFile {
    std::size_t file;  // into Objects.files
    std::size_t call;  // of the script
  };

  const wire::Objects& objects_;
  std::uint64_t pairs_at_ = 0;  // Where the script leaves the descriptors of the pairs.
  std::vector<MadeFile> files_;
};

}  // namespace migrate
