#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace migrate {

/// A number of `unit` from 0 to `most`. Not CLI::Range, which takes nan and whose message writes
/// out the largest number there is.
CLI::Validator up_to(double most, const std::string& unit);

}  // namespace migrate
