#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace migrate {

/// `migratectl drain` and `undrain`: a host takes no processes any more, and those that can be
/// moved leave it; or it takes some again.
struct DrainOptions {
  std::string host;
  std::vector<std::string> to;
  std::vector<std::string> users;
  std::string mode = "lazy";
  double deadline_s = 0;
  bool only_plans = false;
  bool fetches = false;
  std::string agent = "ssh";
};

/// Adds both; the options must outlive `app`.
void add_drain(CLI::App& app, DrainOptions& options);

/// `begins`: drain, else undrain. Where that is another host, this program is started there in
/// place of this one. Blocks until all that can be moved has been, or a signal came: then after the
/// move that is under way, which is given up if it can be. Returns the exit status: MIGRATE_REFUSED
/// if some stay.
int run_drain(const std::string& socket, const DrainOptions& options, bool begins, bool as_json);

}  // namespace migrate
