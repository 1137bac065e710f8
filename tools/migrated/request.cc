#include "tools/migrated/request.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "libmigrate/requests/json_member.h"

namespace migrate {

Result<Request> parse_request(std::string_view line) {
  Request request;
  const nlohmann::json body = parse_object(line);
  if (!body.is_object()) {
    return fail(usage_error("read the request", "not a JSON object", "send one object in a line"));
  }
  request.wanted = MIGRATE_TRY(parse_any(body));
  request.process = MIGRATE_TRY(parse_process(body));
  request.token = MIGRATE_TRY(parse_token(body));
  return request;
}

Error usage_error(const char* operation, std::string object, std::string remedy) {
  return make_error(ErrorCode::kInvalid, operation, std::move(object), std::move(remedy));
}

}  // namespace migrate
