#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/clock.h"
#include "libmigrate/move/control_channel.h"
#include "libmigrate/proto/control.pb.h"

namespace migrate {

/// A guest's link to the host that it came from, once it runs here: tells how much is owed, until
/// the source says that it knows that nothing is. A link that breaks is let go; the source makes
/// another. Owned by one thread; nothing blocks but sending.
class SourceLink {
 public:
  /// `clock` gives microseconds that only grow.
  explicit SourceLink(std::function<std::int64_t()> clock = now_us) : clock_(std::move(clock)) {}

  /// The connection on which the process came; the source was heard just now.
  void attach(std::unique_ptr<ControlChannel> control);
  /// The source has come again: tells it that the process runs here, and with `wants_all` that all
  /// pages are to be sent.
  void answer(std::unique_ptr<ControlChannel> control, const wire::Progress& progress,
              bool wants_all);
  /// The process is to move on: all pages are to be sent.
  void ask_for_all();

  /// Reads what the source says. True: it has said just now that it knows all.
  bool hear();
  /// Whether it is time for the next tell().
  bool is_due() const { return clock_() >= next_us_; }
  /// It is, as of now.
  void hurry() { next_us_ = 0; }
  /// Tells how much is owed, if there is a link, which is lost where the source was not heard of
  /// for kSilenceUs.
  void tell(const wire::Progress& progress);

  bool connected() const { return control_ != nullptr; }
  int poll_fd() const { return control_ ? control_->channel().poll_fd() : -1; }
  /// The source knows that nothing is owed by it, or nobody there asks any more.
  bool knows() const { return knows_; }
  void note_knows() { knows_ = true; }

 private:
  const std::function<std::int64_t()> clock_;
  std::unique_ptr<ControlChannel> control_;
  std::int64_t next_us_ = 0;
  std::int64_t heard_us_ = 0;
  bool knows_ = false;
};

}  // namespace migrate
