#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace migrate {

/// What becomes of an attribute of a process when it moves. There is nothing else.
enum class StateFate : std::uint8_t {
  kCarried,     ///< It is the same after a move, or follows from what is.
  kRefused,     ///< A process that has it, other than as everybody has it, is not moved.
  kLost,        ///< A process that has it, other than as everybody has it, is told.
  kLostByAll,   ///< It begins again, or is the destination's, for every process.
  kLostUnseen,  ///< Linux shows to nobody whether a process has it.
};

namespace inspect {
struct LossView;
}

/// Says of each thing of this kind that a process would lose what it is: "login user 1000".
using FindLosses = std::vector<std::string> (*)(const inspect::LossView& view);

/// One attribute, as Linux shows or gives it.
struct StateEntry {
  std::string_view
      source;             ///< Where: "status", "stat", "VmFlags", "fdinfo", "limits", "prctl", ...
  std::string_view name;  ///< As it is called there.
  StateFate fate;
  std::string_view how;  ///< How, by which refusal, or why not.
  // Of what is lost, other than by all or unseen:
  std::string_view code = {};    ///< Names the kind of loss.
  FindLosses find = nullptr;     ///< None: an entry with the same code has it.
  std::string_view remedy = {};  ///< What a user can do about it, beside `find`.
};

/// What one process would lose by a move, or has lost.
struct Loss {
  std::string_view code;    ///< Of its entry, as are `reason` and `remedy`.
  std::string object;       ///< "descriptor 5 -> socket:[17]"
  std::string_view reason;  ///< What becomes of it.
  std::string_view remedy;
};

/// All attributes that are known, by source. docs/state.md is made from it.
std::span<const StateEntry> state_table();

/// Those of `names` that the table does not have under `source`.
std::vector<std::string> unknown_state(std::string_view source, std::span<const std::string> names);

/// What the process would lose: each entry of the table that is lost is looked for.
std::vector<Loss> find_losses(const inspect::LossView& view);

/// What a destination cannot give a process, of an attribute of the table that is told of.
Loss loss_there(std::string_view name, std::string object);

/// The table as docs/state.md has it.
std::string state_document();

}  // namespace migrate
