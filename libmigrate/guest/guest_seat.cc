#include "libmigrate/guest/guest_seat.h"

#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string>

#include "base/file.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/state/registry.h"
#include "transport/preamble.h"

namespace migrate {
namespace {

/// What this host knows of a process that is offered, by the id that its source says it has.
std::vector<ProcessRecord> rows_of(const WorkerContext& context, const std::string& process) {
  SessionId id{};
  std::copy_n(reinterpret_cast<const std::byte*>(process.data()),
              std::min(process.size(), id.size()), id.begin());
  auto registry = Registry::open(context.state_directory);
  return registry ? registry->find_process(to_hex(id)).value_or(std::vector<ProcessRecord>())
                  : std::vector<ProcessRecord>();
}

/// The process that stands here for the one that is offered, if this is its home: its worker traces
/// it. A host that is not `trusted` knows ids of processes that are not its to bring: it must be of
/// the same user at least.
std::optional<pid_t> deputy_of(const WorkerContext& context, const wire::Offer& offer,
                               bool trusted) {
  for (const ProcessRecord& row : rows_of(context, offer.process())) {
    const auto status = read_file("/proc/" + std::to_string(row.pid) + "/status");
    if (row.role == ProcessRole::kHome && row.has_worker() && status &&
        (trusted || number_field(*status, "Uid:") == offer.user()) &&
        number_field(*status, "TracerPid:") == static_cast<std::uint64_t>(row.worker)) {
      return row.pid;
    }
  }
  return std::nullopt;
}

/// Whether the kernel would let who has these credentials write there, if he has no capabilities:
/// the file system of control groups knows owners and modes only.
bool may_write(const wire::Credentials& held, const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return false;
  }
  if (status.st_uid == held.uid_filesystem()) {
    return (status.st_mode & S_IWUSR) != 0;
  }
  const bool in_group = status.st_gid == held.gid_filesystem() ||
                        std::ranges::find(held.groups(), status.st_gid) != held.groups().end();
  return (status.st_mode & (in_group ? S_IWGRP : S_IWOTH)) != 0;
}

}  // namespace

bool runs_here(const WorkerContext& context, const wire::Offer& offer) {
  const std::vector<ProcessRecord> rows = rows_of(context, offer.process());
  return std::ranges::any_of(rows, [](const ProcessRecord& row) {
    return row.role == ProcessRole::kGuest && row.state == ProcessState::kRunningHere &&
           row.has_worker();
  });
}

GuestGroups groups_for_offer(const WorkerContext& context, const PeerIdentity& source,
                             const wire::Offer& offer) {
  const bool trusted = context.policy.allows(source, 0);
  if (const auto deputy = deputy_of(context, offer, trusted)) {
    return GuestGroups::of(*deputy);
  }
  const wire::ProcessImage& draft = only_process(offer.draft());
  GuestGroups::Owner owner;
  owner.host = source.common_name.empty() ? offer.source().host_name() : source.common_name;
  owner.user = offer.user();
  owner.trusted = trusted;
  owner.may_write = [&draft](const std::string& path) {
    return may_write(draft.threads(0).credentials(), path);
  };
  return GuestGroups::make(draft.control_groups(), owner, context.groups.rules);
}

std::vector<wire::Refusal> check_groups(const WorkerContext& context, const wire::Offer& offer,
                                        const GuestGroups& groups) {
  Refusals refusals;
  const auto& wanted = only_process(offer.draft()).control_groups();
  if (!groups.made().empty() && memory_limit_bytes(wanted.limits()) < offer.memory_bytes()) {
    refusals.push_back(make_refusal(
        "MEMORY", fmt::format("{} MiB", offer.memory_bytes() >> 20U),
        fmt::format("its control group lets it have {} MiB, and at home a part of it is in swap, "
                    "or counted elsewhere",
                    memory_limit_bytes(wanted.limits()) >> 20U)));
  }
  if (context.groups.keep_limits) {
    for (const std::string& lost : groups.lost()) {
      refusals.push_back(make_refusal("GROUP_LIMITS", lost));
    }
  }
  return refusals;
}

void note_groups(const GuestGroups& groups, const wire::Offer& offer, wire::CellSession& noted) {
  noted.clear_groups();
  for (const std::string& directory : groups.made()) {
    noted.add_groups(directory);
  }
  *noted.mutable_home_groups() = only_process(offer.draft()).control_groups();
}

void note_places(pid_t process, wire::CellSession& noted) {
  noted.set_group_places(read_file("/proc/" + std::to_string(process) + "/cgroup").value_or(""));
}

void remove_noted_groups(const wire::CellSession& noted) {
  remove_groups({noted.groups().begin(), noted.groups().end()});
}

bool keeps_login(const wire::Offer& offer, bool trusted) {
  const wire::ProcessImage& draft = only_process(offer.draft());
  return !draft.has_login_user() || ((trusted || draft.login_user() == offer.user()) &&
                                     ::access("/proc/self/loginuid", F_OK) == 0);
}

}  // namespace migrate
