// Whose word counts about a process that came from elsewhere, which may have become someone else
// since: the kernel's, asked in the name of who wants something of it.
#include <signal.h>

#include <algorithm>
#include <array>

#include "base/file.h"
#include "libmigrate/inspect/proc_text.h"
#include "libmigrate/rights/stand_in.h"
#include "libmigrate/session/resident_worker.h"

namespace migrate {
namespace {

/// Whom the process's user was when it came here.
Asker user_of(const wire::Credentials& credentials) {
  Asker asker;
  asker.user = credentials.uid_real();
  asker.group = credentials.gid_real();
  asker.groups.assign(credentials.groups().begin(), credentials.groups().end());
  return asker;
}

/// Those that a terminal sends, for which the kernel asks for no right.
bool is_of_terminal(int signal) {
  constexpr std::array kSignals{SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH};
  return std::find(kSignals.begin(), kSignals.end(), signal) != kSignals.end();
}

/// Whether all user ids of a process are `user`: any signal of that user is allowed then.
bool is_wholly_of(pid_t process, uid_t user) {
  const auto status = read_file("/proc/" + std::to_string(process) + "/status");
  const std::string id = std::to_string(user);
  const std::string line = "\nUid:\t" + id + "\t" + id + "\t" + id + "\t" + id + "\n";
  return status && status->find(line) != std::string::npos;
}

}  // namespace

// Of a client here the daemon says who he is. A home from which root's processes are taken is
// believed; any other speaks for nobody but the process's own user, its root included.
Result<Asker> ResidentWorker::believed(const nlohmann::json& request,
                                       const PeerIdentity* home) const {
  Asker asker = MIGRATE_TRY(asker_from(request));
  if (home == nullptr || context_.policy.allows(*home, 0)) {
    return asker;
  }
  const Asker own = user_of(noted_.credentials());
  if (asker.is_root() || asker.user == own.user) {
    return own;
  }
  return fail(make_error(ErrorCode::kRefused, "believe that the request is of", asker.name(),
                         home->to_string() + " speaks for the process's own user only here"));
}

Result<void> ResidentWorker::may_use(const nlohmann::json& request,
                                     const PeerIdentity* home) const {
  return may_attach(MIGRATE_TRY(believed(request, home)), cell_->seed());
}

// As kill(2) would decide here. That it let the signal reach the deputy decides nothing: the process
// may be someone else's by now. `code` and `sender` are si_code and si_uid, which the kernel vouches
// for in what kill, tgkill or itself sent; who sends otherwise can write there what he likes.
Result<void> ResidentWorker::may_deliver(int signal, int code, uid_t sender) const {
  const bool vouched = code == SI_USER || code == SI_TKILL;
  // SIGCONT needs no right within a session, which home's kernel knows.
  if ((code > 0 && is_of_terminal(signal)) || signal == SIGCONT) {
    return {};
  }
  Asker asker = user_of(noted_.credentials());
  if (vouched && home_is_trusted_) {
    asker.user = sender;
    asker.capabilities = sender == 0 ? ~std::uint64_t{0} : 0;
  }
  if (is_wholly_of(cell_->seed(), asker.user)) {
    return {};
  }
  auto may = may_signal(asker, cell_->seed());
  return !may && may.error().code == ErrorCode::kNotFound ? Result<void>() : may;
}

}  // namespace migrate
