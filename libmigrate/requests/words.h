#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "libmigrate/requests/move_words.h"

namespace migrate {

/// The value that `word` names. Errors: kInvalid, with `name`, the member of the request, and all
/// words that may come.
template <typename Value, std::size_t count>
Result<Value> value_of(std::string_view word, const char* name, const Words<Value, count>& words) {
  if (const auto value = find_word(word, words)) {
    return *value;
  }
  return fail(make_error(ErrorCode::kInvalid, "read a request",
                         std::string(name) + " \"" + std::string(word) + "\"",
                         "use one of: " + list_words(words)));
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
