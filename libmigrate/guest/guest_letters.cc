#include "libmigrate/guest/guest_letters.h"

#include <utility>

#include "base/log.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/request_json.h"

namespace migrate {

void GuestPhaseRunner::on_letter(Letter letter) {
  if (is_request(letter)) {
    if (auto asked = open_request(std::move(letter))) {
      read_request(std::move(*asked));
    }
    return;
  }
  switch (letter.preamble->purpose) {
    case Purpose::kResume:
      on_resume(
          std::make_unique<ControlChannel>(std::move(letter.channel), letter.peer.to_string()));
      break;
    case Purpose::kUrgent:
    case Purpose::kBulk:
      on_pages(letter.preamble->purpose, std::move(letter.channel));
      break;
    default:
      log::warn("closed a connection that is not for session {}", to_hex(guest_.session()));
  }
}

void GuestPhaseRunner::read_request(LetterRequest asked) {
  GuestRequest request{{}, parse_object(asked.text), std::move(asked.sink), std::move(asked.home)};
  auto wanted = parse_any(request.text);
  if (!wanted) {
    request.refuse(MIGRATE_USAGE, wanted.error());
  } else if (const auto* const of_daemon = std::get_if<DaemonRequest>(&*wanted)) {
    request.refuse(MIGRATE_USAGE, make_error(ErrorCode::kInvalid, "carry out a request",
                                             "command \"" + std::string(word_of(*of_daemon)) + "\"",
                                             "ask a daemon for that"));
  } else {
    request.wanted = std::get<WorkerRequest>(*std::move(wanted));
    on_request(std::move(request));
  }
}

}  // namespace migrate
