#include "base/printable.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

TEST(Printable, SteersNoTerminal) {
  EXPECT_EQ(printable("a\x1b[2J\x7f\n\xc2\x9b"
                      "b"),
            "a [2J    b");
  EXPECT_EQ(printable("Zürich °"), "Zürich °");
}

}  // namespace
}  // namespace migrate
