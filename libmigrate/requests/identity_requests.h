#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "libmigrate/requests/members.h"
#include "libmigrate/requests/move_words.h"

// Requests about a process wherever it is, by its global name: its home answers, which any host may
// ask. As those of requests.h.

namespace migrate {

/// A process's global name.
struct IdentityRequest {
  static constexpr std::string_view kWord = "identity";
  template <class Members, class Self>
  static void each(Members& /*members*/, Self& /*self*/) {}
};

/// To be told where a process is, whenever that changes, until it has ended.
struct WatchRequest {
  static constexpr std::string_view kWord = "watch";
  template <class Members, class Self>
  static void each(Members& /*members*/, Self& /*self*/) {}
};

/// A signal to a process, wherever it is, by its home.
struct KillRequest {
  static constexpr std::string_view kWord = "kill";
  static constexpr std::uint32_t kMostSignal = 64;
  std::uint32_t signal = 15;  ///< 0: only whether it could be sent.
  template <class Members, class Self>
  static void each(Members& members, Self& self) {
    members.whole("signal", self.signal, 0, kMostSignal);
  }
};

/// What is done with a name that a user gives to a process. Its home keeps it.
enum class NameAction : std::uint8_t { kSet, kGet, kUnset, kList };
inline constexpr Words<NameAction, 4> kNameActions{{{"set", NameAction::kSet},
                                                    {"get", NameAction::kGet},
                                                    {"unset", NameAction::kUnset},
                                                    {"list", NameAction::kList}}};
struct NameRequest {
  static constexpr std::string_view kWord = "name";
  static constexpr std::size_t kLongest = 64;
  NameAction action = NameAction::kList;
  std::string name;  ///< Letters, digits, ".", "_", "-"; not of kList.
  std::string host;  ///< Where it is kept, by name or address; empty: wherever (kGet), or here.
  template <class Members, class Self>
  static void each(Members& members, Self& self) {
    members.needed_word("action", self.action, kNameActions);
    members.text("name", self.name);
    members.text("host", self.host);
  }
  /// Errors: kInvalid (not a name).
  Result<void> settle() const;
};

/// When the process has ended, `other` gets a signal; of a link both ways that is asked of both.
struct LinkRequest {
  static constexpr std::string_view kWord = "link";
  std::string other;  ///< Another process, as `process` of a request.
  std::uint32_t signal = 9;
  bool one_way = false;  ///< Not asked of the other one, too.
  bool ends = false;     ///< There is to be none any more.
  template <class Members, class Self>
  static void each(Members& members, Self& self) {
    members.text("other", self.other);
    members.whole("signal", self.signal, 1, KillRequest::kMostSignal);
    members.flag("one_way", self.one_way);
    members.flag("ends", self.ends);
  }
};

}  // namespace migrate
