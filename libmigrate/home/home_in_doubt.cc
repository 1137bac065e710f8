#include "libmigrate/home/home_in_doubt.h"

#include <utility>

#include "base/log.h"

namespace migrate {

HomeInDoubt::HomeInDoubt(const HomeSurroundings& around, HomeRecord& record, Departed& departed,
                         EventSink& client)
    : around_(around),
      record_(record),
      departed_(departed),
      client_(client),
      since_us_(around.clock()) {
  log::warn("session {} is in doubt: {}", to_hex(departed_.move->session()),
            departed_.move->error().message());
  record_.enter(HomePhase::kInDoubt, {.owed_pages = departed_.move->owed_pages(), .result = {}});
}

int HomeInDoubt::collect_poll_fds(std::vector<pollfd>& polled) {
  constexpr int kLookMs = 20;
  polled.push_back({around_.child_signals, POLLIN, 0});
  polled.push_back({departed_.move->control_fd(), POLLIN, 0});
  return kLookMs;
}

bool HomeInDoubt::step() {
  if (is_settled()) {
    return false;
  }
  hear_caller();
  watch_deputy(around_, record_, departed_);
  // What went wrong is shown as what the move waits for; its fate alone counts here.
  static_cast<void>(departed_.move->handle());  // watch_deputy() sees the end of what is parked.
  record_.show_waiting(*departed_.move, around_.clock());
  record_.refresh_row();
  if (client_.open() && around_.clock() - since_us_ > kPatienceUs) {
    client_.finish_failed(MIGRATE_LOST, doubt_error(*departed_.move, record_.command()));
  }
  return !is_settled();
}

bool HomeInDoubt::is_settled() const {
  return departed_.move->fate() != Fate::kUnknown || decision_.is_due(around_.clock());
}

DoubtEnd HomeInDoubt::settle() {
  const DoubtEnd end = end_doubt(*departed_.move, decision_, record_.command());
  record_.show_waiting(*departed_.move, around_.clock());
  return end;
}

// Where the process runs, its worker calls home every half second, and speaks first. A connection
// alone says nothing: it is made before the process may run.
void HomeInDoubt::hear_caller() {
  if (!caller_) {
    return;
  }
  const auto message = caller_->try_receive();
  if (message && !*message) {
    return;
  }
  if (message) {
    log::info("process {} has called from {}: it runs there", record_.command(),
              departed_.move->destination());
    departed_.move->confirm_runs();
  }
  caller_.reset();  // It calls again.
}

// One caller is listened to, the last that has come.
void HomeInDoubt::on_caller(std::unique_ptr<Channel> channel) {
  caller_ = std::move(channel);
}

// What is parked here is the process as it was when it left: who decides about it must be one who
// may look into it. Where nothing is, nobody but its user, whom the daemon has let through, and
// root can ask.
Result<void> HomeInDoubt::may_resolve(const Asker& asker) {
  return departed_.deputy ? departed_.deputy->let_attach(asker) : Result<void>();
}

void HomeInDoubt::on_resolve(EventSink client, Resolution resolution) {
  if (decision_.made()) {
    client.finish_failed(MIGRATE_ERROR,
                         make_error(ErrorCode::kRetry, "resolve", "process " + record_.command(),
                                    "another such request is being carried out"));
    return;
  }
  decision_ = {resolution, std::move(client), around_.clock()};
}

void HomeInDoubt::on_request(nlohmann::json /*request*/, EventSink client) {
  client.finish_failed(MIGRATE_ERROR, make_error(ErrorCode::kRetry, "carry out a request",
                                                 "process " + record_.command(),
                                                 "where it runs is in doubt; see migratectl show"));
}

}  // namespace migrate
