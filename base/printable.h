#pragma once

#include <string>

namespace migrate {

/// `text` with a blank for each character that steers a terminal (both sets of control characters
/// of UTF-8, line ends included): one line, whoever chose the names in it.
std::string printable(std::string text);

}  // namespace migrate
