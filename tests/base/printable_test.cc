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

TEST(Printable, RunsInOneDirection) {
  EXPECT_EQ(printable("exe\u202egpj\u2069\u061c"), "exe   gpj     ");
  EXPECT_EQ(printable("\xe2\x80"), "\xe2\x80");  // The beginning of one.
  EXPECT_EQ(printable("שלום"), "שלום");
}

}  // namespace
}  // namespace migrate
