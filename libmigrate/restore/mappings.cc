#include "libmigrate/restore/mappings.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "base/clock.h"
#include "base/file.h"
#include "base/owner_scope.h"
#include "libmigrate/image/address_space.h"
#include "libmigrate/image/only_process.h"

#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

namespace migrate {
namespace {

constexpr int kMapDroppable = 8;  // MAP_DROPPABLE, Linux 6.11

struct AdviceCall {
  wire::Advice bit;
  int advice;
};
constexpr AdviceCall kAdvice[] = {
    {wire::HUGE_PAGE, MADV_HUGEPAGE},    {wire::NO_HUGE_PAGE, MADV_NOHUGEPAGE},
    {wire::DONT_FORK, MADV_DONTFORK},    {wire::WIPE_ON_FORK, MADV_WIPEONFORK},
    {wire::DONT_DUMP, MADV_DONTDUMP},    {wire::MERGEABLE, MADV_MERGEABLE},
    {wire::SEQUENTIAL, MADV_SEQUENTIAL}, {wire::RANDOM, MADV_RANDOM},
};

std::string backing(const wire::Objects& objects, const wire::Mapping& mapping) {
  switch (mapping.kind()) {
    case wire::Mapping::FILE_LOCAL:
    case wire::Mapping::FILE_COPY:
    case wire::Mapping::SHARED_FILE:
      return objects.mapped_files(static_cast<int>(mapping.file())).path();
    case wire::Mapping::SHARED_MEMORY: {
      const auto& memory = objects.shared_memories(static_cast<int>(mapping.shared_memory()));
      return std::to_string(memory.inode()) + (memory.open_descriptor() ? "+" : "-") +
             std::to_string(mapping.shared_memory());
    }
    default:
      return {};
  }
}

/// All by which two mappings are the same but their place.
using Likeness = std::tuple<std::uint64_t, int, std::uint64_t, std::uint32_t, std::string>;

Likeness likeness_of(const wire::Objects& objects, const wire::Mapping& mapping) {
  // The offset of anonymous memory means nothing.
  const std::uint64_t base =
      mapping.kind() == wire::Mapping::ANONYMOUS ? 0 : mapping.offset() - mapping.start();
  return {mapping.protection(), mapping.kind(), base, mapping.advice(), backing(objects, mapping)};
}

PageRange range_of(const wire::Mapping& mapping) {
  return PageRange::between(mapping.start(), mapping.end());
}

bool is_private(const wire::Mapping& mapping) {
  return mapping.kind() == wire::Mapping::ANONYMOUS || mapping.kind() == wire::Mapping::FILE_COPY;
}

/// What of `mapping` is there already, in mappings that are like it, ascending: all of it, or
/// nothing, but of private memory. Whatever is made around that must become one mapping with it, as
/// the process has it: else mremap() of the whole is EFAULT. The kernel joins what has no pages yet
/// with one neighbour that has some, of two with the one before it, and never two that have some.
/// So the part is of one mapping, and nothing that could be joined lies `before` what is to be
/// made.
PageSet part_there(const std::vector<PageRange>& alike, const wire::Mapping& mapping,
                   const wire::Mapping* before) {
  const PageRange range = range_of(mapping);
  auto other = std::ranges::partition_point(
      alike, [&range](const PageRange& each) { return each.end() <= range.start; });
  if (other != alike.end() && *other == range) {
    return {range};
  }
  PageSet parts;
  for (; other != alike.end() && other->start < range.end(); ++other) {
    parts.push_back(other->intersect(range));
  }
  if (!is_private(mapping) || parts.size() != 1) {
    return {};
  }
  const bool is_joined = before != nullptr && before->end() == mapping.start() &&
                         is_private(*before) && before->protection() == mapping.protection();
  return parts.front().start > range.start && is_joined ? PageSet() : parts;
}

/// Adds what of `mapping` is still to be made.
void plan_rest(const wire::Mapping& mapping, const PageSet& there, MappingPlan& plan) {
  const PageRange range = range_of(mapping);
  if (there.empty()) {
    plan.map.push_back(&mapping);
    return;
  }
  for (const PageRange& rest : without({range}, there)) {
    auto piece = std::make_unique<wire::Mapping>(mapping);
    piece->set_start(rest.start);
    piece->set_end(rest.end());
    piece->set_offset(mapping.offset() + (rest.start - range.start));
    plan.map.push_back(piece.get());
    plan.pieces.push_back(std::move(piece));
  }
}

bool is_special(const wire::Mapping& mapping) {
  return mapping.kind() == wire::Mapping::VDSO || mapping.kind() == wire::Mapping::VVAR;
}

std::string place(const wire::Mapping& mapping) {
  char text[64];
  std::snprintf(text, sizeof(text), "%lx-%lx", mapping.start(), mapping.end());
  return std::string(text) + (mapping.name().empty() ? "" : " " + mapping.name());
}

void script_advice(Script& script, const wire::Mapping& mapping) {
  const std::uint64_t length = mapping.end() - mapping.start();
  for (const AdviceCall& call : kAdvice) {
    if ((mapping.advice() & static_cast<std::uint32_t>(call.bit)) != 0) {
      script.call(SYS_madvise, {mapping.start(), length, static_cast<std::uint64_t>(call.advice)});
    }
  }
  if ((mapping.advice() & wire::LOCKED) != 0) {
    // On fault: plain mlock would touch every page here and now.
    script.must("lock memory", SYS_mlock2, {mapping.start(), length, MLOCK_ONFAULT},
                place(mapping));
  }
}

std::uint64_t map_flags(const wire::Mapping& mapping) {
  int flags = MAP_FIXED_NOREPLACE;
  switch (mapping.kind()) {
    case wire::Mapping::FILE_LOCAL:
      flags |= MAP_PRIVATE;
      break;
    case wire::Mapping::SHARED_FILE:
    case wire::Mapping::SHARED_MEMORY:
      flags |= MAP_SHARED;
      break;
    default:
      flags |=
          MAP_ANONYMOUS | ((mapping.advice() & wire::DROPPABLE) != 0 ? kMapDroppable : MAP_PRIVATE);
      break;
  }
  if ((mapping.advice() & wire::GROWS_DOWN) != 0) {
    flags |= MAP_GROWSDOWN;
  }
  if ((mapping.advice() & wire::NO_RESERVE) != 0) {
    flags |= MAP_NORESERVE;
  }
  return static_cast<std::uint64_t>(flags);
}

// The kernel's guess of what would be too much (vm.overcommit_memory 0) is asked at each call and
// looks at that alone: what a process has by several calls, and the kernel has joined, may be more
// than the machine's memory. It is made of several again, which are joined again.
std::uint64_t largest_piece(const wire::Mapping& mapping) {
  constexpr std::uint64_t kMostPieces = 256;
  const auto pages = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES));
  const std::uint64_t length_pages = (mapping.end() - mapping.start()) / kPageBytes;
  return std::max(pages / 4, length_pages / kMostPieces + 1) * kPageBytes;
}

Result<UniqueFd> make_memory(const wire::SharedMemory& memory) {
  const OwnerScope as_owner(memory.owner(), memory.group());
  const int fd = ::memfd_create(memory.name().c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) {
    return fail(system_error("make a memory file", memory.name()));
  }
  UniqueFd owned(fd);
  if (::ftruncate(fd, static_cast<off_t>(memory.size_bytes())) != 0) {
    return fail(system_error("size a memory file", std::to_string(memory.size_bytes()) + " bytes"));
  }
  return owned;
}

}  // namespace

MappingPlan plan_mappings(const wire::Image& present, const wire::Image& wanted) {
  std::map<Likeness, std::vector<PageRange>> alike;
  std::vector<PageRange> all;
  for (const wire::Mapping& mapping : only_process(present).mappings()) {
    if (!is_special(mapping)) {
      alike[likeness_of(present.objects(), mapping)].push_back(range_of(mapping));
      all.push_back(range_of(mapping));
    }
  }
  MappingPlan plan;
  std::vector<PageRange> stays;
  const wire::Mapping* before = nullptr;
  for (const wire::Mapping& mapping : only_process(wanted).mappings()) {
    if (is_special(mapping)) {
      continue;
    }
    const auto found = alike.find(likeness_of(wanted.objects(), mapping));
    const PageSet there =
        found == alike.end() ? PageSet() : part_there(found->second, mapping, before);
    before = &mapping;
    stays.insert(stays.end(), there.begin(), there.end());
    plan_rest(mapping, there, plan);
  }
  plan.unmap = without(page_set(std::move(all)), page_set(std::move(stays)));
  return plan;
}

Result<std::vector<UniqueFd>> make_shared_memories(const wire::Objects& objects) {
  std::vector<UniqueFd> memories;
  for (const wire::SharedMemory& memory : objects.shared_memories()) {
    memories.push_back(MIGRATE_TRY(make_memory(memory)));
  }
  return memories;
}

Result<void> finish_shared_memories(const wire::Objects& objects, std::vector<UniqueFd>& memories) {
  for (std::size_t i = 0; i < static_cast<std::size_t>(objects.shared_memories_size()); ++i) {
    const wire::SharedMemory& memory = objects.shared_memories(static_cast<int>(i));
    if (i >= memories.size()) {
      memories.push_back(MIGRATE_TRY(make_memory(memory)));
    }
    if (::ftruncate(memories[i].get(), static_cast<off_t>(memory.size_bytes())) != 0) {
      return fail(system_error("size a memory file", memory.name()));
    }
    const OwnerScope as_owner(memory.owner(), memory.group());
    if (memory.open_descriptor() && ::fchmod(memories[i].get(), memory.mode()) != 0) {
      return fail(system_error("set the mode of a memory file", memory.name()));
    }
  }
  return {};
}

void stamp_shared_memories(const wire::Objects& objects, std::span<const UniqueFd> memories) {
  for (std::size_t i = 0; i < memories.size(); ++i) {
    const wire::SharedMemory& memory = objects.shared_memories(static_cast<int>(i));
    if (memory.modified_ns() != 0) {
      const std::array<timespec, 2> times{to_timespec(memory.accessed_ns()),
                                          to_timespec(memory.modified_ns())};
      ::futimens(memories[i].get(), times.data());
    }
  }
}

std::optional<MappedFile> mapped_file(const wire::Objects& objects, const wire::Mapping& mapping) {
  const bool writable =
      (mapping.protection() & PROT_WRITE) != 0 || (mapping.advice() & wire::MAY_WRITE) != 0;
  switch (mapping.kind()) {
    case wire::Mapping::SHARED_FILE:
      return MappedFile{.index = mapping.file(), .writable = writable};
    case wire::Mapping::FILE_LOCAL:
      return MappedFile{.index = mapping.file()};
    case wire::Mapping::SHARED_MEMORY:
      return writable || is_paged(objects, mapping)
                 ? std::nullopt
                 : std::optional(MappedFile{.is_memory = true, .index = mapping.shared_memory()});
    default:
      return std::nullopt;
  }
}

void script_mappings(Script& script, const wire::Objects& objects,
                     std::span<const wire::Mapping* const> mappings,
                     const std::map<MappedFile, std::uint64_t>& files) {
  for (const wire::Mapping* mapping : mappings) {
    std::uint64_t descriptor = ~0ULL;
    if (const auto file = mapped_file(objects, *mapping)) {
      descriptor = files.at(*file);
    } else if (mapping->kind() == wire::Mapping::SHARED_MEMORY) {
      descriptor = mapping->shared_memory();
    }
    const bool backed = descriptor != ~0ULL;
    const std::uint64_t piece =
        backed ? mapping->end() - mapping->start() : largest_piece(*mapping);
    for (std::uint64_t start = mapping->start(); start < mapping->end(); start += piece) {
      script.must("map", SYS_mmap,
                  {start, std::min(piece, mapping->end() - start), mapping->protection(),
                   map_flags(*mapping), descriptor, backed ? mapping->offset() : 0},
                  place(*mapping));
    }
    script_advice(script, *mapping);
  }
}

void script_guards(Script& script, const wire::ProcessImage& image) {
  constexpr std::uint64_t kGuardInstall = 102;  // MADV_GUARD_INSTALL, Linux 6.13
  for (const wire::AddressRange& guard : image.guards()) {
    script.must("guard memory", SYS_madvise,
                {guard.start(), guard.end() - guard.start(), kGuardInstall});
  }
}

void script_vdso(Script& script, const std::vector<PageRange>& present,
                 const std::vector<PageRange>& wanted, std::uint64_t parking) {
  const auto move = [&](std::uint64_t from, std::uint64_t to, std::uint64_t length) {
    script.must("move the vDSO", SYS_mremap,
                {from, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, to});
  };
  const std::uint64_t shift = present.front().start;
  for (const PageRange& range : present) {
    move(range.start, parking + (range.start - shift), range.bytes());
  }
  for (std::size_t i = 0; i < present.size(); ++i) {
    move(parking + (present[i].start - shift), wanted[i].start, present[i].bytes());
  }
}

}  // namespace migrate
