// What a home worker does when its process has ended and descendants of it have not: they are owed
// pages, or use streams that lead home.
#include <signal.h>

#include <set>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "libmigrate/home/home_worker.h"

namespace migrate {

bool HomeWorker::serves_children() const {
  return children_ && lost_.empty() && !give_up_ && !relay_->all_ended() &&
         (!move_->done() || relay_->streams_open());
}

// The deputy ends at once, because its parent waits. What its children need of it stays with a
// keeper, which is noted before, for a worker that takes over.
void HomeWorker::leave_to_keeper(int wait_status) {
  children_left_ = true;
  heard_us_ = now_us();
  if (keeper_lives_ || deputy_gone_) {
    return;
  }
  auto keeper = move_->parked().make_keeper(descriptors_to_keep(move_->image(), false));
  if (!keeper) {
    log::error("children of process {}: {}", command_, keeper.error().message());
    return;
  }
  context_.stops.reach("source.keeper");
  wire::Keeper& noted = *noted_.mutable_keeper();
  noted.set_pid(keeper->process());
  noted.set_start(start_time(keeper->process()));
  noted.set_wait_status(wait_status);
  keeper_lives_ = true;
  ending_.emplace(move_->serve_from(std::move(*keeper)));
  note_change();
  context_.stops.reach("source.keeper_noted");
  log::info("process {} has ended, children of it have not: process {} keeps what they need",
            command_, noted.pid());
}

void HomeWorker::follow_children() {
  if (!children_left_) {
    return;
  }
  watch_keeper();
  watch_silence();
  const bool needs_nothing = move_->done() && !relay_->streams_open();
  if (!needs_nothing && !relay_->all_ended() && !give_up_) {
    return;
  }
  end_keeper();
  children_left_ = false;
  if (give_up_) {
    move_->stop_serving();
    log::error("children of process {} at {} are given up", command_, where_.host);
  }
  row_->set_waiting({}, 0);
  enter(HomePhase::kEnded, *exit_status_);
}

// Who kills it means them, too, if they need its memory.
void HomeWorker::watch_keeper() {
  if (keeper_lives_) {
    const auto state = move_->parked().check_state();
    if (state && *state >= 0) {
      return;
    }
    keeper_lives_ = false;
    log::warn("the keeper of the memory of process {} was killed", command_);
  }
  if (!move_->done() && !keeper_lost_) {
    keeper_lost_ = true;
    move_->stop_serving();
    if (auto told = relay_->send_signal(plain_siginfo(SIGKILL)); !told) {
      log::warn("{}", told.error().message());
    }
  }
}

// The same limit that a place has for the pages that it waits for.
void HomeWorker::watch_silence() {
  constexpr std::uint32_t kLatelyMs = 6000;
  constexpr std::int64_t kShownUs = 2'000'000;
  const bool pages_linked = !move_->done() && move_->waits_for().empty();
  if (pages_linked || (relay_->connected() && relay_->silent_ms() < kLatelyMs)) {
    heard_us_ = now_us();
  }
  const std::int64_t silent_us = now_us() - heard_us_;
  if (move_->done()) {
    row_->set_waiting(silent_us > kShownUs ? where_.host + ", where children of it are" : "",
                      silent_us);
  }
  const std::int64_t limit_us = std::int64_t{context_.end_waiting_s} * 1'000'000;
  if (limit_us != 0 && silent_us > limit_us && !give_up_) {
    log::error("nothing was heard of children of process {} at {} for {} s", command_, where_.host,
               context_.end_waiting_s);
    give_up_ = true;
  }
}

// Noted first: a keeper that is noted and gone was killed by someone else.
void HomeWorker::end_keeper() {
  noted_.clear_keeper();
  note_change();
  if (std::exchange(keeper_lives_, false)) {
    move_->stop_serving();
    move_->parked().end();
  }
}

}  // namespace migrate
