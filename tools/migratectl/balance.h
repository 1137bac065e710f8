#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace migrate {

/// `migratectl balance`: measures a job of MPI over and over, decides whether ranks are to be
/// moved, and has that done on their hosts. Asks no daemon itself (docs/decisions/0076).
struct BalanceOptions {
  std::string job;
  std::vector<std::string> hosts;
  std::vector<std::string> leave;
  std::string policy;
  double interval_s = 5;
  double min_gain_percent = 10;
  std::string agent = "ssh";
};

/// Adds `balance`; the options must outlive `app`.
void add_balance(CLI::App& app, BalanceOptions& options);

/// Until the job has ended, or a signal came: then after the moves that are under way. Returns the
/// exit status.
int run_balance(const BalanceOptions& options, bool as_json);

}  // namespace migrate
