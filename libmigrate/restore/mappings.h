#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/trace/script.h"
#include "pager/page_set.h"

namespace migrate {

/// What turns one list of mappings into another: both in ascending order.
struct MappingPlan {
  PageSet unmap;
  std::vector<const wire::Mapping*> map;  ///< Borrowed from the wanted image, or from `pieces`.
  std::vector<std::unique_ptr<wire::Mapping>> pieces;  ///< Of mappings that are there in part.
};

/// Compares by what makes a mapping the same: place, protection, kind, advice, and what backs it.
/// Private memory that a pager fills stays where it is the same in part, with what is in it.
MappingPlan plan_mappings(const wire::Image& present, const wire::Image& wanted);

/// Memory objects of the image, made in this process: one memfd for each, empty. Errors: kSystem.
Result<std::vector<UniqueFd>> make_shared_memories(const wire::Objects& objects);
/// Sizes and modes as the final image says. `memories` as make_shared_memories made them
/// from the draft; further ones are added.
Result<void> finish_shared_memories(const wire::Objects& objects, std::vector<UniqueFd>& memories);
/// Their times, once nothing more is written into them.
void stamp_shared_memories(const wire::Objects& objects, std::span<const UniqueFd> memories);

/// A file that is mapped, or a shared memory that is mapped so that it can never be written to.
struct MappedFile {
  bool is_memory = false;
  std::uint32_t index = 0;  ///< Into the image's mapped files, or its shared memories.
  bool writable = false;    ///< Whether the mapping is written to, or may become writable.
  auto operator<=>(const MappedFile&) const = default;
};
/// Which one a mapping is of; nothing if it is of none. A memory whose pages a pager fills is
/// mapped so that it can be written to in any case: the kernel registers no other (userfaultfd(2)).
std::optional<MappedFile> mapped_file(const wire::Objects& objects, const wire::Mapping& mapping);

/// Adds the calls that make the guards in memory (Linux 6.13), once the mappings are there.
void script_guards(Script& script, const wire::ProcessImage& image);

/// Adds the calls that make `mappings`. What mapped_file() tells of is a descriptor of `files` in
/// the process, shared memories else are descriptors 0, 1, ...
void script_mappings(Script& script, const wire::Objects& objects,
                     std::span<const wire::Mapping* const> mappings,
                     const std::map<MappedFile, std::uint64_t>& files);

/// Adds the calls that move vvar and vDSO from where the process has them to where the image wants
/// them, through a hole at `parking` if the places overlap. The mappings are in ascending order.
void script_vdso(Script& script, const std::vector<PageRange>& present,
                 const std::vector<PageRange>& wanted, std::uint64_t parking);

}  // namespace migrate
