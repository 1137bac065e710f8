#include "libmigrate/home/home_serving.h"

#include <signal.h>

#include <utility>

namespace migrate {

ProcessEnd given_up_end() {
  ProcessEnd end;
  end.wait_status = SIGKILL;
  end.lost = "an operator gave it up";
  return end;
}

int HomeServing::collect_poll_fds(std::vector<pollfd>& polled) {
  return deputy_.collect_poll_fds_of_deputy(polled);
}

bool HomeServing::step() {
  if (deputy_.end()) {
    return false;
  }
  deputy_.watch();
  deputy_.follow_move();
  deputy_.pump();
  hear_of_end();
  return !deputy_.end();
}

// The destination's daemon says that the process is over and its worker too: the relay will not,
// unless its last words are still on their way.
void HomeServing::hear_of_end() {
  constexpr std::int64_t kLastWordsUs = 2'000'000;
  const Departure& move = *deputy_.departed().move;
  if (move.fate() != Fate::kEnded || deputy_.end()) {
    return;
  }
  const std::int64_t now = deputy_.around().clock();
  told_ended_us_ = told_ended_us_.value_or(now);
  if (now - *told_ended_us_ > kLastWordsUs) {
    ProcessEnd end;
    end.wait_status = move.wait_status();
    end.lost = move.error().message();
    deputy_.note_end(std::move(end));
  }
}

void HomeServing::on_caller(std::unique_ptr<Channel> channel) {
  deputy_.attach(std::move(channel));
}

Result<void> HomeServing::may_resolve(const Asker& asker) {
  return deputy_.may_resolve(asker);
}

void HomeServing::on_resolve(EventSink client, Resolution resolution) {
  if (deputy_.lets_give_up(std::move(client), resolution)) {
    deputy_.note_end(given_up_end());
  }
}

void HomeServing::on_request(nlohmann::json request, EventSink client) {
  deputy_.pass_on(std::move(request), std::move(client));
}

}  // namespace migrate
