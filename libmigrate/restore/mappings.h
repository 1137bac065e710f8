#pragma once

#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/restore/file_user.h"
#include "libmigrate/trace/script.h"
#include "pager/page_range.h"

namespace migrate {

/// What turns one list of mappings into another: both in ascending order.
struct MappingPlan {
  std::vector<PageRange> unmap;           ///< Merged where adjacent.
  std::vector<const wire::Mapping*> map;  ///< Borrowed from the wanted image.
};

/// Compares by what makes a mapping the same: place, protection, kind, advice, and what backs it.
MappingPlan plan_mappings(const wire::Image& present, const wire::Image& wanted);

/// Memory objects of the image, made in this process: one memfd for each, with content where the
/// image carries it. Errors: kSystem.
Result<std::vector<UniqueFd>> make_shared_memories(const wire::Image& image);
/// Sizes, contents and seals as the final image says. `memories` as make_shared_memories made them
/// from the draft; further ones are added.
Result<void> finish_shared_memories(const wire::Image& image, std::vector<UniqueFd>& memories);

/// Adds the calls that make the mappings of `plan`, files opened as `user`. Shared memories are descriptors
/// `first_shared`.. in the process; file mappings use descriptor `scratch`, which must be free and
/// the lowest free one when the calls run.
void script_mappings(Script& script, const wire::Image& image, const FileUser& user,
                     const std::vector<const wire::Mapping*>& mappings, std::uint64_t first_shared,
                     std::uint64_t scratch);

/// Adds the calls that move vvar and vDSO from where the process has them to where the image wants
/// them, through a hole at `parking` if the places overlap. The mappings are in ascending order.
void script_vdso(Script& script, const std::vector<PageRange>& present,
                 const std::vector<PageRange>& wanted, std::uint64_t parking);

}  // namespace migrate
