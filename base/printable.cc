#include "base/printable.h"

namespace migrate {

std::string printable(std::string text) {
  constexpr unsigned char kDelete = 0x7f;
  constexpr unsigned char kLead = 0xc2;  // Before 0x80 to 0x9f: the second set of such characters.
  unsigned char before = 0;
  for (char& each : text) {
    const auto byte = static_cast<unsigned char>(each);
    if (byte < ' ' || byte == kDelete || (before == kLead && byte >= 0x80 && byte < 0xa0)) {
      each = ' ';
    }
    before = byte;
  }
  return text;
}

}  // namespace migrate
