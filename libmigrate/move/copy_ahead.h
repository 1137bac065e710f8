#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/pages/rounds.h"
#include "pager/page_reader.h"
#include "pager/page_set.h"
#include "pager/page_source.h"
#include "pager/region.h"
#include "pager/round_sender.h"
#include "pager/write_tracker.h"

namespace migrate {

/// What of a process is sent to its destination while it still runs here (modes precopy and
/// hybrid), and what of that still counts once it is frozen. What it writes is followed as long as
/// this lives. Owned by one thread.
class CopyAhead {
 public:
  /// All of one address space, as the process was when it was stopped and judged.
  struct Place {
    pid_t process = 0;
    UniqueFd memory;     ///< /proc/PID/mem.
    UniqueFd pagemap;    ///< /proc/PID/pagemap.
    UniqueFd userfault;  ///< Fresh.
  };
  struct Options {
    RoundLimits limits;
    std::uint64_t most_pages = 0;        ///< That the destination takes.
    std::uint64_t bytes_per_second = 0;  ///< 0: no limit.
    std::function<Result<void>()> still_wanted;
    std::function<void()> on_round = [] {};
  };

  /// Follows what is written in `regions` from now on. Errors: kUnsupported, kSystem, kNotFound.
  static Result<std::unique_ptr<CopyAhead>> create(Place place,
                                                   const std::vector<ServedRegion>& regions);

  /// Sends all pages that there are, then what was written meanwhile, until it has been often
  /// enough. Errors: as RoundSender::send(), kSystem.
  Result<void> run(PageLink& link, const Options& options);

  /// The process is frozen: which pages the destination has as they are. Nothing of `lost`, which
  /// the destination throws away. Errors: kSystem.
  Result<void> find_kept(const PageSet& lost);
  /// Says so. Errors: kPeerLost.
  Result<void> send_kept(PageLink& link) { return sender_->send_kept(link, kept_); }
  const PageSet& kept() const { return kept_; }

  /// What a result says of it.
  nlohmann::json report() const;

 private:
  explicit CopyAhead(WriteTracker tracker) : tracker_(std::move(tracker)) {}

  PageSet with_room(const PageSet& pages) const;

  WriteTracker tracker_;
  std::unique_ptr<ProcessPageReader> reader_;
  std::optional<RoundSender> sender_;
  std::uint64_t most_pages_ = 0;
  std::optional<Rounds> rounds_;
  std::optional<RoundsEnd> end_;
  PageSet ever_;    // sent at any time
  PageSet staged_;  // sent, and not known to have been written since
  PageSet kept_;
};

}  // namespace migrate
