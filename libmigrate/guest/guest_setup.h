#pragma once

#include <google/protobuf/repeated_field.h>

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/guest/guest.h"
#include "libmigrate/guest/guest_world.h"
#include "libmigrate/guest/home_link.h"
#include "libmigrate/host/mailbox.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/proto/session.pb.h"
#include "libmigrate/restore/file_user.h"

namespace migrate {

// What a process that arrives and one that is taken over are given alike.

/// Where a new worker finds the init of the cell of `session`.
std::string cell_socket(const WorkerContext& context, const SessionId& session);

/// The link of `guest` to its home, as that is noted; outlived by the guest.
std::unique_ptr<HomeLink> make_home_link(Guest& guest, const GuestWorld& world);

/// Begins to take letters: pages come from `source`, who offered the process, requests from its
/// home, as `noted`. Errors: as Mailbox::open, kInvalid (the home's address).
Result<void> open_guest_mailbox(Mailbox& mailbox, const WorkerContext& context,
                                const PeerIdentity& source, const wire::CellSession& noted);

/// For reading. Those that cannot be opened are none that the pager will read. Blocks.
std::vector<UniqueFd> open_mapped_files(
    const google::protobuf::RepeatedPtrField<wire::FileIdentity>& files, const FileUser& user);

}  // namespace migrate
