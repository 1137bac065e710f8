#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/requests/policy_file.h"
#include "transport/address.h"
#include "transport/peer_trust.h"

namespace migrate {

/// What the daemon was told by its command line and its configuration file.
struct DaemonOptions {
  std::vector<std::string> listen = {"tcp://127.0.0.1:7070"};
  std::string advertise;  ///< How others reach this host; empty: from `listen`.
  std::string socket_path = "/run/migrate/migrated.sock";
  std::string state_directory = "/var/lib/migrate";
  std::string host_name;  ///< Empty: that of the system.
  bool insecure = false;
  std::string keys_directory;  ///< Of ca.crt and this host's .crt and .key; empty: no TLS.
  std::string certificate;     ///< Instead of HOST.crt there.
  std::string key;             ///< Instead of HOST.key there.
  std::string authority;       ///< Instead of ca.crt there.
  bool munge = false;          ///< Instead of TLS.
  std::string munge_socket;    ///< Of munged; empty: its default.
  /// Whose processes are taken from whom; see HostPolicy.
  std::vector<std::string> allow = {"*@*"};
  std::vector<std::string> group_rules;  ///< Below which control groups; see GroupRules.
  std::string policy;  ///< File of rules for what leaves; empty: the usual one, if it is there.
  HostRules rules;     ///< Those rules.
  bool keep_limits = false;  ///< No process comes, or goes, without its control groups' limits.
  std::uint32_t max_sessions = 1024;  ///< Processes of other hosts at a time.
  std::uint32_t reserve_mib = 64;     ///< Memory that they must leave free.
  bool overcommit = false;            ///< Theirs may be more than there is.
  bool only_home_network = false;     ///< None of them may use the network of this host.
  std::uint32_t bandwidth_mib = 0;    ///< Pushed a second to each process that went away; 0: all.
  std::uint32_t spin_us = 200;
  std::uint32_t max_connections = 256;  ///< Requests and peers served at once, workers apart.
  std::uint32_t end_waiting_s =
      0;  ///< After so long a process that waits for pages is ended; 0: never.
  bool debug_stops = false;
  bool trace_arrivals = false;
  std::vector<std::string> peers;  ///< Hosts that `migratectl hosts` asks, HOST[:PORT].
};

/// Reads the command line, and the TOML file that --config names: its keys are the long options
/// with _ for -, and an option on the command line wins. Nothing is returned when help or the
/// version was asked for and printed. Errors: kInvalid (unknown or malformed option or key, an
/// address that nobody can connect to), or what kept the file from being read.
Result<std::optional<DaemonOptions>> parse_options(int argc, const char* const* argv);

/// What the options say of trust between hosts. `host_name` names the files of `keys_directory`.
/// Errors: kInvalid (some files named, others not), or what was wrong with a file.
Result<PeerTrust> peer_trust(const DaemonOptions& options, const std::string& host_name);

/// The addresses of `listen`, checked: other hosts may reach the daemon only if they have to prove
/// who they are, or `insecure` is set. Blocks on the resolver.
/// Errors: kInvalid, kRefused (not loopback, nothing to be proved and not insecure), kNotFound.
Result<std::vector<Address>> listen_addresses(const DaemonOptions& options, const PeerTrust& trust);

}  // namespace migrate
