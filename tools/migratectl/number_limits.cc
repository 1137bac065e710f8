#include "tools/migratectl/number_limits.h"

#include <fmt/core.h>

#include <cstdlib>

namespace migrate {

CLI::Validator up_to(double most, const std::string& unit) {
  const auto check = [=](const std::string& text) {
    char* end = nullptr;
    const double number = std::strtod(text.c_str(), &end);
    const bool fits = end != text.c_str() && *end == '\0' && number >= 0 && number <= most;
    return fits ? std::string()
                : fmt::format("\"{}\" is no number that it can have; write {} from 0 to {:.0f}",
                              text, unit, most);
  };
  return {check, ""};
}

}  // namespace migrate
