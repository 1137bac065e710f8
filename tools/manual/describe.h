#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json_fwd.hpp>

namespace migrate {

/// Gives `app` an option --describe, which --help does not show: it prints all commands and options
/// as one JSON object and ends the program as --help does. tools/manual/manual.py makes the manual
/// pages and the completions of shells from that, so that these and --help have one source.
/// Called before parsing; what is added to `app` afterwards is described too.
void let_describe(CLI::App& app);
/// As above; the members of `more`, an object, are in that object, too.
void let_describe(CLI::App& app, const nlohmann::json& more);

}  // namespace migrate
