#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "libmigrate/requests/members.h"
#include "libmigrate/requests/words.h"

namespace migrate {

/// What is done about a host that processes are to leave.
enum class DrainAction : std::uint8_t {
  kTell,   ///< Only what there is.
  kBegin,  ///< It takes no process any more.
  kEnd,    ///< It does again.
};
inline constexpr Words<DrainAction, 3> kDrainActions{
    {{"tell", DrainAction::kTell}, {"begin", DrainAction::kBegin}, {"end", DrainAction::kEnd}}};

/// Whether this host takes processes, and which of those that run here are to leave if it does not.
struct DrainRequest {
  static constexpr std::string_view kWord = "drain";
  DrainAction action = DrainAction::kTell;
  std::vector<std::string> users;  ///< Numbers of users whose processes count, too.
  template <class Members, class Self>
  static void each(Members& members, Self& self) {
    members.word("drain", self.action, kDrainActions);
    members.texts("users", self.users);
  }
};

}  // namespace migrate
