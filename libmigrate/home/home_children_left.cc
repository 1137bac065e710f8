#include "libmigrate/home/home_children_left.h"

#include <signal.h>

#include <utility>

#include "base/log.h"

namespace migrate {

int HomeChildrenLeft::collect_poll_fds(std::vector<pollfd>& polled) {
  return deputy_.collect_poll_fds(polled);
}

bool HomeChildrenLeft::step() {
  deputy_.around().drain_child_signals();
  deputy_.follow_move();
  deputy_.pump();
  watch_keeper();
  watch_silence();
  const Departure& move = *deputy_.departed().move;
  const bool need_nothing = move.done() && !deputy_.relay().streams_open();
  if (!need_nothing && !deputy_.relay().all_ended() && !given_up_) {
    return true;
  }
  deputy_.end_keeper();
  if (given_up_) {
    deputy_.departed().move->stop_serving();
    log::error("children of process {} at {} are given up", deputy_.record().command(),
               deputy_.record().where().host);
  }
  deputy_.end_children();
  return false;
}

// Who kills the keeper means the children, too, if they need its memory.
void HomeChildrenLeft::watch_keeper() {
  Departed& departed = deputy_.departed();
  if (departed.keeper) {
    const auto state = departed.keeper->check_state();
    if (state && *state >= 0) {
      return;
    }
    departed.keeper.reset();
    log::warn("the keeper of the memory of process {} was killed", deputy_.record().command());
  }
  if (!departed.move->done() && !told_lost_) {
    told_lost_ = true;
    departed.move->stop_serving();
    if (auto told = deputy_.relay().send_signal(plain_siginfo(SIGKILL)); !told) {
      log::warn("{}", told.error().message());
    }
  }
}

// The limit is the one that a place has for the pages that it waits for.
void HomeChildrenLeft::watch_silence() {
  constexpr std::uint32_t kLinkLatelyMs = 6000;
  constexpr std::int64_t kShownUs = 2'000'000;
  const Departure& move = *deputy_.departed().move;
  const HomeRelay& relay = deputy_.relay();
  const std::int64_t now = deputy_.around().clock();
  const std::string& host = deputy_.record().where().host;
  const bool pages_linked = !move.done() && move.waits_for().empty();
  if (pages_linked || (relay.connected() && relay.silent_ms() < kLinkLatelyMs)) {
    heard_us_ = now;
  }
  const std::int64_t silent_us = now - heard_us_;
  if (move.done()) {
    deputy_.record().show_waiting(
        silent_us > kShownUs ? host + ", where children of it are" : std::string(), silent_us);
  }
  const std::int64_t limit_us = std::int64_t{deputy_.around().end_waiting_s} * 1'000'000;
  if (limit_us != 0 && silent_us > limit_us && !given_up_) {
    log::error("nothing was heard of children of process {} at {} for {} s",
               deputy_.record().command(), host, deputy_.around().end_waiting_s);
    given_up_ = true;
  }
}

void HomeChildrenLeft::on_caller(std::unique_ptr<Channel> channel) {
  deputy_.attach(std::move(channel));
}

Result<void> HomeChildrenLeft::may_resolve(const Asker& asker) {
  return deputy_.may_resolve(asker);
}

void HomeChildrenLeft::on_resolve(EventSink client, Resolution resolution) {
  given_up_ = deputy_.lets_give_up(std::move(client), resolution) || given_up_;
}

void HomeChildrenLeft::on_request(nlohmann::json /*request*/, EventSink client) {
  client.finish_failed(MIGRATE_ERROR, make_error(ErrorCode::kNotFound, "carry out a request",
                                                 "process " + deputy_.record().command(),
                                                 "it has ended, and only children of it are left"));
}

}  // namespace migrate
