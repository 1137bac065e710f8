#include "tools/migrated/request.h"

#include <utility>

#include "libmigrate/requests/json_member.h"

namespace migrate {

Result<Request> parse_request(std::string_view line) {
  Request request;
  request.body = parse_object(line);
  if (!request.body.is_object()) {
    return fail(usage_error("read the request", "not a JSON object", "send one object in a line"));
  }
  request.command = MIGRATE_TRY(parse_command(request.body));
  request.process = MIGRATE_TRY(parse_process(request.body));
  request.token = MIGRATE_TRY(parse_token(request.body));
  return request;
}

Error usage_error(const char* operation, std::string object, std::string remedy) {
  return make_error(ErrorCode::kInvalid, operation, std::move(object), std::move(remedy));
}

}  // namespace migrate
