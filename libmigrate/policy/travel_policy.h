#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "libmigrate/requests/policy_rules.h"

namespace migrate {

/// A piece of a process's memory, as rules look at it.
struct TravellingMemory {
  MemoryKind kind = MemoryKind::kHeap;
  std::string_view name;    ///< Path of a file, or name of an arena; else empty.
  std::uint64_t bytes = 0;  ///< Of a file all that the process has mapped of this kind.
  bool known = true;        ///< Of a file: the destination has the same.
  bool is_shared = false;   ///< Of a file: mapped so that others see what is written.
};

/// What was decided of it.
struct TravelChoice {
  Travel travel = Travel::kShip;
  std::string rule = "default";  ///< Where the rule stands that decided.
  friend bool operator==(const TravelChoice&, const TravelChoice&) = default;
};

/// Rules of a host, which are its administrator's, and of whoever asks for a move. What the first
/// decide is the most that the second may choose: refuse is less than local, that is less than the
/// others, which all send what the process can read anyway, and differ in when. What no rule fits
/// is sent, but files that the destination has are taken from there, and those that it has not are
/// refused unless the process starts. A value.
class TravelPolicy {
 public:
  TravelPolicy() = default;
  /// `ships_unknown`: of files that the destination has not, pages are sent when they are touched.
  TravelPolicy(PolicyRules of_host, PolicyRules of_asker, bool ships_unknown)
      : of_host_(std::move(of_host)),
        of_asker_(std::move(of_asker)),
        ships_unknown_(ships_unknown) {}

  TravelChoice choose(const TravellingMemory& memory) const;

 private:
  TravelChoice by_default(const TravellingMemory& memory) const;

  PolicyRules of_host_;
  PolicyRules of_asker_;
  bool ships_unknown_ = false;
};

}  // namespace migrate
