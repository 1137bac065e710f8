#include "tools/migrated/request.h"

#include <cstdint>
#include <utility>

#include "libmigrate/requests/json_member.h"

namespace migrate {
namespace {

/// No pid has more digits (the kernel's pid_max is at most 4194304); the short ids that `ps` shows
/// have more.
constexpr std::size_t kLongestPid = 7;

void tell_pids_from_ids(nlohmann::json& body) {
  const std::string text = text_member(body, "process");
  if (!text.empty() && text.size() <= kLongestPid && text.front() != '0' &&
      text.find_first_not_of("0123456789") == std::string::npos) {
    body["pid"] = std::stol(text);
    body.erase("process");
  }
}

}  // namespace

std::string Request::text(const char* name, const char* fallback) const {
  return text_member(body, name, fallback);
}

pid_t Request::pid() const {
  const int number = integer_member(body, "pid", -1);
  return number == 0 ? client_pid : number > 0 && number < (1 << 30) ? number : -1;
}

Result<nlohmann::json> parse_request(std::string_view line) {
  nlohmann::json body = parse_object(line);
  if (!body.is_object()) {
    return fail(usage_error("read the request", "not a JSON object", "send one object in a line"));
  }
  tell_pids_from_ids(body);
  return body;
}

Error usage_error(const char* operation, std::string object, std::string remedy) {
  return make_error(ErrorCode::kInvalid, operation, std::move(object), std::move(remedy));
}

}  // namespace migrate
