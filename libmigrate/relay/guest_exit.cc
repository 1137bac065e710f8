#include "libmigrate/relay/guest_exit.h"

namespace migrate {

void GuestExit::begin(int wait_status, bool keep_streams, const std::string& lost,
                      const std::map<std::uint64_t, std::uint64_t>& positions,
                      const IncompleteCore& core) {
  told_.emplace();
  told_->set_wait_status(wait_status);
  told_->set_keep_streams(keep_streams);
  told_->set_lost(lost);
  told_->set_core_lacks_pages(core.lacks_pages);
  told_->set_core_file(core.file);
  for (const auto& [id, offset] : positions) {
    wire::RelayExited::Position& position = *told_->add_positions();
    position.set_shared_id(id);
    position.set_offset(offset);
  }
}

void GuestExit::end_descendants() {
  told_->set_keep_streams(false);
  heard_ = home_over_ ? Heard::kAcknowledged : Heard::kNot;
}

void GuestExit::begin_again() {
  if (heard_ == Heard::kSent) {
    heard_ = Heard::kNot;
  }
}

// A home that the process is over for says so before it has heard of any end: what comes later
// it will not hear, but is told on the next link all the same, and answers in the same way.
void GuestExit::accept_ack(bool descendants, bool is_answer) {
  home_over_ = home_over_ || !is_answer;
  if (told_ && (told_->keep_streams() || descendants || home_over_)) {
    heard_ = Heard::kAcknowledged;
  }
}

void GuestExit::note(wire::GuestRelayState& state) const {
  state.set_exit_acked(is_acknowledged());
  if (told_) {
    *state.mutable_exited() = *told_;
  }
}

void GuestExit::adopt(const wire::GuestRelayState& state) {
  if (state.exit_acked()) {
    heard_ = Heard::kAcknowledged;
  }
  if (state.has_exited()) {
    told_ = state.exited();
  }
}

}  // namespace migrate
