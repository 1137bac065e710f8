#include "libmigrate/guest/guest_setup.h"

#include <fcntl.h>

#include <utility>

#include "libmigrate/state/session_file.h"

namespace migrate {

std::string cell_socket(const WorkerContext& context, const SessionId& session) {
  return SessionFile::directory(context.state_directory) + "/" +
         cell_session_name(to_hex(session)) + ".socket";
}

std::unique_ptr<HomeLink> make_home_link(Guest& guest, const GuestWorld& world) {
  return std::make_unique<HomeLink>(
      to_hex(guest.process()),
      [&guest, connect = world.connect_home](int timeout_ms) {
        return connect(guest.context(), guest.record().noted(), timeout_ms);
      },
      world.clock);
}

Result<void> open_guest_mailbox(Mailbox& mailbox, const WorkerContext& context,
                                const PeerIdentity& source, const wire::CellSession& noted) {
  const auto from_source = [source](const PeerIdentity& peer) {
    return peer.same_host(source) ? std::string()
                                  : "the process was offered by " + source.to_string();
  };
  const auto from_home = [home = MIGRATE_TRY(Address::parse(noted.home())),
                          authenticates = context.trust.authenticates()](const PeerIdentity& peer) {
    return !authenticates || peer.is_host(home.host) ? std::string()
                                                     : "the process's home is " + home.host;
  };
  return mailbox.open({.trust = context.trust,
                       .token = noted.token(),
                       .rules = {{Purpose::kUrgent, from_source},
                                 {Purpose::kBulk, from_source},
                                 {Purpose::kResume, from_source},
                                 {Purpose::kCommand, from_home}}});
}

std::vector<UniqueFd> open_mapped_files(
    const google::protobuf::RepeatedPtrField<wire::FileIdentity>& files, const FileUser& user) {
  std::vector<UniqueFd> all;
  FileUser::Scope as_user(user);
  for (const wire::FileIdentity& file : files) {
    auto opened = as_user.open(file, O_RDONLY);
    all.push_back(opened ? std::move(*opened) : UniqueFd());
  }
  return all;
}

}  // namespace migrate
