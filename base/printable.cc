#include "base/printable.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

namespace migrate {
namespace {

/// Characters that let what follows run from right to left, so that a name reads as another one.
constexpr std::array<std::string_view, 12> kDirections = {"\u061c", "\u200e", "\u200f", "\u202a",
                                                          "\u202b", "\u202c", "\u202d", "\u202e",
                                                          "\u2066", "\u2067", "\u2068", "\u2069"};

}  // namespace

std::string printable(std::string text) {
  constexpr unsigned char kDelete = 0x7f;
  constexpr unsigned char kLead = 0xc2;  // Before 0x80 to 0x9f: the second set of such characters.
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool is_second =
        i > 0 && static_cast<unsigned char>(text[i - 1]) == kLead && byte >= 0x80 && byte < 0xa0;
    if (is_second) {
      text[i - 1] = ' ';
    }
    if (is_second || byte < ' ' || byte == kDelete) {
      text[i] = ' ';
    }
    if (byte < 0x80) {
      continue;
    }
    const auto direction = std::ranges::find_if(kDirections, [&](std::string_view each) {
      return std::string_view(text).substr(i).starts_with(each);
    });
    if (direction != kDirections.end()) {
      std::fill_n(text.begin() + static_cast<std::ptrdiff_t>(i), direction->size(), ' ');
    }
  }
  return text;
}

}  // namespace migrate
