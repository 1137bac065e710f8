#include "libmigrate/host/letter_request.h"

#include <utility>

#include "base/log.h"
#include "libmigrate/requests/json_member.h"

namespace migrate {
namespace {

constexpr const char* kAnswerMember = "answer_in_memory";

EventSink sink_of(Letter& letter) {
  return sink_for(std::move(letter.fd), parse_object(letter.request));
}

}  // namespace

void mark_answer(nlohmann::json& request, std::uint64_t token) {
  request.erase(kAnswerMember);
  if (token != 0) {
    request[kAnswerMember] = token;
  }
}

EventSink sink_for(UniqueFd client, const nlohmann::json& request) {
  const auto token = request.is_object() ? request.find(kAnswerMember) : request.end();
  if (!request.is_object() || token == request.end() || !token->is_number_unsigned()) {
    return EventSink(std::move(client));
  }
  auto program = Program::adopt(std::move(client));
  if (!program) {
    log::info("a process that asked for something is gone: {}", program.error().message());
    return {};
  }
  return {std::move(*program), token->get<std::uint64_t>()};
}

bool is_request(const Letter& letter) {
  return !letter.preamble || letter.preamble->purpose == Purpose::kCommand;
}

Result<LetterRequest> open_request(Letter letter) {
  constexpr int kRequestTimeoutMs = 2000;
  if (!letter.preamble) {
    EventSink sink = sink_of(letter);
    return LetterRequest{std::move(letter.request), std::move(sink), std::nullopt};
  }
  const auto bytes = letter.channel->receive(0, kRequestTimeoutMs);
  if (!bytes) {
    const Error error = bytes.error();
    log::info("session {}: a request did not come: {}", to_hex(letter.preamble->session),
              error.message());
    EventSink(std::move(letter.channel)).finish_failed(MIGRATE_ERROR, error);
    return fail(error);
  }
  log::info("session {}: a request from {}", to_hex(letter.preamble->session),
            letter.peer.to_string());
  return LetterRequest{std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size()),
                       EventSink(std::move(letter.channel)), std::move(letter.peer)};
}

void refuse_letter(Letter letter, int exit_code, const Error& reason) {
  if (!is_request(letter)) {
    return;
  }
  EventSink asker = letter.channel ? EventSink(std::move(letter.channel)) : sink_of(letter);
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
