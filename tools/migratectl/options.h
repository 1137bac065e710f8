#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/requests/request_json.h"
#include "libmigrate/requests/requests.h"
#include "libmigrate/requests/words.h"
#include "tools/migratectl/balance.h"
#include "tools/migratectl/drain.h"
#include "tools/migratectl/identity_commands.h"
#include "tools/migratectl/keys.h"

namespace migrate {

/// What the command line says; each command has its members of this.
struct Options {
  std::string socket;
  bool json = false;
  std::string target;
  std::string destination;
  std::vector<std::string> destinations;
  std::uint32_t count = 0;
  std::string mode{MoveRequest().plan.word};
  std::string transport{to_string(MoveRequest().transport)};
  std::string wait{to_string(MoveRequest().wait)};
  std::string wait_for{word_for(WaitRequest().wait_for, kWaitWords)};
  std::string network{word_for(MoveRequest().network, kNetworkWords)};
  double retry_seconds = 0;
  std::optional<double> bandwidth_mib;
  double deadline_seconds = 0;
  bool strict = false;
  bool links = false;
  RoundLimits rounds;
  std::string wish{word_for(ModeWish().best, kWishes)};
  double sample_seconds = std::chrono::duration<double>(ModeWish().sample).count();
  double downtime_us = static_cast<double>(RoundLimits().downtime.count());
  bool at_point = false;
  double point_seconds = 60;
  bool resume_source = false;
  bool give_up = false;
  bool yes = false;
  std::string policy_file;
  std::vector<std::string> program;
  std::string report;
  std::string command;
  KeysOptions keys;
  IdentityOptions identity;
  BalanceOptions balance;
  DrainOptions drain;
};

/// Declares the commands and their options; they are parsed into `options`, which must live as long
/// as `app`.
void add_options(CLI::App& app, Options& options);

/// What is asked of the daemon by what `app` has parsed, as a line of JSON. Errors: kInvalid (a
/// word or a policy file).
Result<nlohmann::json> request_of(const CLI::App& app, const Options& options);
/// The same of check, or of inspect. Errors: as request_of().
Result<CheckRequest> check_request_of(const Options& options);
/// How the program that is run elsewhere is moved. Errors: as request_of().
Result<MoveRequest> run_request_of(const Options& options);

}  // namespace migrate
