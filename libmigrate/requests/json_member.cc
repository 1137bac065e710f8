#include "libmigrate/requests/json_member.h"

#include <cstdint>
#include <utility>

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

std::string json_text(const nlohmann::json& object) {
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string text_member(const nlohmann::json& object, const char* name,
                        const std::string& fallback) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : fallback;
}

int integer_member(const nlohmann::json& object, const char* name, int fallback) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_number_integer()) {
    return fallback;
  }
  const auto fitting = [fallback](auto number) {
    return std::in_range<int>(number) ? static_cast<int>(number) : fallback;
  };
  // As the signed type, one that only fits the unsigned one would come out negative.
  return found->is_number_unsigned() ? fitting(found->get<std::uint64_t>())
                                     : fitting(found->get<std::int64_t>());
}

}  // namespace migrate
