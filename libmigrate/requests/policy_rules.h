#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "libmigrate/requests/move_words.h"

namespace migrate {

/// What a piece of a process's memory is, as rules name it.
enum class MemoryKind : std::uint8_t {
  kCode,   ///< Mapped privately from a file, and may be executed.
  kData,   ///< Mapped privately from a file of which something else is code.
  kFile,   ///< Mapped from any other file.
  kHeap,   ///< Anonymous, or shared memory.
  kStack,  ///< As the kernel names it, or memory that grows downwards.
  kArena,  ///< What the program has given a name (migrate_arena_register).
};
inline constexpr Words<MemoryKind, 6> kMemoryKinds{{{"code", MemoryKind::kCode},
                                                    {"data", MemoryKind::kData},
                                                    {"file", MemoryKind::kFile},
                                                    {"heap", MemoryKind::kHeap},
                                                    {"stack", MemoryKind::kStack},
                                                    {"arena", MemoryKind::kArena}}};
constexpr bool is_of_file(MemoryKind kind) {
  return kind == MemoryKind::kCode || kind == MemoryKind::kData || kind == MemoryKind::kFile;
}

/// How it comes to a destination.
enum class Travel : std::uint8_t {
  kRefuse,  ///< Not at all: the process is not moved.
  kLocal,   ///< Of a file: it is mapped from the destination's own, which must be the same.
  kShip,    ///< Its pages are sent, of a file too, when the mode says.
  kLazy,    ///< The same, each page when it is touched.
  kEager,   ///< The same, before all others and in each mode.
};
inline constexpr Words<Travel, 5> kTravels{{{"eager", Travel::kEager},
                                            {"lazy", Travel::kLazy},
                                            {"local", Travel::kLocal},
                                            {"ship", Travel::kShip},
                                            {"refuse", Travel::kRefuse}}};

/// One rule of a policy. What is not given fits everything.
struct PolicyRule {
  std::string place;  ///< Where it stands, for people: "policy.toml:12".
  std::optional<MemoryKind> kind;
  std::string name;  ///< A pattern (glob(7), * also for /) of a path, or of an arena's name.
  std::uint64_t min_bytes = 0;
  std::uint64_t max_bytes = std::numeric_limits<std::uint64_t>::max();
  std::optional<bool> known;  ///< Whether the destination has the same file.
  Travel travel = Travel::kRefuse;
  friend bool operator==(const PolicyRule&, const PolicyRule&) = default;
};
/// The first that fits decides.
using PolicyRules = std::vector<PolicyRule>;

/// Reads a policy file, whose content is `text`; `file` is its name, for people. Errors: kInvalid,
/// with file, line and column.
Result<PolicyRules> parse_policy(std::string_view text, const std::string& file);
/// The same of a host's, which may have rules of links, too (link_rules.h).
Result<PolicyRules> parse_host_policy(std::string_view text, const std::string& file);

/// The rules as a request has them, and back. What came is checked as parse_policy() does.
/// Errors: kInvalid.
nlohmann::json to_json(const PolicyRules& rules);
Result<PolicyRules> policy_from_json(const nlohmann::json& rules);

}  // namespace migrate
