#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libmigrate/pages/rounds.h"
#include "libmigrate/requests/move_settings.h"
#include "libmigrate/requests/move_words.h"

namespace migrate {

/// How much of its memory a process writes in a time, as it was seen for a while. A value.
struct WriteCurve {
  struct Point {
    double us = 0;     ///< Since it was first looked at.
    double share = 0;  ///< Of the pages that it has, written since then, from 0 to 1.
  };
  std::vector<Point> seen;  ///< Both members ascending. Empty: it was not watched.

  /// The share that is written within `us` microseconds from any moment. Of less time than was
  /// looked at nothing is known, so that it is as much as in that. Of more: if it came to new pages
  /// as fast at the end as at first, it goes on so until it has written all; else it comes back to
  /// the same pages, and new ones get ever fewer (exponentially).
  double within(double us) const;
  /// What it writes in the end.
  double in_the_end() const;
  double watched_us() const { return seen.empty() ? 0 : seen.back().us; }
  double whole() const { return seen.empty() ? 0 : seen.back().share; }

 private:
  /// New pages in the last piece of time: how many a microsecond, and by how much that decays
  /// (0: it does not).
  struct Tail {
    double rate = 0;
    double decay = 0;
  };
  Tail tail() const;
};

/// That each thread but the first adds to a freeze, roughly.
inline constexpr double kFreezeUsPerThread = 300;

/// What memory a process has, as far as it is sent.
struct MemoryFacts {
  std::uint64_t pages = 0;
  WriteCurve writes;
};

/// What a connection carries, as probes tell. 0: not known.
struct LinkSpeed {
  double bytes_per_second = 0;
  double round_trip_us = 0;
};

/// How fast moves go between two hosts: bytes a second of pages, and microseconds. 0: not known.
struct Speeds {
  double behind = 0;     ///< Pushed while the process runs at the destination.
  double stopped = 0;    ///< Pushed while it stands still.
  double ahead = 0;      ///< Sent in rounds while it runs at the source.
  double freeze_us = 0;  ///< For which a process of one thread stands still, pages left aside,
  double freeze_after_rounds_us = 0;  ///< and after rounds, of which is found what still counts.

  bool knows_pages() const { return behind > 0 || stopped > 0 || ahead > 0; }
  /// With what is not known taken from what is, and at last from `link` and what is usual; none
  /// faster than `limit`, in bytes a second (0: no limit).
  Speeds completed(const LinkSpeed& link, double limit) const;
};

/// All that a forecast is made of.
struct MoveFacts {
  MemoryFacts memory;
  std::uint64_t content_bytes = 0;  ///< Of memory files, which travel while it stands still.
  std::uint32_t threads = 1;
  Speeds speeds;                           ///< Complete.
  std::string_view speeds_from = "usual";  ///< Whence they are: "moves", "probe", "usual".
  RoundLimits rounds;
  std::string no_rounds;  ///< Why it cannot be sent in rounds; empty: it can.
};

/// What a move in one mode would come to.
struct Forecast {
  MovePlan plan;
  std::string why_not;       ///< It is out of the question. Empty: it is not.
  std::int64_t stop_us = 0;  ///< The longest time for which the process stands still.
  std::uint64_t bytes = 0;   ///< Sent at most.
  /// Sent at least: less than `bytes` where it depends on what the process will read.
  std::uint64_t least_bytes = 0;
  /// From the end of the stop until the source owes nothing; nothing: not before the process has
  /// touched or given up all of its memory, or ends.
  std::optional<std::int64_t> independence_us;
};

/// The mode that is best by a wish, among all.
struct ModeChoice {
  Wish wish = Wish::kStop;
  MoveFacts facts;
  std::vector<Forecast> all;  ///< In the order of kModes.
  std::size_t chosen = 0;     ///< Index in `all`.

  const Forecast& best() const { return all[chosen]; }
};

/// What a move in the mode `plan` would come to.
Forecast forecast(const MovePlan& plan, const MoveFacts& facts);

/// Of the modes that are possible the best by `wish`; of those that are about as good in that, the
/// best in what else counts. There is always one, since lazy needs nothing.
ModeChoice choose_mode(MoveFacts facts, Wish wish);

}  // namespace migrate
