#include "libmigrate/move/this_host.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/unique_fd.h"
#include "transport/address.h"

namespace migrate {
namespace {

// What can be bound to is an address of this host.
bool is_local(SocketAddress address) {
  if (address.get()->sa_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_port = 0;
  } else {
    reinterpret_cast<sockaddr_in*>(&address.storage)->sin_port = 0;
  }
  const UniqueFd socket(::socket(address.get()->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  return socket.valid() && ::bind(socket.get(), address.get(), address.length) == 0;
}

}  // namespace

Result<bool> is_this_host(const WorkerContext& context, const std::string& destination) {
  const Address address = MIGRATE_TRY(Address::parse(destination));
  const auto found = address.resolve();
  if (!found && found.error().code == ErrorCode::kNotFound) {
    return fail(make_error(ErrorCode::kInvalid, "move", "to " + destination,
                           "there is no such host: " + found.error().message()));
  }
  return found && !found->empty() && address.port == context.own_address.port &&
         is_local(found->front());
}

nlohmann::json already_there(pid_t pid, const std::string& destination) {
  return {{"pid", pid}, {"destination", destination}, {"state", "already there"}};
}

}  // namespace migrate
