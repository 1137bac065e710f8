#include "libmigrate/home/answering_phase.h"

#include <utility>

#include "base/log.h"
#include "libmigrate/host/letter_request.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/request_json.h"

namespace migrate {

void AnsweringPhase::on_letter(Letter letter) {
  if (letter.preamble && letter.preamble->purpose == Purpose::kHome) {
    on_caller(std::move(letter.channel));
    return;
  }
  if (letter.preamble && letter.preamble->purpose == Purpose::kCommand) {
    EventSink(std::move(letter.channel))
        .finish_failed(MIGRATE_REFUSED,
                       make_error(ErrorCode::kRefused, "carry out a request of another host", {},
                                  "the process is at home here, and its home asks"));
    return;
  }
  if (letter.preamble) {
    log::warn("closed a connection that is not for a deputy");
    return;
  }
  nlohmann::json request = parse_object(letter.request);
  EventSink client = sink_for(std::move(letter.fd), request);
  const auto command = command_of(request);
  if (!command) {
    client.finish_failed(MIGRATE_USAGE, command.error());
    return;
  }
  if (*command != ResolveRequest::kWord) {
    on_request(std::move(request), std::move(client));
    return;
  }
  const auto decided = request_as<ResolveRequest>(request);
  if (!decided) {
    client.finish_failed(MIGRATE_USAGE, decided.error());
    return;
  }
  const auto asker = asker_from(request);
  const auto may = asker ? may_resolve(*asker) : Result<void>(fail(asker.error()));
  if (!may) {
    client.finish_failed(MIGRATE_REFUSED, may.error());
    return;
  }
  on_resolve(std::move(client), decided->action);
}

}  // namespace migrate
