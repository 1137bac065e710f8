#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "libmigrate/relay/link.h"
#include "transport/channel.h"

namespace migrate {

/// Asks the home of a process, for a place where it is in doubt whether the process has moved on,
/// whether it has called from a later place. Takes nothing over: the home stays with who has its
/// link. Thread: the owner's only.
class HomeEnquiry {
 public:
  /// `channel`: a new one to the home. `epoch`: that of the relay of the place that asks.
  HomeEnquiry(std::unique_ptr<Channel> channel, std::uint64_t epoch);

  enum class Answer : std::uint8_t {
    kNone,        ///< So far; ask again.
    kLaterPlace,  ///< A later place has called: the process has run there.
    kEnded,       ///< The process is over for its home.
  };
  /// Blocks: no. Errors: kPeerLost, kCorrupt; the enquiry is over then.
  Result<Answer> answer();

 private:
  Link link_;
  const std::uint64_t epoch_;
};

}  // namespace migrate
