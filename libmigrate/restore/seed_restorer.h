#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/carriers/memory_content.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/restore/file_user.h"
#include "libmigrate/restore/mappings.h"
#include "pager/page_set.h"

namespace migrate {

/// Turns the seed of a cell into the process of an image, stopped until run(). Restorer is the one
/// that there is; tests of an arrival have another.
/// Order of calls: prepare (with the draft, while the process still runs at the source), adapt
/// (with the final image), fill, finish, release, run. Owned by the thread that created it, the
/// seed's tracer. After an error the cell is to be ended.
class SeedRestorer {
 public:
  SeedRestorer() = default;
  SeedRestorer(SeedRestorer&&) noexcept = default;
  SeedRestorer& operator=(SeedRestorer&&) noexcept = default;
  virtual ~SeedRestorer() = default;

  /// Empties the seed, makes the draft's mappings in it, with nothing in them yet, and its threads.
  virtual Result<void> prepare(const wire::Image& draft) = 0;

  /// As whom the files of the draft are opened.
  virtual const FileUser& file_user() const = 0;

  /// What must change for `image` to have its mappings. Unregister what is unmapped from a
  /// userfaultfd before adapt(), or the process would wait for the pager.
  virtual MappingPlan plan(const wire::Image& image) const = 0;
  /// Makes the mappings those of the final image.
  virtual Result<void> adapt(const wire::Image& image, const MappingPlan& plan) = 0;

  /// Takes pages away from mappings of the process, which stay. As of adapt(), they must not be
  /// registered with a userfaultfd meanwhile.
  virtual Result<void> discard(const PageSet& pages) = 0;
  /// The next bytes of what is in the image's memory files, after adapt(). Errors: kCorrupt (more
  /// than the image tells of), kSystem.
  virtual Result<void> fill(carriers::ContentPlace& place, std::string_view bytes) = 0;

  /// Gives the process everything else of the image. The pager must be running and have the starter
  /// pages, since the kernel may touch memory of the process. `relays`: see make_open_files.
  virtual Result<void> finish(const wire::Image& image,
                              const std::map<std::uint64_t, int>& relays) = 0;

  /// After finish(): open files whose position counts at home, by OpenFile.shared_id.
  virtual std::map<std::uint64_t, UniqueFd> take_shared_files() = 0;

  /// The threads in this host's numbers, in the image's order.
  virtual std::vector<pid_t> host_threads() const = 0;

  /// From now on the threads outlive this process: if it dies, they run. Until then they die with
  /// it, before any of them has run: a copy that was never told to run must not run because its
  /// tracer died. On error none has run.
  virtual Result<void> release() = 0;
  /// Lets all threads go.
  virtual Result<void> run() = 0;
};

}  // namespace migrate
