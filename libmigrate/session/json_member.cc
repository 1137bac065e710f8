#include "libmigrate/session/json_member.h"

#include <cstdint>
#include <limits>

namespace migrate {
namespace {
constexpr int kDeepest = 32;
}  // namespace

nlohmann::json parse_object(std::string_view text) {
  bool too_deep = false;
  const auto look = [&too_deep](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    too_deep = too_deep || depth > kDeepest;
    return !too_deep;
  };
  nlohmann::json parsed = nlohmann::json::parse(text, look, false);
  return parsed.is_object() && !too_deep ? parsed : nlohmann::json();
}

std::string text_member(const nlohmann::json& object, const char* name,
                        const std::string& fallback) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : fallback;
}

double number_member(const nlohmann::json& object, const char* name, double fallback) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number() ? found->get<double>() : fallback;
}

int integer_member(const nlohmann::json& object, const char* name, int fallback) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_number_integer()) {
    return fallback;
  }
  const auto number = found->get<std::int64_t>();
  return number >= std::numeric_limits<int>::min() && number <= std::numeric_limits<int>::max()
             ? static_cast<int>(number)
             : fallback;
}

}  // namespace migrate
