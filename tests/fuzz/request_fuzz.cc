// Requests of the local socket, and what workers and daemons say to each other in JSON.
#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/request_json.h"
#include "tools/migrated/request.h"

namespace migrate {
namespace {

using nlohmann::json;

/// What is read is written so that it is read again as the same.
void read_twice(const AnyRequest& once) {
  const json written = request_for(once);
  const auto again = parse_any(written);
  if (!again || request_for(*again) != written) {
    __builtin_trap();
  }
}

void fuzz(std::string_view line) {
  const auto request = parse_request(line);
  if (!request) {
    return;
  }
  const json body = parse_object(line);
  static_cast<void>(request->pid());
  static_cast<void>(wait_of(body));
  read_twice(request->wanted);
  json named = request_for(ShowRequest());
  name_process(named, request->process);
  const auto process = parse_process(named);
  if (!process || process->id != request->process.id) {
    __builtin_trap();
  }
  static_cast<void>(asker_from(body));
  static_cast<void>(integer_member(body, "exit", 1));
  static_cast<void>(body.dump(-1, ' ', false, json::error_handler_t::replace));
}

}  // namespace
}  // namespace migrate

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  migrate::fuzz({reinterpret_cast<const char*>(data), size});
  return 0;
}
