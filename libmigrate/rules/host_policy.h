#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/rights/asker.h"
#include "transport/peer_identity.h"

namespace migrate {

/// Whose processes a host takes, and from which hosts. A value type.
///
/// A host that may bring root's processes may bring anything, as root there could do anything to
/// them before. Every other host may bring only what the user could have started here himself.
class HostPolicy {
 public:
  /// Takes nothing.
  HostPolicy() = default;

  /// Each rule is USERS@HOSTS, either a list with commas. USERS are names or numbers, ranges of
  /// numbers (1000-1999), or * for all but root. HOSTS are names or addresses, or * for all.
  /// Names of users are looked up now. Errors: kInvalid.
  static Result<HostPolicy> parse(const std::vector<std::string>& rules);

  /// Whether processes of `user` are taken from `source`. Blocks on the resolver, for names.
  bool allows(const PeerIdentity& source, uid_t user) const;
  /// Whether root's processes are taken from any host.
  bool names_root() const;
  /// As whom a request counts of which `source` says that `told` makes it: as he is told, from a
  /// host from which root's processes are taken; else as the user alone, with the groups that this
  /// host's user database gives him and no capability, as who could have brought a process of his
  /// here to ask. Blocks as allows(), and on the user database. Errors: kRefused.
  Result<Asker> believed(const PeerIdentity& source, const Asker& told) const;

 private:
  struct Users {
    uid_t first = 0;
    uid_t last = 0;
  };
  struct Rule {
    std::vector<Users> users;
    std::vector<std::string> hosts;
  };
  static Result<Users> parse_users(const std::string& word);

  std::vector<Rule> rules_;
};

/// Why this host does not take the process of `image` from `source` (codes NOT_ALLOWED and
/// PRIVILEGE); empty if it does. `user` is whom the source says that it belongs to. Blocks on the
/// user database.
std::vector<wire::Refusal> check_policy(const HostPolicy& policy, const PeerIdentity& source,
                                        uid_t user, const wire::Image& image);

/// Whether no thread of `image` has other rights than the first one of `draft`, so that
/// check_policy() would say the same of both.
bool same_rights(const wire::Image& draft, const wire::Image& image);

}  // namespace migrate
