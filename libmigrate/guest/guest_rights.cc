// Whose word counts about a process that came from elsewhere, which may have become someone else
// since: the kernel's, asked in the name of who wants something of it.
#include "base/file.h"
#include "libmigrate/guest/guest.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/rights/stand_in.h"

namespace migrate {
namespace {

/// Who the process's user was when it came here.
Asker user_of(const wire::Credentials& credentials) {
  Asker asker;
  asker.user = credentials.uid_real();
  asker.group = credentials.gid_real();
  asker.groups.assign(credentials.groups().begin(), credentials.groups().end());
  asker.capabilities = credentials.capabilities_effective();
  return asker;
}

/// Whether all user ids of a process are `user`: any signal of that user is allowed then.
bool is_wholly_of(pid_t process, uid_t user) {
  const auto status = read_file("/proc/" + std::to_string(process) + "/status");
  const std::string id = std::to_string(user);
  const std::string line = "\nUid:\t" + id + "\t" + id + "\t" + id + "\t" + id + "\n";
  return status && status->find(line) != std::string::npos;
}

}  // namespace

Result<Asker> Guest::believed(const nlohmann::json& request, const PeerIdentity* home) const {
  Asker asker = MIGRATE_TRY(asker_from(request));
  if (home == nullptr || context_.policy.allows(*home, 0)) {
    return asker;
  }
  const Asker own = user_of(record_.noted().credentials());
  if (asker.is_root() || asker.user == own.user) {
    return own;
  }
  return fail(make_error(ErrorCode::kRefused, "believe that the request is of", asker.name(),
                         home->to_string() + " speaks for the process's own user only here"));
}

Result<void> Guest::may_use(const nlohmann::json& request, const PeerIdentity* home) const {
  return may_attach(MIGRATE_TRY(believed(request, home)), cell_->seed());
}

// As kill(2) would decide here. That home's kernel let a signal reach the deputy decides nothing:
// the process may be someone else's by now. And whoever sent it, it is the first user's word: he
// can write into the deputy's memory and its pipe what he likes, siginfo of root's included.
Result<void> Guest::may_signal_now() const {
  const Asker asker = user_of(record_.noted().credentials());
  if (is_wholly_of(cell_->seed(), asker.user)) {
    return {};
  }
  auto may = may_signal(asker, cell_->seed());
  return !may && may.error().code == ErrorCode::kNotFound ? Result<void>() : may;
}

bool Guest::is_its_users() const {
  return is_wholly_of(cell_->seed(), record_.noted().credentials().uid_real());
}

// Of each that is in the cell: one may have become another user's (a set-user-id program).
Result<void> Guest::may_end_children() {
  const Asker asker = user_of(record_.noted().credentials());
  const std::string init = "/proc/" + std::to_string(record_.file().mark().init);
  const auto cell = read_link(init + "/ns/pid_for_children");
  for (const std::string& name : list_directory("/proc").value_or(std::vector<std::string>())) {
    const auto process = static_cast<pid_t>(parse_number(name).value_or(0));
    const auto in = process != 0 ? read_link("/proc/" + name + "/ns/pid") : cell;
    if (process == 0 || !cell || !in || *in != *cell || "/proc/" + name == init ||
        is_wholly_of(process, asker.user)) {
      continue;
    }
    auto may = may_signal(asker, process);
    if (!may && may.error().code != ErrorCode::kNotFound) {
      return may;
    }
  }
  return {};
}

}  // namespace migrate
