#include "libmigrate/inspect/internal/mapping_details.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/arch/arch.h"
#include "pager/page_range.h"

namespace migrate::inspect {
namespace {

struct Shown {
  std::string flags;
  std::uint64_t protection_key = 0;
};
/// By what the kernel notes: the same number is always shown as the same text, so that no knowledge
/// of single flags is needed. What is not here is not guessed.
using KnownFlags = std::map<std::uint64_t, Shown>;

/// Mappings of kinds that programs often have, beside those that every process has.
class Samples {
 public:
  Samples() {
    constexpr std::array kProtections{PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE,
                                      PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE | PROT_EXEC};
    constexpr std::array kAdvices{MADV_NORMAL,     MADV_HUGEPAGE, MADV_NOHUGEPAGE,
                                  MADV_SEQUENTIAL, MADV_RANDOM,   MADV_DONTFORK,
                                  MADV_WIPEONFORK, MADV_DONTDUMP, MADV_MERGEABLE};
    for (const int flags : {MAP_PRIVATE, MAP_PRIVATE | MAP_NORESERVE, MAP_SHARED}) {
      for (const int protection : kProtections) {
        for (const int advice : kAdvices) {
          add(protection, flags | MAP_ANONYMOUS, advice, -1);
        }
      }
    }
    // Shared, of a file that cannot be written by it: caches of the C library are.
    if (const auto file = open_file("/proc/self/exe", O_RDONLY)) {
      for (const int protection : kProtections) {
        add(protection, MAP_SHARED, MADV_NORMAL, file->get());
      }
    }
  }
  ~Samples() {
    for (void* const page : pages_) {
      ::munmap(page, kPageBytes);
    }
  }
  Samples(const Samples&) = delete;
  Samples& operator=(const Samples&) = delete;

 private:
  // Made writable and then less, it is accounted for as memory that was written once.
  void add(int protection, int flags, int advice, int file) {
    for (const int first : {protection, PROT_READ | PROT_WRITE}) {
      void* const page = ::mmap(nullptr, kPageBytes, first, flags, file, 0);
      if (page != MAP_FAILED) {
        pages_.push_back(page);
        ::mprotect(page, kPageBytes, protection);
        ::madvise(page, kPageBytes, advice);
      }
    }
  }

  std::vector<void*> pages_;
};

bool is_of(const KernelMapping& mapping, const MapsEntry& entry) {
  return mapping.start == entry.start && mapping.end == entry.end;
}

KnownFlags learn() {
  KnownFlags known;
  const auto list = MappingList::create();
  if (!list) {
    log::debug("{}", list.error().message());
    return known;
  }
  const Samples samples;
  const auto mappings = list->of(::getpid());
  const auto text = read_file("/proc/self/smaps");
  const auto entries =
      text ? parse_maps(*text) : Result<std::vector<MapsEntry>>(fail(text.error()));
  if (!mappings || !entries) {
    return known;
  }
  for (const MapsEntry& entry : *entries) {
    const auto mapping = std::ranges::find_if(
        *mappings, [&](const KernelMapping& candidate) { return is_of(candidate, entry); });
    if (mapping == mappings->end()) {
      continue;
    }
    const auto [place, added] =
        known.try_emplace(mapping->flags, Shown{entry.flags, entry.protection_key});
    if (!added && (place->second.flags != entry.flags ||
                   place->second.protection_key != entry.protection_key)) {
      log::warn("this kernel shows one kind of mapping in two ways: {}, {}", place->second.flags,
                entry.flags);
      return {};
    }
  }
  return known;
}

const KnownFlags& known_flags() {
  static const KnownFlags kKnown = learn();
  return kKnown;
}

}  // namespace

void learn_mapping_details() {
  static_cast<void>(known_flags());
}

std::optional<MappingDetails> details_of(const MappingList& list, pid_t pid,
                                         const std::vector<MapsEntry>& entries) {
  const auto mappings = list.of(pid);
  if (!mappings) {
    log::debug("{}", mappings.error().message());
    return std::nullopt;
  }
  MappingDetails details{entries, false};
  auto mapping = mappings->begin();
  for (MapsEntry& entry : details.entries) {
    if (entry.name == arch::kKernelPage) {
      continue;  // Of no process.
    }
    if (mapping == mappings->end() || !is_of(*mapping, entry)) {
      return std::nullopt;
    }
    const auto shown = known_flags().find(mapping->flags);
    if (shown == known_flags().end()) {
      log::debug("mapping {:x}-{:x} is of a kind that was not met before: {:x}", entry.start,
                 entry.end, mapping->flags);
      return std::nullopt;
    }
    entry.flags = shown->second.flags;
    entry.protection_key = shown->second.protection_key;
    details.may_have_policies = details.may_have_policies || mapping->has_policy;
    ++mapping;
  }
  return mapping == mappings->end() ? std::optional(std::move(details)) : std::nullopt;
}

}  // namespace migrate::inspect
