#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"
#include "pager/internal/pace.h"
#include "pager/page_protocol.h"
#include "pager/page_reader.h"
#include "pager/page_set.h"
#include "pager/page_source.h"

namespace migrate {

/// Sends pages of a process that still runs to where it is to go, ahead of it. Owned by one thread.
class RoundSender {
 public:
  /// `reader` is borrowed. `bytes_per_second`: the most that is sent, 0 for no limit.
  /// `still_wanted` is asked now and then; what it fails with ends a call.
  static Result<RoundSender> create(PageReader& reader, std::uint64_t bytes_per_second,
                                    std::function<Result<void>()> still_wanted);

  /// Sends `pages`, and waits until the destination has them. Returns those that were sent: what
  /// the process has unmapped meanwhile is left out. Errors: kPeerLost, kCorrupt, kRetry (the
  /// destination says nothing), kNotFound (the process is gone), kSystem, those of still_wanted.
  Result<PageSet> send(PageLink& link, const PageSet& pages);
  /// Says which pages of all that were sent are those of the frozen process. Errors: kPeerLost.
  Result<void> send_kept(PageLink& link, const PageSet& kept);

  /// Content and headers of pages, so far.
  std::uint64_t bytes_sent() const { return bytes_sent_; }

 private:
  RoundSender(PageReader& reader, std::uint64_t bytes_per_second,
              std::function<Result<void>()> still_wanted, Mapping buffer);

  Result<void> send_batch(PageLink& link, const std::vector<PageRange>& ranges, PageSet& sent);
  Result<void> await_turn(std::uint64_t bytes_left);
  Result<void> await_confirmation(PageLink& link);

  PageReader& reader_;
  std::function<Result<void>()> still_wanted_;
  Mapping buffer_;
  Pace pace_;
  std::vector<PushRun> runs_;
  std::uint64_t sequence_ = 0;
  std::uint64_t bytes_sent_ = 0;
};

}  // namespace migrate
