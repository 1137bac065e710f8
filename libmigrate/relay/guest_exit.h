#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "libmigrate/proto/home.pb.h"
#include "libmigrate/relay/relay_parts.h"

namespace migrate {

/// What home is to hear of the end of a process, and what it has heard. Part of GuestRelay; the
/// owner's thread only.
class GuestExit {
 public:
  /// The process has ended; the arguments are those of GuestRelay::report_exit(). Once only.
  void begin(int wait_status, bool keep_streams, const std::string& lost,
             const std::map<std::uint64_t, std::uint64_t>& positions, const IncompleteCore& core);
  /// So have the descendants that it left: home is to hear of it again.
  void end_descendants();

  bool has_begun() const { return told_.has_value(); }
  /// It has begun, and descendants may use the streams.
  bool keeps_streams() const { return told_ && told_->keep_streams(); }
  /// Home is to be told, on the present link.
  bool is_due() const { return told_ && heard_ == Heard::kNot; }
  /// Only if it has begun.
  wire::RelayExited& told() { return *told_; }
  const wire::RelayExited& told() const { return *told_; }

  void set_sent() { heard_ = Heard::kSent; }
  /// A new link: what was only sent may not have come.
  void begin_again();
  /// Home has confirmed it, with the descendants' end or without. `is_answer`: home has taken the
  /// link; otherwise it says so instead of an answer, since it has ended already.
  void accept_ack(bool descendants, bool is_answer);

  bool is_acknowledged() const { return heard_ == Heard::kAcknowledged; }
  /// The process is over for home, and nobody there hears of it any more.
  bool is_home_over() const { return home_over_; }

  void note(wire::GuestRelayState& state) const;
  /// From what note() wrote.
  void adopt(const wire::GuestRelayState& state);

 private:
  enum class Heard : std::uint8_t { kNot, kSent, kAcknowledged };

  std::optional<wire::RelayExited> told_;
  Heard heard_ = Heard::kNot;
  bool home_over_ = false;
};

}  // namespace migrate
