#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

// The words of a move and of waiting for it: the one place where each stands. This header needs
// nothing but the C++ library, because the C library (libmigrate/api) checks words by it, too.

namespace migrate {

/// The words by which requests name values.
template <typename Value, std::size_t count>
using Words = std::array<std::pair<std::string_view, Value>, count>;

/// The value that `word` names, if any.
template <typename Value, std::size_t count>
constexpr std::optional<Value> find_word(std::string_view word, const Words<Value, count>& words) {
  for (const auto& [each, value] : words) {
    if (each == word) {
      return value;
    }
  }
  return std::nullopt;
}

/// All words in the table's order, for people: "done, exit".
template <typename Value, std::size_t count>
std::string list_words(const Words<Value, count>& words) {
  std::string list;
  for (const auto& [word, value] : words) {
    list += (list.empty() ? "" : ", ") + std::string(word);
  }
  return list;
}

/// How the memory of a process follows it: a mode of moving, taken apart into what the code asks. A
/// value; `word` lives as long as the program.
struct MovePlan {
  std::string_view word = "lazy";  ///< As requests, messages and the registry write it. This one
                                   ///< is the mode of whoever does not choose.
  bool push = true;                ///< The source sends pages that nobody has asked for.
  bool prefetch = true;            ///< The destination asks for more than the page of a fault.
  bool all_before_run = false;     ///< The process runs there only when all its pages are there.
  bool rounds = false;             ///< Pages are sent, and sent again, while it still runs here.
  bool decides = false;    ///< Which of the others it is, is found once the process is looked at.
  bool only_asks = false;  ///< It is not moved; the destination is asked for its refusals.
};

/// The modes that a user may choose. A new one is a new line.
inline constexpr std::array kModes{
    MovePlan(),
    MovePlan{.word = "demand", .push = false, .prefetch = false},
    MovePlan{.word = "eager", .all_before_run = true},
    MovePlan{.word = "precopy", .all_before_run = true, .rounds = true},
    MovePlan{.word = "hybrid", .rounds = true},
    MovePlan{.word = "auto", .decides = true},
};

/// The mode of that name, if any.
constexpr std::optional<MovePlan> find_mode(std::string_view word) {
  const auto* const found = std::find_if(kModes.begin(), kModes.end(),
                                         [&](const MovePlan& mode) { return mode.word == word; });
  return found == kModes.end() ? std::nullopt : std::optional(*found);
}

/// All modes, for people: "lazy, demand, eager, precopy, hybrid or auto".
inline std::string list_modes() {
  std::string list;
  for (const MovePlan& mode : kModes) {
    list += (list.empty() ? "" : &mode == &kModes.back() ? " or " : ", ") + std::string(mode.word);
  }
  return list;
}

/// What a move is to be best in, whose mode is chosen for it.
enum class Wish : std::uint8_t {
  kStop,      ///< The process stands still as shortly as can be.
  kExposure,  ///< It needs two hosts as shortly as can be.
  kBytes,     ///< As little is sent as can be.
};
inline constexpr Words<Wish, 3> kWishes{
    {{"stop", Wish::kStop}, {"exposure", Wish::kExposure}, {"bytes", Wish::kBytes}}};

/// What `wait` waits for.
enum class WaitFor : std::uint8_t {
  kDone,  ///< Nothing is owed any more.
  kExit,  ///< The process has ended.
};
inline constexpr Words<WaitFor, 2> kWaitWords{{{"done", WaitFor::kDone}, {"exit", WaitFor::kExit}}};

/// What a client waits for before it hears of a move's result.
enum class MoveWait : std::uint8_t {
  kResumed,  ///< The process runs there.
  kDone,     ///< Its source owes it nothing any more.
  kExit,     ///< It has ended.
};
inline constexpr Words<MoveWait, 3> kMoveWaitWords{
    {{"resumed", MoveWait::kResumed}, {"done", MoveWait::kDone}, {"exit", MoveWait::kExit}}};

/// From which network a process connects to others, once it has been moved.
enum class NetworkOf : std::uint8_t {
  kHome,   ///< Its home's, by way of that.
  kPlace,  ///< That of the host where it is.
};
inline constexpr Words<NetworkOf, 2> kNetworkWords{
    {{"home", NetworkOf::kHome}, {"place", NetworkOf::kPlace}}};

/// What is told of a process that is checked.
enum class Detail : std::uint8_t {
  kVerdict,  ///< Whether it can be moved, why not, and what it loses.
  kRules,    ///< And what was decided of its memory, by which rule of a policy.
  kFiles,    ///< And which files it has mapped.
  kLinks,    ///< As kRules, and how each of its links to others will go.
};
inline constexpr Words<Detail, 4> kDetails{{{"verdict", Detail::kVerdict},
                                            {"rules", Detail::kRules},
                                            {"files", Detail::kFiles},
                                            {"links", Detail::kLinks}}};

}  // namespace migrate
