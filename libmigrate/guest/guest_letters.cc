#include "libmigrate/guest/guest_letters.h"

#include <utility>

#include "base/log.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

void GuestPhaseRunner::on_letter(Letter letter) {
  if (is_request(letter)) {
    auto asked = open_request(std::move(letter));
    if (asked) {
      on_request(std::move(*asked));
    } else {
      log::info("session {}: a request did not come: {}", to_hex(guest_.session()),
                asked.error().message());
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

void GuestPhaseRunner::on_request(LetterRequest asked) {
  GuestRequest request{parse_object(asked.text), std::move(asked.sink), std::move(asked.home)};
  const auto command = parse_command(request.text);
  if (!command) {
    request.refuse(MIGRATE_USAGE, command.error());
    return;
  }
  switch (*command) {
    case Command::kMove:
      on_move(std::move(request));
      break;
    case Command::kCheck:
      on_check(std::move(request));
      break;
    case Command::kResolve:
      on_resolve(std::move(request));
      break;
    case Command::kEnd:
      on_end(std::move(request));
      break;
    case Command::kPs:
    case Command::kShow:
    case Command::kWait:
    case Command::kHosts:
    case Command::kPing:
    case Command::kHere:
      request.refuse(MIGRATE_USAGE,
                     make_error(ErrorCode::kInvalid, "carry out a request",
                                "command \"" + std::string(to_string(*command)) + "\"",
                                "ask a daemon for that"));
      break;
  }
}

}  // namespace migrate
