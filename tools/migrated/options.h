#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "transport/address.h"

namespace migrate {

/// What the daemon was told by its command line and its configuration file.
struct DaemonOptions {
  std::vector<std::string> listen = {"tcp://127.0.0.1:7070"};
  std::string advertise;  ///< How others reach this host; empty: from `listen`.
  std::string socket_path = "/run/migrate/migrated.sock";
  std::string state_directory = "/var/lib/migrate";
  std::string host_name;  ///< Empty: that of the system.
  bool insecure = false;
  std::uint32_t spin_us = 200;
  std::uint32_t max_connections = 256;  ///< Requests and peers served at once, workers apart.
  std::vector<std::string> peers;       ///< Hosts that `migratectl hosts` asks, HOST[:PORT].
};

/// Reads the command line, and the TOML file that --config names: its keys are the long options
/// with _ for -, and an option on the command line wins. Nothing is returned when help or the
/// version was asked for and printed. Errors: kInvalid (unknown or malformed option or key), or
/// what kept the file from being read.
Result<std::optional<DaemonOptions>> parse_options(int argc, const char* const* argv);

/// The addresses of `listen`, checked: other hosts may reach the daemon only if `insecure` is set.
/// Blocks on the resolver. Errors: kInvalid, kRefused (not loopback and not insecure), kNotFound.
Result<std::vector<Address>> listen_addresses(const DaemonOptions& options);

}  // namespace migrate
