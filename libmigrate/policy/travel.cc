#include "libmigrate/policy/travel.h"

#include <fmt/core.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "libmigrate/image/address_space.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/requests/words.h"
#include "pager/page_set.h"

namespace migrate {
namespace {

bool is_private_file(const wire::Mapping& mapping) {
  return mapping.kind() == wire::Mapping::FILE_LOCAL || mapping.kind() == wire::Mapping::FILE_COPY;
}

PageRange range_of_mapping(const wire::Mapping& mapping) {
  return PageRange::between(mapping.start(), mapping.end());
}

/// A part of a mapping that is of one kind and name.
struct Part {
  int mapping = 0;
  PageRange range;
  std::size_t row = 0;
};

/// Applies a policy to one image.
class Traveller {
 public:
  Traveller(const FilesNotThere& not_there, const std::vector<ProgramAdvice>& advice,
            wire::Image& image)
      : not_there_(not_there), image_(image), process_(mutable_only_process(image)) {
    for (const ProgramAdvice& each : advice) {
      if (each.advised == program::Advised::kArena) {
        arenas_.push_back(&each);
      } else {
        advised_[each.advised].push_back(each.range);
      }
    }
    for (auto& [what, ranges] : advised_) {
      ranges = page_set(std::move(ranges));
    }
    for (const wire::Mapping& mapping : process_.mappings()) {
      if (is_private_file(mapping) && (mapping.protection() & PROT_EXEC) != 0) {
        with_code_.insert(mapping.file());
      }
    }
  }

  Travels run(const TravelPolicy& policy) {
    for (int index = 0; index < process_.mappings_size(); ++index) {
      take_apart(index);
    }
    for (std::size_t i = 0; i < travels_.rows.size(); ++i) {
      TravelRow& row = travels_.rows[i];
      row.choice = policy.choose({.kind = row.kind,
                                  .name = row.name,
                                  .bytes = row.bytes,
                                  .known = row.known,
                                  .is_shared = row.is_shared});
      if (advised_local_[i] && row.choice.rule == "default" &&
          row.choice.travel != Travel::kRefuse) {
        row.choice = {.travel = Travel::kLocal, .rule = "advice"};
      }
      if (row.choice.travel == Travel::kRefuse) {
        travels_.refusals.push_back(policy_refusal(row));
      }
    }
    for (const Part& part : parts_) {
      settle(part);
    }
    note_executable();
    write_advised();
    write_access();
    return std::move(travels_);
  }

 private:
  void take_apart(int index) {
    const wire::Mapping& mapping = process_.mappings(index);
    const PageRange range = range_of_mapping(mapping);
    switch (mapping.kind()) {
      case wire::Mapping::VDSO:
      case wire::Mapping::VVAR:
        return;
      case wire::Mapping::FILE_LOCAL:
      case wire::Mapping::FILE_COPY:
      case wire::Mapping::SHARED_FILE:
        add_part(index, range, kind_of_file(mapping),
                 image_.objects().mapped_files(static_cast<int>(mapping.file())).path(),
                 {.known = !not_there_.mapped.contains(mapping.file()),
                  .is_shared = mapping.kind() == wire::Mapping::SHARED_FILE,
                  .is_advised_local = is_advised(program::Advised::kLocal, range)});
        return;
      default:
        break;
    }
    PageSet rest{range};
    for (const ProgramAdvice* arena : arenas_) {
      if (range.intersect(arena->range).empty()) {
        continue;  // As are most of many.
      }
      for (const PageRange& part : common(rest, {arena->range})) {
        add_part(index, part, MemoryKind::kArena, arena->name, {});
      }
      rest = without(rest, {arena->range});
    }
    const bool is_stack =
        mapping.name().starts_with("[stack") || (mapping.advice() & wire::GROWS_DOWN) != 0;
    for (const PageRange& part : rest) {
      add_part(index, part, is_stack ? MemoryKind::kStack : MemoryKind::kHeap, {}, {});
    }
  }

  MemoryKind kind_of_file(const wire::Mapping& mapping) const {
    if (mapping.kind() == wire::Mapping::SHARED_FILE || !with_code_.contains(mapping.file())) {
      return MemoryKind::kFile;
    }
    return (mapping.protection() & PROT_EXEC) != 0 ? MemoryKind::kCode : MemoryKind::kData;
  }

  /// What tells memory of one kind and name apart.
  struct RowKey {
    bool known = true;
    bool is_shared = false;
    bool is_advised_local = false;
    auto operator<=>(const RowKey&) const = default;
  };

  void add_part(int mapping, PageRange range, MemoryKind kind, const std::string& name,
                RowKey key) {
    const auto [place, added] = row_of_.try_emplace({kind, name, key}, travels_.rows.size());
    if (added) {
      travels_.rows.push_back({.kind = kind,
                               .name = name,
                               .bytes = 0,
                               .known = key.known,
                               .is_shared = key.is_shared,
                               .choice = {}});
      advised_local_.push_back(key.is_advised_local);
    }
    travels_.rows[place->second].bytes += range.bytes();
    parts_.push_back({mapping, range, place->second});
  }

  void settle(const Part& part) {
    const TravelChoice& choice = travels_.rows[part.row].choice;
    wire::Mapping& mapping = *process_.mutable_mappings(part.mapping);
    if (choice.travel == Travel::kRefuse || choice.travel == Travel::kLocal) {
      return;
    }
    if (is_private_file(mapping) && !ship(mapping)) {
      return;
    }
    if (!is_paged(image_.objects(), mapping)) {
      return;
    }
    if (choice.travel == Travel::kEager) {
      first_.push_back(part.range);
    } else if (choice.travel == Travel::kLazy) {
      on_request_.push_back(part.range);
    } else if (choice.rule == "default") {
      add_advised(program::Advised::kEager, part.range, first_);
      add_advised(program::Advised::kLazy, part.range, on_request_);
      add_advised(program::Advised::kHotFirst, part.range, hot_);
    }
    if (mapping.kind() == wire::Mapping::ANONYMOUS && !mapping.was_file()) {
      add_advised(program::Advised::kDiscard, part.range, never_);
    }
  }

  bool is_advised(program::Advised what, PageRange range) const {
    const auto found = advised_.find(what);
    return found != advised_.end() && !common({range}, found->second).empty();
  }

  void add_advised(program::Advised what, PageRange range, std::vector<PageRange>& pages) const {
    if (const auto found = advised_.find(what); found != advised_.end()) {
      const PageSet part = common({range}, found->second);
      pages.insert(pages.end(), part.begin(), part.end());
    }
  }

  // As memory of a file that has no name any more: all its pages come from the source.
  bool ship(wire::Mapping& mapping) {
    const std::uint64_t size =
        image_.objects().mapped_files(static_cast<int>(mapping.file())).size_bytes();
    const std::uint64_t pages_end = (size + kPageBytes - 1) & ~(kPageBytes - 1);
    const PageRange range = range_of_mapping(mapping);
    if (mapping.protection() != PROT_NONE && mapping.offset() + range.bytes() > pages_end) {
      travels_.refusals.push_back(
          make_refusal("UNKNOWN_MAPPING",
                       fmt::format("{:x}-{:x} {}", mapping.start(), mapping.end(), mapping.name()),
                       "a private mapping that goes beyond the end of its file"));
      return false;
    }
    const std::string& path =
        image_.objects().mapped_files(static_cast<int>(mapping.file())).path();
    ships_executable_ = ships_executable_ || path == process_.executable().path();
    mapping.set_kind(wire::Mapping::ANONYMOUS);
    mapping.set_was_file(true);
    mapping.clear_offset();
    mapping.clear_file();
    travels_.shipped_bytes += range.bytes();
    return true;
  }

  void note_executable() {
    if (not_there_.executable && ships_executable_) {
      process_.set_without_executable(true);
    }
  }

  void write_advised() {
    const PageSet never = page_set(std::move(never_));
    const PageSet first = without(page_set(std::move(first_)), never);
    const PageSet on_request = without(without(page_set(std::move(on_request_)), never), first);
    const PageSet hot =
        without(without(without(page_set(std::move(hot_)), never), first), on_request);
    std::map<std::uint64_t, std::pair<PageRange, wire::AdvisedRange::Way>> all;
    for (const auto& [pages, way] :
         {std::pair(&first, wire::AdvisedRange::FIRST), std::pair(&hot, wire::AdvisedRange::HOT),
          std::pair(&on_request, wire::AdvisedRange::ON_REQUEST),
          std::pair(&never, wire::AdvisedRange::NEVER)}) {
      for (const PageRange& range : *pages) {
        all.emplace(range.start, std::pair(range, way));
      }
    }
    process_.clear_advised();
    for (const auto& [start, entry] : all) {
      wire::AdvisedRange& added = *process_.add_advised();
      added.set_start(entry.first.start);
      added.set_end(entry.first.end());
      added.set_way(entry.second);
    }
  }

  // The last word on an address counts, so that no two of them overlap.
  void write_access() {
    std::map<std::uint64_t, std::pair<PageRange, wire::AccessRange::Pattern>> all;
    for (const auto& [what, pattern] :
         {std::pair(program::Advised::kSequential, wire::AccessRange::SEQUENTIAL),
          std::pair(program::Advised::kRandom, wire::AccessRange::RANDOM)}) {
      const auto found = advised_.find(what);
      for (const PageRange& range : found == advised_.end() ? PageSet() : found->second) {
        all.emplace(range.start, std::pair(range, pattern));
      }
    }
    process_.clear_access();
    std::uint64_t from = 0;
    for (const auto& [start, entry] : all) {
      if (start < from) {
        continue;  // A program that has written its table by itself.
      }
      from = entry.first.end();
      wire::AccessRange& added = *process_.add_access();
      added.set_start(start);
      added.set_end(from);
      added.set_pattern(entry.second);
    }
  }

  using Key = std::tuple<MemoryKind, std::string, RowKey>;

  const FilesNotThere& not_there_;
  wire::Image& image_;
  wire::ProcessImage& process_;
  std::vector<const ProgramAdvice*> arenas_;
  std::map<program::Advised, PageSet> advised_;
  std::set<std::uint32_t> with_code_;
  std::map<Key, std::size_t> row_of_;
  std::vector<bool> advised_local_;  // of each row
  std::vector<Part> parts_;
  bool ships_executable_ = false;
  // In any order; they may overlap.
  std::vector<PageRange> first_;
  std::vector<PageRange> hot_;
  std::vector<PageRange> on_request_;
  std::vector<PageRange> never_;
  Travels travels_;
};

}  // namespace

wire::Refusal policy_refusal(const TravelRow& row) {
  return make_refusal("POLICY",
                      fmt::format("{}{}{}", word_for(row.kind, kMemoryKinds),
                                  row.name.empty() ? "" : " ", row.name),
                      "rule " + row.choice.rule);
}

Travels apply_policy(const TravelPolicy& policy, const FilesNotThere& not_there,
                     const std::vector<ProgramAdvice>& advice, wire::Image& image) {
  return Traveller(not_there, advice, image).run(policy);
}

nlohmann::json to_json(const std::vector<TravelRow>& rows, bool knows_files) {
  nlohmann::json list = nlohmann::json::array();
  for (const TravelRow& row : rows) {
    nlohmann::json object = {{"kind", word_for(row.kind, kMemoryKinds)},
                             {"bytes", row.bytes},
                             {"action", word_for(row.choice.travel, kTravels)},
                             {"rule", row.choice.rule}};
    if (!row.name.empty()) {
      object["name"] = row.name;
    }
    if (knows_files && is_of_file(row.kind)) {
      object["known"] = row.known;
    }
    list.push_back(std::move(object));
  }
  return list;
}

}  // namespace migrate
