#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace migrate {

/// The words by which requests name values, in a table: the one place where each stands.
template <typename Value, std::size_t count>
using Words = std::array<std::pair<std::string_view, Value>, count>;

/// The value that `word` names. Errors: kInvalid, with `name`, the member of the request, and all
/// words that may come.
template <typename Value, std::size_t count>
Result<Value> value_of(std::string_view word, const char* name, const Words<Value, count>& words) {
  std::string allowed;
  for (const auto& [each, value] : words) {
    if (each == word) {
      return value;
    }
    allowed += (allowed.empty() ? "use one of: " : ", ") + std::string(each);
  }
  return fail(make_error(ErrorCode::kInvalid, "read a request",
                         std::string(name) + " \"" + std::string(word) + "\"", allowed));
}

/// The word for a value that is in the table.
template <typename Value, std::size_t count>
std::string_view word_for(Value value, const Words<Value, count>& words) {
  return std::find_if(words.begin(), words.end(),
                      [&](const auto& each) { return each.second == value; })
      ->first;
}

/// All words, in the table's order.
template <typename Value, std::size_t count>
std::vector<std::string> words_in(const Words<Value, count>& words) {
  std::vector<std::string> all;
  for (const auto& [word, value] : words) {
    all.emplace_back(word);
  }
  return all;
}

}  // namespace migrate
