#include "libmigrate/state/global_name.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "base/process_identity.h"

namespace migrate {
namespace {

TEST(GlobalName, IsOfOneProcessOfOneBoot) {
  const wire::GlobalName own = first_global_name(::getpid(), "host");
  EXPECT_EQ(own.origin(), "host");
  EXPECT_NE(own.epoch(), 0U);
  EXPECT_EQ(own.serial() & ((1U << 22U) - 1), static_cast<std::uint64_t>(::getpid()));
  EXPECT_EQ(own.serial() >> 22U, start_time(::getpid()));
  EXPECT_EQ(to_string(first_global_name(::getpid(), "host")), to_string(own));
  const pid_t child = ::fork();
  if (child == 0) {
    for (;;) {
      ::pause();
    }
  }
  const wire::GlobalName other = first_global_name(child, "host");
  EXPECT_NE(other.serial(), own.serial());
  EXPECT_EQ(other.epoch(), own.epoch());
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(first_global_name(child, "host").serial(), 0U);  // Nobody has its name any more.
}

TEST(GlobalName, IsWrittenForPeopleAndTerminals) {
  wire::GlobalName name;
  EXPECT_EQ(to_string(name), "");
  name.set_serial(0x1f);
  EXPECT_EQ(to_string(name), "");  // Of nobody.
  name.set_origin("host.example");
  name.set_epoch(0xab);
  EXPECT_EQ(to_string(name), "host.example/1f/ab");
  name.set_origin("a/b\x1b[2J\n\x7f");
  EXPECT_EQ(to_string(name), "a_b_[2J__/1f/ab");
}

}  // namespace
}  // namespace migrate
