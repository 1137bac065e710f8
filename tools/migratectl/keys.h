#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace migrate {

/// `migratectl keys`: an authority for a small cluster, and keys for its hosts. Asks no daemon.
struct KeysOptions {
  std::string directory = "/etc/migrate/keys";
  std::string host;
  std::vector<std::string> also;
};

/// Adds `keys init` and `keys add-host`; the options must outlive `app`.
void add_keys(CLI::App& app, KeysOptions& options);

/// Carries out the one that was given, says what was made and what to do with it, and returns the
/// exit status.
int run_keys(const CLI::App& app, const KeysOptions& options);

}  // namespace migrate
