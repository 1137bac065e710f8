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

void refuse_letter(Letter letter, int exit_code, const Error& reason) {
  if (!is_request(letter)) {
    return;
  }
  EventSink asker =
      letter.channel ? EventSink(std::move(letter.channel)) : EventSink(std::move(letter.fd));
  asker.finish_failed(exit_code, reason);
}

EarlyLetters::~EarlyLetters() {
  for (Letter& letter : letters_) {
    refuse_letter(std::move(letter), MIGRATE_FAILED,
                  make_error(ErrorCode::kRetry, "carry out a request", "a process on its way",
                             "it has not come to this host; try again"));
  }
}

std::vector<Letter> EarlyLetters::take() {
  return std::exchange(letters_, {});
}

}  // namespace migrate
