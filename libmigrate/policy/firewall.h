#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "libmigrate/links/tcp_socket.h"
#include "libmigrate/requests/link_rules.h"

namespace migrate {

/// What the rules of its home say about the links of one process, and how often each has been
/// applied. Owned by one thread.
class Firewall {
 public:
  /// Whose links.
  struct Process {
    uid_t user = 0;
    std::string program;   ///< Path of its executable.
    std::string identity;  ///< Global name.
  };
  /// A link that somebody wants to make. IPv4 in IPv6 counts as IPv4.
  struct Wanted {
    LinkDirection direction = LinkDirection::kOut;
    LinkProtocol protocol = LinkProtocol::kTcp;
    SocketName local;  ///< The process's.
    SocketName peer;
  };
  /// A rule, and to how many links it was applied, a datagram being one.
  struct Counted {
    LinkRule rule;
    std::uint64_t count = 0;
  };

  /// Lets all through.
  Firewall() = default;
  Firewall(const LinkRules& rules, const Process& process);

  /// Whether it may be made; counts it.
  bool lets(const Wanted& wanted);
  /// The rule that denies it, or null. Counts nothing.
  const LinkRule* denying(const Wanted& wanted) const;
  /// Whether the process may have the network of a place, where nobody keeps the rules: nothing is
  /// denied to it, or a rule before that says so.
  bool may_use_place() const;

  /// Those that are about this process, in their order.
  const std::vector<Counted>& rules() const { return rules_; }
  /// How often any was applied.
  std::uint64_t applied() const { return applied_; }
  /// What a worker before counted, of a rule that stands at `place`.
  void adopt(const std::string& place, std::uint64_t count);

 private:
  const Counted* find(const Wanted& wanted) const;

  std::vector<Counted> rules_;
  std::uint64_t applied_ = 0;
};

/// The rule for people: "deny out tcp 10.0.0.0/8 port 22".
std::string to_string(const LinkRule& rule);

}  // namespace migrate
