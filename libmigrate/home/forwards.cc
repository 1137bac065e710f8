#include "libmigrate/home/forwards.h"

#include <algorithm>
#include <utility>

#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/request_json.h"

namespace migrate {
namespace {

// A place to which the process has moved calls home within half a second.
constexpr std::int64_t kNewsUs = 3'000'000;
constexpr int kLookForNewsMs = 20;

bool is_not_now(const nlohmann::json& result) {
  const auto error = result.find("error");
  return error != result.end() && text_member(*error, "code") == to_string(ErrorCode::kRetry);
}

}  // namespace

void Forwards::pass_on(nlohmann::json request, EventSink client, const Whereabouts& where,
                       int failed_exit) {
  auto channel = send_(where, request);
  if (!channel) {
    client.finish_failed(failed_exit, channel.error());
    return;
  }
  Forward& forward = forwards_.emplace_back();
  forward.request = std::move(request);
  forward.client = std::move(client);
  forward.channel = std::move(*channel);
  forward.session = where.session;
}

std::vector<EndClient> Forwards::pump(Whereabouts& where, bool has_ended) {
  std::vector<EndClient> waiting;
  std::erase_if(forwards_, [&](Forward& forward) {
    return forward.channel ? pump_one(forward, where, waiting)
                           : send_again(forward, where, has_ended);
  });
  return waiting;
}

// True: nothing more comes of it.
bool Forwards::pump_one(Forward& forward, Whereabouts& where, std::vector<EndClient>& waiting) {
  for (;;) {
    auto message = forward.channel->try_receive();
    if (!message) {
      forward.channel.reset();
      forward.error = std::move(message).error();
      forward.lost_us = clock_();
      return !forward.client.open();
    }
    if (!*message) {
      return false;
    }
    nlohmann::json event =
        parse_object({reinterpret_cast<const char*>((*message)->data()), (*message)->size()});
    if (!event.is_object() || text_member(event, "event") != "result") {
      forward.begun = true;
      forward.client.send(event);
      continue;
    }
    const int exit_code = integer_member(event, "exit", MIGRATE_ERROR);
    if (!forward.begun && exit_code == MIGRATE_FAILED && is_not_now(event)) {
      // It is leaving that place, or has left it: the request goes after it.
      forward.channel.reset();
      forward.not_now = std::move(event);
      forward.lost_us = clock_();
      return false;
    }
    // The next request may come before the new place reports itself.
    if (exit_code == MIGRATE_DONE && event.contains("destination") &&
        where.session == forward.session) {
      where.host = text_member(event, "destination", where.host);
      where.session = text_member(event, "id", where.session);
    }
    if (exit_code == MIGRATE_DONE && wait_of(forward.request) == MoveWait::kExit) {
      waiting.push_back({std::move(forward.client), std::move(event)});
    } else {
      forward.client.finish(exit_code, std::move(event));
    }
    return true;
  }
}

// True: the client has its answer, or none is to be had.
bool Forwards::send_again(Forward& forward, const Whereabouts& where, bool has_ended) {
  if (has_ended) {
    tell_ended(forward);
    return true;
  }
  if (where.session != forward.session && !forward.begun) {
    auto channel = send_(where, forward.request);
    if (!channel) {
      forward.client.finish_failed(MIGRATE_FAILED, channel.error());
      return true;
    }
    forward.channel = std::move(*channel);
    forward.session = where.session;
    forward.not_now = nullptr;
    return false;
  }
  if (clock_() - forward.lost_us < kNewsUs) {
    return false;
  }
  if (!forward.not_now.is_null()) {
    forward.client.finish(MIGRATE_FAILED, std::move(forward.not_now));
    return true;
  }
  forward.client.finish_failed(
      MIGRATE_ERROR, make_error(ErrorCode::kPeerLost, "carry out a request", "process " + process_,
                                "its host, " + where.host + ", has not said what became of it (" +
                                    forward.error.message() + "); see migratectl show"));
  return true;
}

void Forwards::tell_ended(Forward& forward) const {
  forward.client.finish_failed(
      MIGRATE_ERROR, make_error(ErrorCode::kNotFound, "carry out a request", "process " + process_,
                                "it has ended meanwhile"));
}

void Forwards::end() {
  for (Forward& forward : forwards_) {
    tell_ended(forward);
  }
  forwards_.clear();
}

int Forwards::collect_poll_fds(std::vector<pollfd>& polled) const {
  int longest_ms = -1;
  for (const Forward& forward : forwards_) {
    if (forward.channel) {
      polled.push_back({forward.channel->poll_fd(), POLLIN, 0});
    } else {
      longest_ms = kLookForNewsMs;
    }
  }
  return longest_ms;
}

}  // namespace migrate
