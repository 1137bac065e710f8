#include "libmigrate/home/home_killed.h"

#include <utility>

#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/request_json.h"

namespace migrate {

HomeKilled::HomeKilled(const HomeSurroundings& around, HomeRecord& record, Whereabouts there,
                       Ask ask)
    : around_(around),
      record_(record),
      there_(std::move(there)),
      ask_(std::move(ask)),
      since_us_(around.clock()) {}

int HomeKilled::collect_poll_fds(std::vector<pollfd>& /*polled*/) {
  constexpr int kPauseMs = 1000;
  return kPauseMs;
}

bool HomeKilled::step() {
  if (given_up_) {
    return false;
  }
  auto verdict = end_there();
  if (verdict) {
    verdict_ = std::move(*verdict);
    return false;
  }
  record_.show_waiting("killed here, and in doubt whether it runs at " + there_.host,
                       around_.clock() - since_us_);
  record_.refresh_row();
  return true;
}

// What became of it at the destination, where it does not run any more then.
Result<wire::Verdict> HomeKilled::end_there() {
  constexpr int kAnswerMs = 5000;
  wire::Verdict verdict = MIGRATE_TRY(ask_());
  if (verdict.fate() != wire::Verdict::RUNS) {
    return verdict;
  }
  // Not by the relay: of its streams nothing is known here.
  const auto channel = MIGRATE_TRY(around_.send_request(there_, request_for(EndRequest())));
  const auto answer = MIGRATE_TRY(channel->receive(0, kAnswerMs));
  const nlohmann::json result =
      parse_object({reinterpret_cast<const char*>(answer.data()), answer.size()});
  if (integer_member(result, "exit", MIGRATE_ERROR) == MIGRATE_FAILED) {
    // It is just leaving there.
    return fail(
        make_error(ErrorCode::kRetry, "end a process", there_.host, "its worker cannot do so now"));
  }
  return verdict;
}

// Without its streams there is nothing to be said to the process. The link is kept, so that its
// place does not call again and again.
void HomeKilled::on_caller(std::unique_ptr<Channel> channel) {
  caller_ = std::move(channel);
}

// Nothing is here that anybody could look into: its user, whom the daemon has let through, and root
// may decide.
Result<void> HomeKilled::may_resolve(const Asker& /*asker*/) {
  return {};
}

void HomeKilled::on_resolve(EventSink client, Resolution resolution) {
  if (resolution != Resolution::kGiveUp) {
    client.finish_failed(MIGRATE_REFUSED,
                         make_error(ErrorCode::kRefused, "resume", "process " + record_.command(),
                                    "it was killed here; give it up, or wait for " + there_.host));
    return;
  }
  given_up_ = true;
  client.finish(MIGRATE_DONE,
                {{"process", to_hex(record_.process())}, {"resolved", to_string(resolution)}});
}

void HomeKilled::on_request(nlohmann::json /*request*/, EventSink client) {
  client.finish_failed(MIGRATE_ERROR, make_error(ErrorCode::kRetry, "carry out a request",
                                                 "process " + record_.command(),
                                                 "where it runs is in doubt; see migratectl show"));
}

}  // namespace migrate
