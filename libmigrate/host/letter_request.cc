#include "libmigrate/host/letter_request.h"

#include <utility>

#include "base/log.h"

namespace migrate {

bool is_request(const Letter& letter) {
  return !letter.preamble || letter.preamble->purpose == Purpose::kCommand;
}

Result<LetterRequest> open_request(Letter letter) {
  constexpr int kRequestTimeoutMs = 2000;
  if (!letter.preamble) {
    return LetterRequest{std::move(letter.request), EventSink(std::move(letter.fd)), std::nullopt};
  }
  const auto bytes = MIGRATE_TRY(letter.channel->receive(0, kRequestTimeoutMs));
  log::info("session {}: a request from {}", to_hex(letter.preamble->session),
            letter.peer.to_string());
  return LetterRequest{std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
                       EventSink(std::move(letter.channel)), std::move(letter.peer)};
}

EarlyLetters::~EarlyLetters() {
  for (Letter& letter : letters_) {
    if (!is_request(letter)) {
      continue;
    }
    if (auto request = open_request(std::move(letter))) {
      request->sink.finish_failed(
          MIGRATE_FAILED,
          make_error(ErrorCode::kRetry, "carry out a request", "a process on its way",
                     "it has not come to this host; try again"));
    }
  }
}

std::vector<Letter> EarlyLetters::take() {
  return std::exchange(letters_, {});
}

}  // namespace migrate
