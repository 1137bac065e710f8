#include "libmigrate/host/event_sink.h"

#include "base/file.h"

namespace migrate {

void EventSink::send(const nlohmann::json& event) {
  std::string line = event.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
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

}  // namespace migrate
