#include "libmigrate/home/home_ended.h"

namespace migrate {
namespace {

constexpr std::int64_t kEndLingerUs = 2'000'000;

}  // namespace

Error ended_error(const std::string& process) {
  return make_error(ErrorCode::kNotFound, "carry out a request", "process " + process,
                    "it has ended");
}

HomeEnded::HomeEnded(Deputy& deputy)
    : deputy_(deputy), until_us_(deputy.around().clock() + kEndLingerUs) {}

int HomeEnded::collect_poll_fds(std::vector<pollfd>& polled) {
  return deputy_.collect_poll_fds(polled);
}

bool HomeEnded::step() {
  deputy_.around().drain_child_signals();
  deputy_.hear_move();
  deputy_.pump();
  return !deputy_.was_heard() && deputy_.around().clock() <= until_us_;
}

void HomeEnded::on_caller(std::unique_ptr<Channel> channel) {
  deputy_.attach(std::move(channel));  // It hears that we know of the end.
}

Result<void> HomeEnded::may_resolve(const Asker& /*asker*/) {
  return {};
}

void HomeEnded::on_resolve(EventSink client, Resolution /*resolution*/) {
  tell(std::move(client));
}

void HomeEnded::on_request(nlohmann::json /*request*/, EventSink client) {
  tell(std::move(client));
}

void HomeEnded::tell(EventSink client) {
  client.finish_failed(MIGRATE_ERROR, ended_error(deputy_.record().command()));
}

}  // namespace migrate
