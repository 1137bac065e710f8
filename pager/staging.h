#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"
#include "pager/page_protocol.h"
#include "pager/page_set.h"
#include "pager/page_source.h"
#include "pager/pager.h"

namespace migrate {

/// Takes in pages that a source sends while the process still runs there, and puts them where they
/// belong in the process that is to be it here, which does not run. A page that comes again
/// replaces what came before. What of it may be used, kept() says at the end. Used before
/// Pager::start(), by one thread.
class Staging {
 public:
  /// `pager` is borrowed. `memory`: /proc/PID/mem of the process here, for writing. `most_pages`:
  /// more are not taken.
  Staging(Pager& pager, UniqueFd memory, std::uint64_t most_pages)
      : pager_(pager), memory_(std::move(memory)), most_pages_(most_pages) {}

  /// Takes one message of the bulk link, and answers on it. True: it was the last one, and kept()
  /// is complete. Errors: kCorrupt (format, pages outside the offer or beyond the limit, a range
  /// out of order), kNotFound (the process is gone), kSystem, kPeerLost.
  Result<bool> take(PageLink& link, std::span<const std::byte> message);

  /// The pages, by source address, that are as those of the frozen process, as the source says.
  const PageSet& kept() const { return kept_; }
  std::uint64_t rounds() const { return rounds_; }

 private:
  Result<void> end_round(PageLink& link, std::uint64_t sequence);
  Result<void> note_kept(const PresenceView& view);

  Pager& pager_;
  const UniqueFd memory_;
  const std::uint64_t most_pages_;
  PushView push_;
  PresenceView view_;
  PageSet kept_;
  std::uint64_t kept_until_ = 0;
  bool keeping_ = false;  // the rounds are over
  std::uint64_t rounds_ = 0;
};

}  // namespace migrate
