// Requests of the local socket, and what workers and daemons say to each other in JSON.
#include "libmigrate/requests/json_member.h"
#include "tools/migrated/request.h"
#include "transport/address.h"

namespace migrate {
namespace {

void fuzz(std::string_view line) {
  Request request;
  auto body = parse_request(line);
  if (!body) {
    return;
  }
  request.body = std::move(*body);
  static_cast<void>(request.pid());
  for (const char* name : {"command", "process", "mode", "wait", "for"}) {
    static_cast<void>(request.text(name));
  }
  static_cast<void>(Address::parse(request.text("destination")));
  static_cast<void>(number_member(request.body, "retry_seconds", 0));
  static_cast<void>(integer_member(request.body, "exit", 1));
  request.body["token"] = "secret";
  static_cast<void>(request.body.dump());
}

}  // namespace
}  // namespace migrate

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  migrate::fuzz({reinterpret_cast<const char*>(data), size});
  return 0;
}
