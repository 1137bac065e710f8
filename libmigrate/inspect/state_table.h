#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace migrate {

/// What becomes of an attribute of a process when it moves. There is nothing else.
enum class StateFate : std::uint8_t {
  kCarried,  ///< It is the same after a move, or follows from what is.
  kRefused,  ///< A process that has it, other than as everybody has it, is not moved.
  kLost,     ///< It begins again, or is the destination's.
};

/// One attribute, as Linux shows or gives it.
struct StateEntry {
  std::string_view
      source;             ///< Where: "status", "stat", "VmFlags", "fdinfo", "limits", "prctl", ...
  std::string_view name;  ///< As it is called there.
  StateFate fate;
  std::string_view how;  ///< How, by which refusal, or why not.
};

/// All attributes that are known, by source. docs/state.md is made from it.
std::span<const StateEntry> state_table();

/// Those of `names` that the table does not have under `source`.
std::vector<std::string> unknown_state(std::string_view source, std::span<const std::string> names);

/// The table as docs/state.md has it.
std::string state_document();

}  // namespace migrate
