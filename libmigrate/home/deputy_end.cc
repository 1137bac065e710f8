// How a deputy ends as its process did, and what then stays for the children of the process.
#include <utility>

#include "base/log.h"
#include "libmigrate/home/deputy.h"
#include "libmigrate/requests/json_member.h"

namespace migrate {

void Deputy::note_end(ProcessEnd end) {
  if (!end_) {
    end_ = std::move(end);
  }
}

bool Deputy::end_deputy() {
  around_.stops.reach("source.exit");
  const bool leaves_children = serves_children();
  if (leaves_children) {
    leave_to_keeper();
  } else if (departed_.keeper) {
    end_keeper();
  }
  // First, so that a worker that takes over knows why there is no deputy.
  record_.enter(HomePhase::kEnding, last_move(), end_->wait_status);
  if (departed_.deputy) {
    if (auto ended = departed_.deputy->end_as(end_->wait_status); !ended) {
      log::error("deputy of process {}: {}", record_.pid(), ended.error().message());
    }
    departed_.deputy.reset();
    if (!departed_.keeper) {
      departed_.move->stop_serving();
    }
    around_.stops.reach("source.ended");
  }
  record_.release_pid();
  log_end();
  if (end_->is_remarkable()) {
    record_.show_result(json_text(outcome()));
  }
  // After the reason, which whoever waits for the end then reads.
  record_.enter(leaves_children ? HomePhase::kChildrenLeft : HomePhase::kEnded, last_move(),
                end_->wait_status);
  tell_everybody();
  return leaves_children;
}

bool Deputy::serves_children() const {
  return end_->left_children && end_->lost.empty() && !relay_->all_ended() &&
         (!departed_.move->done() || relay_->streams_open());
}

// The deputy ends at once, because its parent waits. What its children need of it stays with a
// keeper, which is noted before, for a worker that takes over.
void Deputy::leave_to_keeper() {
  if (departed_.keeper || !departed_.deputy) {
    return;
  }
  auto keeper = departed_.deputy->make_keeper(relay_->accepted_descriptors());
  if (!keeper) {
    log::error("children of process {}: {}", record_.command(), keeper.error().message());
    return;
  }
  around_.stops.reach("source.keeper");
  departed_.keeper = std::move(*keeper);
  wire::Keeper& noted = *record_.text().mutable_keeper();
  noted.set_pid(departed_.keeper->process());
  noted.set_start(start_time(noted.pid()));
  noted.set_wait_status(end_->wait_status);
  note_relay();
  around_.stops.reach("source.keeper_noted");
  log::info("process {} has ended, children of it have not: process {} keeps what they need",
            record_.command(), noted.pid());
}

// Noted first: a keeper that is noted and gone was killed by someone else.
void Deputy::end_keeper() {
  record_.text().clear_keeper();
  note_relay();
  if (departed_.keeper) {
    departed_.move->stop_serving();
    std::exchange(departed_.keeper, nullptr)->end();
  }
}

void Deputy::end_children() {
  record_.show_waiting(std::string(), 0);
  record_.enter(HomePhase::kEnded, last_move(), end_->wait_status);
}

bool Deputy::was_heard() const {
  return departed_.move->done() && forwards_.empty() && relay_->finished() && !relay_->connected();
}

void Deputy::log_end() const {
  if (!end_->lost.empty()) {
    log::error("process {} is lost: {}", record_.command(), end_->lost);
  }
  if (end_->core.lacks_pages != 0) {
    log::warn("process {} ended at {} with a core dump that lacks {} pages{}{}", record_.command(),
              record_.where().host, end_->core.lacks_pages, end_->core.file.empty() ? "" : ": ",
              end_->core.file);
  }
}

void Deputy::tell_everybody() {
  tell_end(asking_.client, outcome(), *end_);
  for (EndClient& waiting : end_clients_) {
    tell_end(waiting.client, std::move(waiting.result), *end_);
  }
  end_clients_.clear();
}

}  // namespace migrate
