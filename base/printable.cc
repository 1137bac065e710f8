#include "base/printable.h"

#include <cstddef>

namespace migrate {

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
  }
  return text;
}

}  // namespace migrate
