#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "libmigrate/requests/identity_requests.h"

namespace migrate {

/// What the command line says of a process wherever it is.
struct IdentityOptions {
  std::string signal = "TERM";
  std::string link_signal = "KILL";
  std::string name;  ///< NAME or NAME@HOST
  std::string other;
  LinkRequest link;
};

/// Declares identity, kill, watch, name and link; `target` is the process that they are about. Both
/// must live as long as `app`.
void add_identity_commands(CLI::App& app, IdentityOptions& options, std::string& target);

/// The request of one of these commands, which was parsed from `app`. Errors: kInvalid.
Result<nlohmann::json> identity_request_of(const CLI::App& app, const IdentityOptions& options);
bool is_identity_command(const std::string& command);

/// What its result says to people.
std::string identity_text(const std::string& command, const nlohmann::json& result);
/// What an event of `watch` says to people; empty if nothing.
std::string watch_text(const nlohmann::json& event);

}  // namespace migrate
