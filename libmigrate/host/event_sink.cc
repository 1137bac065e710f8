#include "libmigrate/host/event_sink.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <utility>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/host/refusals_json.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/request_json.h"

namespace migrate {

void EventSink::also_tell(Program program, std::uint64_t token) {
  program_.emplace(std::move(program));
  token_ = token;
}

int EventSink::descriptor() const {
  if (client_.valid()) {
    return client_.get();
  }
  return program_ ? program_->memory() : -1;
}

std::vector<int> EventSink::descriptors() const {
  std::vector<int> all;
  if (client_.valid()) {
    all.push_back(client_.get());
  }
  if (program_) {
    all.push_back(program_->memory());
  }
  return all;
}

bool EventSink::has_left() const {
  pollfd polled{client_.get(), POLLIN | POLLRDHUP, 0};
  return client_.valid() && ::poll(&polled, 1, 0) == 1 &&
         (polled.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

void EventSink::send(const nlohmann::json& event) {
  std::string line = json_text(event);
  if (client_.valid()) {
    line += '\n';
    if (!write_all(client_.get(), std::as_bytes(std::span(line)))) {
      client_.reset();
    }
  } else if (channel_) {
    if (!channel_->send_one(std::as_bytes(std::span(line)))) {
      channel_.reset();
    }
  }
}

void EventSink::finish(int exit_code, nlohmann::json result) {
  result["event"] = "result";
  result["exit"] = exit_code;
  send(result);
  client_.reset();
  if (program_) {
    const auto told = program_->answer(token_, json_text(result));
    if (!told && told.error().code != ErrorCode::kNotFound) {
      log::warn("{}", told.error().message());
    }
    program_.reset();
  }
  if (channel_) {
    // Until the peer has read it and closes, so that no reset overtakes it.
    constexpr int kGoodbyeMs = 2000;
    static_cast<void>(channel_->receive(0, kGoodbyeMs));
    channel_.reset();
  }
}

void EventSink::finish_failed(int exit_code, const Error& error) {
  finish(exit_code, {{"error", {{"code", to_string(error.code)}, {"message", error.message()}}}});
}

bool EventSink::cancel_asked() {
  std::array<char, 512> buffer{};
  ssize_t count = 0;
  while (client_.valid() && heard_.size() < buffer.size() &&
         (count = ::recv(client_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT)) > 0) {
    heard_.append(buffer.data(), static_cast<std::size_t>(count));
  }
  return heard_.find(kCancel) != std::string::npos;
}

void EventSink::finish_refused(std::string_view code, const Error& error) {
  finish(MIGRATE_REFUSED,
         {{"error", {{"code", to_string(error.code)}, {"message", error.message()}}},
          {"refusals", to_json(Refusals{make_refusal(code, error.object, error.remedy)})}});
}

}  // namespace migrate
