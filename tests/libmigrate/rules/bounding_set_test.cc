#include "libmigrate/rules/bounding_set.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace migrate {
namespace {

TEST(BoundingSets, OfAllThreadsCount) {
  wire::ProcessImage image;
  EXPECT_EQ(bounding_sets_of(image), 0U);
  image.add_threads()->mutable_credentials()->set_capabilities_bounding(0b0110);
  image.add_threads()->mutable_credentials()->set_capabilities_bounding(0b0011);
  EXPECT_EQ(bounding_sets_of(image), 0b0111U);
}

TEST(BoundingSets, OurOwnIsWithoutWhatWasDropped) {
  constexpr unsigned kChown = 0;
  ASSERT_NE(own_bounding_set() & 1U, 0U);
  const pid_t child = ::fork();
  if (child == 0) {
    const bool is_dropped = ::prctl(PR_CAPBSET_DROP, kChown, 0, 0, 0) == 0;
    ::_exit(is_dropped && (own_bounding_set() & 1U) == 0 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace migrate
