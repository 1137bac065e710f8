#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "libmigrate/image/refusal.h"
#include "libmigrate/policy/travel_policy.h"
#include "libmigrate/program/program.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// Files of an image that its destination has not, or not the same.
struct FilesNotThere {
  std::set<std::uint32_t> mapped;  ///< Into Objects.mapped_files.
  bool executable = false;
  bool empty() const { return mapped.empty() && !executable; }
};

/// What was decided of all memory of one kind and name.
struct TravelRow {
  MemoryKind kind = MemoryKind::kHeap;
  std::string name;
  std::uint64_t bytes = 0;
  bool known = true;
  bool is_shared = false;  ///< Of a file: mapped so that others see what is written.
  TravelChoice choice;
};

/// Why nothing of that travels, if its choice is to refuse.
wire::Refusal policy_refusal(const TravelRow& row);

/// What came of a policy for one image.
struct Travels {
  std::vector<TravelRow> rows;
  Refusals refusals;
  std::uint64_t shipped_bytes = 0;  ///< Of files: as much as they can have to be sent.
};

/// Makes `image` what `policy` and the program's own `advice` say: files that are to be sent become
/// private memory of which the source reads all, and `advised` says which pages come out of turn.
/// What is decided by a rule is not for the program to say, but for what it discards.
Travels apply_policy(const TravelPolicy& policy, const FilesNotThere& not_there,
                     const std::vector<ProgramAdvice>& advice, wire::Image& image);

/// Rows of a table for people and programs. Which files the destination has is among it only if
/// that has told them (`knows_files`).
nlohmann::json to_json(const std::vector<TravelRow>& rows, bool knows_files);

}  // namespace migrate
