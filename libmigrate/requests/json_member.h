#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace migrate {

/// The JSON object that `text` is, which someone else wrote; null if it is none, or nested deeper
/// than anything that we send (the library writes nested values by recursion).
nlohmann::json parse_object(std::string_view text);

/// An object as text, in one line. What is no UTF-8, as names of files may be, is replaced: the
/// library's own dump() throws for it.
std::string json_text(const nlohmann::json& object);

/// Members of a JSON object that someone else wrote. One of another type counts as absent: the
/// library's own value() throws for it.
std::string text_member(const nlohmann::json& object, const char* name,
                        const std::string& fallback = {});
int integer_member(const nlohmann::json& object, const char* name, int fallback);

}  // namespace migrate
