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
  if (text_member(request, "command") == "resolve") {
    if (const auto may = may_resolve(request); !may) {
      client.finish_failed(kExitRefused, may.error());
      return;
    }
    resolve(std::move(client), text_member(request, "action"));
    return;
  }
  if (exit_status_) {
    client.finish_failed(
        kExitOther, make_error(ErrorCode::kNotFound, "carry out a request", "process " + command_,
                               "it has ended, and only children of it "
                               "are left"));
    return;
  }
  const auto forwarded = [&]() -> Result<std::unique_ptr<Channel>> {
    if (!request.is_object()) {
      return fail(make_error(ErrorCode::kInvalid, "read a request"));
    }
    if (!relay_) {
      return fail(make_error(ErrorCode::kRetry, "carry out a request", "process " + command_,
                             "where it runs is in doubt; see migratectl show"));
    }
    return send_request(where_, MIGRATE_TRY(session_id_from_hex(where_session_)), request);
  };
  auto channel = forwarded();
  if (!channel) {
    const bool runs_on = relay_ != nullptr && text_member(request, "command") == "move";
    client.finish_failed(runs_on ? kExitFailed : kExitOther, channel.error());
    return;
  }
  Forward forward;
  forward.request = std::move(request);
  forward.client = std::move(client);
  forward.channel = std::move(*channel);
  forward.session = where_session_;
  forwards_.push_back(std::move(forward));
}

// Those that came while a move was tried that has failed: the process is nobody's any more.
void HomeWorker::refuse_requests() {
  for (auto letter = mailbox_->receive(0); letter; letter = mailbox_->receive(0)) {
    if (!letter->preamble) {
      EventSink(std::move(letter->fd))
          .finish_failed(kExitFailed,
                         make_error(ErrorCode::kRetry, "carry out a request", "process " + command_,
                                    "a move of it has just failed; try again"));
    }
  }
}

Result<std::unique_ptr<Channel>> HomeWorker::send_request(const std::string& where,
                                                          const SessionId& session,
                                                          const nlohmann::json& request) const {
  const Address address = MIGRATE_TRY(Address::parse(where));
  const Preamble preamble{.purpose = Purpose::kCommand, .session = session};
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
  const auto address = Address::parse(where_);
  const auto session = session_id_from_hex(where_session_);
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

void HomeWorker::resolve(EventSink client, const std::string& action) {
  const std::string who = "process " + command_;
  if (move_->fate() == Fate::kUnknown && !relay_) {
    if (decision_.made()) {
      client.finish_failed(kExitOther, make_error(ErrorCode::kRetry, "resolve", who,
                                                  "another such request is being carried out"));
      return;
    }
    decision_ = {action, std::move(client)};
    return;
  }
  if (action != "give-up") {
    client.finish_failed(kExitRefused, make_error(ErrorCode::kRefused, "resume", who,
                                                  "it is known to have run elsewhere"));
    return;
  }
  if (place_answers()) {
    client.finish_failed(
        kExitRefused,
        make_error(ErrorCode::kRefused, "give up", who,
                   "it is at " + where_ + ", which answers; to end it, kill pid " +
                       std::to_string(keeper_lives_ ? move_->parked().process() : request_.pid)));
    return;
  }
  log::warn("{}: an operator gives it up, as lost with {}", who, where_);
  give_up_ = true;
  client.finish(kExitDone, {{"process", to_hex(process_)}, {"resolved", action}});
}

void HomeWorker::pump_forwards() {
  std::erase_if(forwards_, [this](Forward& forward) {
    return forward.channel ? pump_forward(forward) : send_again(forward);
  });
}

// True: the client has its answer.
bool HomeWorker::pump_forward(Forward& forward) {
  for (;;) {
    auto message = forward.channel->try_receive();
    if (!message) {
      forward.channel.reset();
      forward.error = std::move(message).error();
      forward.lost_us = now_us();
      return !forward.client.open();
    }
    if (!*message) {
      return false;
    }
    nlohmann::json event =
        parse_object({reinterpret_cast<const char*>((*message)->data()), (*message)->size()});
    if (event.is_object() && text_member(event, "event") == "result") {
      // It has moved on: the next request may come before the new place reports itself.
      if (integer_member(event, "exit", kExitOther) == kExitDone && event.contains("destination") &&
          where_session_ == forward.session) {
        where_ = text_member(event, "destination", where_);
        where_session_ = text_member(event, "id", where_session_);
      }
      const int exit_code = integer_member(event, "exit", kExitOther);
      const bool wants_end = text_member(forward.request, "wait") == "exit";
      if (exit_code != kExitDone || !wants_end) {
        forward.client.finish(exit_code, std::move(event));
      } else if (exit_status_) {
        tell_end(forward.client, std::move(event));
      } else {
        end_clients_.push_back({std::move(forward.client), std::move(event)});
      }
      return true;
    }
    forward.begun = true;
    forward.client.send(event);
  }
}

// A worker from which the process has moved on by another request hangs up: the request goes after
// it. True: the client has its answer, or none is to be had.
bool HomeWorker::send_again(Forward& forward) {
  constexpr std::int64_t kNewsUs = 3'000'000;  // The new place calls within half a second.
  const std::string who = "process " + command_;
  if (exit_status_) {
    forward.client.finish_failed(kExitOther, make_error(ErrorCode::kNotFound, "carry out a request",
                                                        who, "it has ended meanwhile"));
    return true;
  }
  if (where_session_ != forward.session && !forward.begun) {
    const auto session = session_id_from_hex(where_session_);
    auto channel =
        session ? send_request(where_, *session, forward.request)
                : Result<std::unique_ptr<Channel>>(fail(make_error(
                      ErrorCode::kCorrupt, "pass on a request", who, "no session is known")));
    if (!channel) {
      forward.client.finish_failed(kExitFailed, channel.error());
      return true;
    }
    forward.channel = std::move(*channel);
    forward.session = where_session_;
    return false;
  }
  if (now_us() - forward.lost_us < kNewsUs) {
    return false;
  }
  forward.client.finish_failed(
      kExitOther, make_error(ErrorCode::kPeerLost, "carry out a request", who,
                             "its host, " + where_ + ", has not said what became of it (" +
                                 forward.error.message() + "); see migratectl show"));
  return true;
}

}  // namespace migrate
