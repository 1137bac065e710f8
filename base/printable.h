#pragma once

#include <string>

namespace migrate {

/// `text` with a blank for each character that steers a terminal (both sets of control characters
/// of UTF-8, line ends included), and for each byte of one that changes in which direction text
/// runs: one line that reads as it is, whoever chose the names in it.
std::string printable(std::string text);

}  // namespace migrate
