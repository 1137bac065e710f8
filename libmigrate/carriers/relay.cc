// What leads outside the process (a named pipe, a pipe to someone else): the deputy at home keeps
// it, and its bytes are forwarded.
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libmigrate/carriers/internal/relayed.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/tools.h"

namespace migrate::carriers {
namespace {

bool find_relay(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  if (is_known_relay(context, seen)) {
    file.set_object(*context.known_stream(inode_in(seen.link)));
    return true;
  }
  return !context.is_guest() || context.refuse("PIPE_ABROAD", seen);
}

void settle_relay(FindContext& context, std::uint32_t number, wire::OpenFile& file) {
  if (file.object() == 0) {
    file.set_object(context.stream_to(number, file.identity().path()));
  }
}

Result<UniqueFd> make_relay(MakeContext& context, const wire::OpenFile& file) {
  const int relay = MIGRATE_TRY(context.relay_end(file.object()));
  UniqueFd end = MIGRATE_TRY(owned(::fcntl(relay, F_DUPFD_CLOEXEC, 0), "duplicate a relay's end"));
  MIGRATE_TRY(set_flags(end.get(), file.flags()));
  return end;
}

}  // namespace

bool is_known_relay(const FindContext& context, const Sighting& seen) {
  return (seen.link.starts_with("pipe:[") || seen.link.starts_with("socket:[")) &&
         context.known_stream(inode_in(seen.link)).has_value();
}

bool is_of_network(const FindContext& context, const Sighting& seen) {
  if (!seen.link.starts_with("socket:[")) {
    return false;
  }
  const UniqueFd fd = context.fetch(seen.number);
  int domain = AF_UNIX;
  socklen_t size = sizeof(domain);
  return fd.valid() && ::getsockopt(fd.get(), SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
         domain != AF_UNIX;
}

void relay_to(FindContext& context, std::uint32_t number, const std::string& object,
              wire::OpenFile& file) {
  file.set_kind(wire::OpenFile::RELAY);
  file.mutable_identity()->set_path(object);
  file.set_object(context.stream_to(number, object));
}

constinit const Carrier kRelay{
    .kind = wire::OpenFile::RELAY,
    .name = "relayed stream",
    .claims_link =
        [](const FindContext& context, const Sighting& seen) {
          return seen.link.starts_with("pipe:[") && is_known_relay(context, seen);
        },
    .claims_file = [](const wire::FileIdentity& identity) { return S_ISFIFO(identity.mode()); },
    .find = find_relay,
    .settle = settle_relay,
    .make = make_relay,
};

}  // namespace migrate::carriers
