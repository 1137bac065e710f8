#include "tools/migratectl/inspect_words.h"

#include <algorithm>
#include <span>
#include <string_view>

namespace migrate {

bool is_pid(const std::string& word) {
  return word.find_first_not_of("0123456789") == std::string::npos;
}

Result<void> check_own_options(const std::vector<std::string>& program, int argc,
                               const char* const* argv) {
  const std::span words(argv, static_cast<std::size_t>(argc));
  const bool is_told =
      std::ranges::any_of(words, [](const char* word) { return std::string_view(word) == "--"; });
  for (const std::string& word : program) {
    if (!is_told && (word == "--to" || word.starts_with("--to="))) {
      return fail(make_error(ErrorCode::kInvalid, "inspect", program.front(),
                             "--to HOST stands before the command; if it is the command's, write "
                             "-- before that"));
    }
  }
  return {};
}

std::vector<std::string> pid_last(int argc, const char* const* argv, const std::string& pid) {
  std::vector<std::string> words(argv + 1, argv + argc);
  const auto place = std::ranges::find(words, pid);
  std::rotate(place, place + 1, words.end());
  return {words.rbegin(), words.rend()};
}

}  // namespace migrate
