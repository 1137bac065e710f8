// What a mapping is beside its place and its object: VmFlags, and guards in it.
#include "libmigrate/inspect/internal/mapping_flags.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "libmigrate/inspect/internal/mappings.h"
#include "libmigrate/proc/pagemap.h"

namespace migrate::inspect {
namespace {

struct AdviceFlag {
  std::string_view flag;
  std::uint32_t advice;
};
// What VmFlags says, and what it means here; no advice: nothing to carry.
constexpr std::array kCarriedFlags = std::to_array<AdviceFlag>({
    {"rd", 0},
    {"wr", 0},
    {"ex", 0},
    {"sh", 0},
    {"mr", 0},
    {"mw", wire::MAY_WRITE},
    {"me", 0},
    {"ms", 0},
    {"ac", 0},
    {"sd", 0},
    {"lf", 0},
    {"gd", wire::GROWS_DOWN},
    {"lo", wire::LOCKED},
    {"sr", wire::SEQUENTIAL},
    {"rr", wire::RANDOM},
    {"dc", wire::DONT_FORK},
    {"wf", wire::WIPE_ON_FORK},
    {"dd", wire::DONT_DUMP},
    {"mg", wire::MERGEABLE},
    {"hg", wire::HUGE_PAGE},
    {"nh", wire::NO_HUGE_PAGE},
    {"nr", wire::NO_RESERVE},
    {"dp", wire::DROPPABLE},
});
struct RefusedFlag {
  std::string_view flag;
  std::string_view code;
};
constexpr std::array kRefusedFlags = std::to_array<RefusedFlag>({
    {"um", "USERFAULTFD"},
    {"uw", "USERFAULTFD"},
    {"ui", "USERFAULTFD"},
    {"ss", "SHADOW_STACK"},
    {"sl", "SEALED"},
    {"ht", "HUGETLB"},
    {"gu", "GUARD_REGION"},
});

}  // namespace

std::uint32_t advice_of(const MapsEntry& entry) {
  std::uint32_t advice = 0;
  std::string_view flags = entry.flags;
  for (std::string_view flag = take_word(flags); !flag.empty(); flag = take_word(flags)) {
    const auto* carried = std::ranges::find(kCarriedFlags, flag, &AdviceFlag::flag);
    advice |= carried != kCarriedFlags.end() ? carried->advice : 0;
  }
  // Private memory may always become writable.
  return entry.shared ? advice : advice & ~std::uint32_t{wire::MAY_WRITE};
}

void MappingReader::add_guards(std::uint64_t start, std::uint64_t end) {
  const auto guards = guard_regions(view_.pagemap.get(), start, end);
  for (const PageRange& guard : guards.value_or(std::vector<PageRange>())) {
    wire::AddressRange& range = *image_.add_guards();
    range.set_start(guard.start);
    range.set_end(guard.end());
  }
}

// Of a mapping that the draft has, too: only where it had guards are they looked for again.
void MappingReader::keep_guards(std::uint64_t start, std::uint64_t end) {
  if (draft_ != nullptr && std::any_of(draft_->guards().begin(), draft_->guards().end(),
                                       [&](const wire::AddressRange& guard) {
                                         return guard.start() < end && start < guard.end();
                                       })) {
    add_guards(start, end);
  }
}

// One that was mapped anew elsewhere is not: the kernel takes over what watches its neighbour only
// where the two become one.
bool MappingReader::may_be_watched(const MapsEntry& entry) const {
  return view_.known.watches_writes && draft_ != nullptr &&
         std::ranges::any_of(draft_->mappings(), [&](const wire::Mapping& before) {
           return before.start() < entry.end && entry.start < before.end();
         });
}

void MappingReader::check_flags(const MapsEntry& entry, const wire::Mapping& mapping) {
  if (entry.protection_key != 0) {
    refuse_mapping("PROTECTION_KEY", entry);
  }
  std::string_view flags = entry.flags;
  for (std::string_view flag = take_word(flags); !flag.empty(); flag = take_word(flags)) {
    if (mapping.has_huge_pages() && (flag == "ht" || flag == "de")) {
      continue;  // It is ordinary memory there.
    }
    const auto* refused = std::ranges::find(kRefusedFlags, flag, &RefusedFlag::flag);
    if (refused != kRefusedFlags.end()) {
      const bool known =
          (refused->code == "USERFAULTFD" && view_.known.own_userfaultfd) ||
          (flag == "uw" && may_be_watched(entry)) ||
          (refused->code == "GUARD_REGION" && mapping.kind() == wire::Mapping::ANONYMOUS);
      if (!known) {
        refuse_mapping(refused->code, entry);
      }
    } else if (std::ranges::find(kCarriedFlags, flag, &AdviceFlag::flag) == kCarriedFlags.end()) {
      refuse_mapping("UNKNOWN_MAPPING", entry, fmt::format("VmFlags has {}", flag));
    }
  }
}

}  // namespace migrate::inspect
