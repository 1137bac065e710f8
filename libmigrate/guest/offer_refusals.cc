#include "libmigrate/guest/offer_refusals.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "base/log.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/links/gateway.h"
#include "libmigrate/links/tcp_socket.h"
#include "libmigrate/restore/file_user.h"
#include "libmigrate/restore/mappings.h"
#include "libmigrate/rules/destination_rules.h"
#include "libmigrate/rules/host_memory.h"
#include "libmigrate/state/drain_mark.h"
#include "libmigrate/state/registry.h"

namespace migrate {
namespace {

/// Room for one more process, and for its memory beside what others are still to get.
Result<void> check_room(const WorkerContext& context, const wire::Offer& offer,
                        Refusals& refusals) {
  std::uint32_t sessions = 0;
  std::uint64_t promised = context.reserve_bytes;
  Registry registry = MIGRATE_TRY(Registry::open(context.state_directory));
  for (const ProcessRecord& record : MIGRATE_TRY(registry.list(true))) {
    if (record.role == ProcessRole::kGuest && record.has_worker()) {
      ++sessions;
      promised += context.overcommits ? 0 : record.owed_pages * offer.source().page_bytes();
    }
  }
  if (sessions >= context.max_sessions) {
    refusals.push_back(make_refusal("SESSIONS", std::to_string(sessions) + " processes",
                                    "max_sessions is " + std::to_string(context.max_sessions)));
  }
  const std::uint64_t available = MIGRATE_TRY(available_memory_bytes());
  const std::uint64_t left = available - std::min(available, promised);
  const std::uint64_t needed =
      offer.ByteSizeLong() + (context.overcommits ? 0 : offer.memory_bytes());
  for (wire::Refusal& refusal : check_memory(needed, left)) {
    refusals.push_back(std::move(refusal));
  }
  return {};
}

/// A network for its cell. What could be made when the daemon started is not tried again.
void check_network(const WorkerContext& context, const wire::Offer& offer, Refusals& refusals) {
  if (network_of(offer) == NetworkOf::kPlace) {
    for (wire::Refusal& refusal : check_bound_sockets(network_of(offer), offer.draft().objects())) {
      refusals.push_back(std::move(refusal));
    }
    if (context.only_home_network) {
      refusals.push_back(make_refusal("NO_PLACE_NETWORK", "the network of the place"));
    }
    return;
  }
  if (context.gives_home_network) {
    return;
  }
  if (const auto tried = Gateway::try_out(); !tried) {
    refusals.push_back(
        make_refusal("NO_HOME_NETWORK", "the network of its home", tried.error().message()));
  }
}

/// What the process's user may not open here, though it is there: the restorer will do so in his
/// name. Nothing is waited for: a named pipe may have taken the place of a file that was looked at,
/// and who has a lease on a file (fcntl(2)) would keep a place for connections.
Refusals check_opening(const wire::Image& draft, const FileUser& user) {
  Refusals refusals;
  FileUser::Scope as_user(user);
  const wire::ProcessImage& process = only_process(draft);
  const auto judge = [&refusals](const std::string& path, const Result<UniqueFd>& opened) {
    if (!opened && opened.error().sys_errno != EWOULDBLOCK) {  // The restorer waits for a lease.
      refusals.push_back(make_refusal("FILE_PERMISSION", path, opened.error().message()));
    }
  };
  if (!process.without_executable()) {
    judge(process.executable().path(), as_user.open(process.executable(), O_RDONLY | O_NONBLOCK));
  }
  judge(process.working_directory(), as_user.open_directory(process.working_directory()));
  std::set<MappedFile> mapped;
  for (const wire::Mapping& mapping : process.mappings()) {
    const auto file = mapped_file(draft.objects(), mapping);
    if (file && !file->is_memory && mapped.insert(*file).second) {
      const auto& identity = draft.objects().mapped_files(static_cast<int>(file->index));
      judge(identity.path(),
            as_user.open(identity, (file->writable ? O_RDWR : O_RDONLY) | O_NONBLOCK));
    }
  }
  for (const wire::OpenFile& file : draft.objects().files()) {
    if (file.kind() == wire::OpenFile::REGULAR || file.kind() == wire::OpenFile::DIRECTORY) {
      constexpr unsigned kNotToMakeIt = O_CREAT | O_EXCL | O_TRUNC;
      const auto flags = static_cast<int>(file.flags() & ~kNotToMakeIt);
      const int not_to_wait = (flags & O_PATH) != 0 ? 0 : O_NONBLOCK;
      judge(file.identity().path(), as_user.open(file.identity(), flags | not_to_wait));
    }
  }
  return refusals;
}

/// Looked at as the process's user, so that nobody learns more of this host's files than he could
/// see. What root had opened for it counts where all else is well, without a word about what is
/// not.
Refusals check_files(const WorkerContext& context, const PeerIdentity& source,
                     const wire::Offer& offer, const wire::HostFacts& own) {
  const bool trusted = context.policy.allows(source, 0);
  Refusals refusals;
  {
    const FileUser user(only_process(offer.draft()).threads(0).credentials(), trusted);
    const FileUser::Scope as_user(user);
    refusals = check_against_host(offer.draft(), offer.source(), own);
  }
  const bool good = refusals.empty() ||
                    (trusted && check_against_host(offer.draft(), offer.source(), own).empty());
  if (good && !trusted) {  // Who is trusted may have root open what its user could not.
    return check_opening(offer.draft(),
                         FileUser(only_process(offer.draft()).threads(0).credentials(), trusted));
  }
  return good ? Refusals() : refusals;
}

}  // namespace

NetworkOf network_of(const wire::Offer& offer) {
  return offer.uses_place_network() || offer.network().addresses_size() == 0 ? NetworkOf::kPlace
                                                                             : NetworkOf::kHome;
}

Refusals check_bound_sockets(NetworkOf network, const wire::Objects& objects) {
  Refusals refusals;
  for (const wire::OpenSocket& socket : objects.open_sockets()) {
    if (network == NetworkOf::kPlace && !socket.local().empty()) {
      const auto name = SocketName::from_bytes(socket.local());
      refusals.push_back(make_refusal("SOCKET_BOUND", name ? name->to_string() : "a socket"));
    }
  }
  return refusals;
}

Result<std::vector<wire::Refusal>> judge_offer(const WorkerContext& context,
                                               const PeerIdentity& source, const wire::Offer& offer,
                                               const wire::HostFacts& own) {
  Refusals refusals = check_policy(context.policy, source, offer.user(), offer.draft());
  if (refusals.empty() && MIGRATE_TRY(is_drained(context.state_directory))) {
    refusals.push_back(make_refusal("DRAINED", context.host_name));
  }
  if (refusals.empty()) {
    refusals = check_files(context, source, offer, own);
    check_network(context, offer, refusals);
    MIGRATE_TRY(check_room(context, offer, refusals));
  }
  for (const wire::Refusal& refusal : refusals) {
    log::warn("refused a process of user {} that {} offers: {}: {}: {}", offer.user(),
              source.to_string(), refusal.code(), refusal.object(), refusal.reason());
  }
  return refusals;
}

void tell_missing_files(const WorkerContext& context, const PeerIdentity& source,
                        const wire::Offer& offer, const wire::HostFacts& own,
                        wire::OfferReply& reply) {
  if (!std::ranges::all_of(reply.refusals(), is_about_files)) {
    return;
  }
  const FileUser user(only_process(offer.draft()).threads(0).credentials(),
                      context.policy.allows(source, 0));
  FileUser::Scope as_user(user);
  const auto may_open = [&as_user](const wire::FileIdentity& file) {
    const auto opened = as_user.open(file, O_RDONLY | O_NONBLOCK);
    return opened || opened.error().sys_errno == EWOULDBLOCK;
  };
  const bool same_kernel = !own.boot_id().empty() && offer.source().boot_id() == own.boot_id();
  const MissingFiles missing = find_missing_files(offer.draft(), same_kernel, may_open);
  reply.mutable_files_not_there()->Assign(missing.mapped.begin(), missing.mapped.end());
  reply.set_executable_not_there(missing.executable);
}

}  // namespace migrate
