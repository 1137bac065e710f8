// What a home worker does with the requests of local clients: most go to where the process is.
#include "base/clock.h"
#include "base/log.h"
#include "libmigrate/home/home_worker.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/rights/stand_in.h"
#include "transport/proof.h"

namespace migrate {
namespace {

constexpr int kForwardTimeoutMs = 5000;

}  // namespace

void HomeWorker::forward_request(Letter letter) {
  EventSink client(std::move(letter.fd));
  nlohmann::json request = parse_object(letter.request);
  const auto command = parse_command(request);
  if (!command) {
    client.finish_failed(MIGRATE_USAGE, command.error());
    return;
  }
  if (*command == Command::kResolve) {
    const auto decided = parse_resolve(request);
    const auto may = may_resolve(request);
    if (!decided || !may) {
      client.finish_failed(decided ? MIGRATE_REFUSED : MIGRATE_USAGE,
                           decided ? may.error() : decided.error());
      return;
    }
    resolve(std::move(client), *decided);
    return;
  }
  if (exit_status_) {
    client.finish_failed(MIGRATE_ERROR, make_error(ErrorCode::kNotFound, "carry out a request",
                                                   "process " + command_,
                                                   "it has ended, and only children of it "
                                                   "are left"));
    return;
  }
  const std::string who = "process " + command_;
  if (!relay_) {
    client.finish_failed(MIGRATE_ERROR,
                         make_error(ErrorCode::kRetry, "carry out a request", who,
                                    "where it runs is in doubt; see migratectl show"));
  } else {
    forwards_->pass_on(std::move(request), std::move(client), where_,
                       *command == Command::kMove ? MIGRATE_FAILED : MIGRATE_ERROR);
  }
}

// Those that came while a move was tried that has failed: the process is nobody's any more.
void HomeWorker::refuse_requests() {
  for (auto letter = mailbox_->receive(0); letter; letter = mailbox_->receive(0)) {
    if (!letter->preamble) {
      EventSink(std::move(letter->fd))
          .finish_failed(MIGRATE_FAILED,
                         make_error(ErrorCode::kRetry, "carry out a request", "process " + command_,
                                    "a move of it has just failed; try again"));
    }
  }
}

Result<std::unique_ptr<Channel>> HomeWorker::send_request(const Whereabouts& where,
                                                          const nlohmann::json& request) const {
  const Address address = MIGRATE_TRY(Address::parse(where.host));
  const Preamble preamble{.purpose = Purpose::kCommand,
                          .session = MIGRATE_TRY(session_id_from_hex(where.session))};
  auto peer = MIGRATE_TRY(context_.trust.connect(address, preamble, kForwardTimeoutMs));
  MIGRATE_TRY(give_proof(*peer.channel, token_, preamble, kForwardTimeoutMs));
  const std::string text = request.dump();
  MIGRATE_TRY(peer.channel->send_one(std::as_bytes(std::span(text))));
  return std::move(peer.channel);
}

// Its worker may answer where its daemon does not. Otherwise asked anew, which blocks for up to ten
// seconds.
bool HomeWorker::place_answers() const {
  constexpr std::uint32_t kLatelyMs = 6000;  // Its kernel is asked whenever it is silent for five.
  if (relay_ && relay_->connected() && relay_->silent_ms() < kLatelyMs) {
    return true;
  }
  const auto address = Address::parse(where_.host);
  const auto session = session_id_from_hex(where_.session);
  if (!address || !session) {
    return false;
  }
  const Preamble preamble{.purpose = Purpose::kCommand, .session = *session};
  const auto peer = context_.trust.connect(*address, preamble, kForwardTimeoutMs);
  return peer && give_proof(*peer->channel, token_, preamble, kForwardTimeoutMs).has_value();
}

// While it is in doubt, what is parked here is the process as it was when it left. Later it is a
// deputy that nobody may look into, and giving it up is to kill it. Where nothing is, nobody but
// its user, whom the daemon has let through, and root can ask.
Result<void> HomeWorker::may_resolve(const nlohmann::json& request) const {
  const Asker asker = MIGRATE_TRY(asker_from(request));
  if (deputy_gone_) {
    return {};
  }
  return relay_ ? may_signal(asker, request_.pid) : may_attach(asker, request_.pid);
}

void HomeWorker::resolve(EventSink client, Resolution resolution) {
  const std::string who = "process " + command_;
  if (move_->fate() == Fate::kUnknown && !relay_) {
    if (decision_.made()) {
      client.finish_failed(MIGRATE_ERROR, make_error(ErrorCode::kRetry, "resolve", who,
                                                     "another such request is being carried out"));
      return;
    }
    decision_ = {resolution, std::move(client)};
    return;
  }
  if (resolution != Resolution::kGiveUp) {
    client.finish_failed(MIGRATE_REFUSED, make_error(ErrorCode::kRefused, "resume", who,
                                                     "it is known to have run elsewhere"));
    return;
  }
  if (place_answers()) {
    client.finish_failed(
        MIGRATE_REFUSED,
        make_error(ErrorCode::kRefused, "give up", who,
                   "it is at " + where_.host + ", which answers; to end it, kill pid " +
                       std::to_string(keeper_lives_ ? move_->parked().process() : request_.pid)));
    return;
  }
  log::warn("{}: an operator gives it up, as lost with {}", who, where_.host);
  give_up_ = true;
  client.finish(MIGRATE_DONE, {{"process", to_hex(process_)}, {"resolved", to_string(resolution)}});
}

void HomeWorker::pump_forwards() {
  if (!forwards_) {
    return;
  }
  for (EndClient& waiting : forwards_->pump(where_, exit_status_.has_value())) {
    if (exit_status_) {
      tell_end(waiting.client, std::move(waiting.result));
    } else {
      end_clients_.push_back(std::move(waiting));
    }
  }
}

// The process closed one of its ends: whoever is at the other end of the real one shall see it.
void HomeWorker::close_stream(std::uint32_t id) {
  if (deputy_gone_ && !keeper_lives_) {
    return;
  }
  if (auto done = move_->parked().close(descriptors_of_stream(move_->image(), id)); !done) {
    log::warn("{}", done.error().message());
  }
}

}  // namespace migrate
