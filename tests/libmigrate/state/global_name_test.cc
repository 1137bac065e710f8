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

TEST(GlobalName, IsReadAsItIsWritten) {
  const wire::GlobalName own = first_global_name(::getpid(), "host.example");
  const auto read = parse_global_name(to_string(own));
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(to_string(*read), to_string(own));
  EXPECT_EQ(process_of(*read)->pid, ::getpid());
  EXPECT_TRUE(process_of(*read)->is_alive());
  EXPECT_TRUE(is_global_name("host/1/2"));
  EXPECT_FALSE(is_global_name("0123abcd"));
  for (const std::string bad :
       {"", "/", "host", "host/1", "host/1/", "/1/2", "host//2", "host/1/2/3", "host/-1/2",
        "host/0x1/2", "host/g/2", "host/11111111111111111/2", "ho\nst/1/2"}) {
    const auto refused = parse_global_name(bad);
    ASSERT_FALSE(refused) << bad;
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalid);
  }
  EXPECT_FALSE(parse_global_name(std::string(1000, 'h') + "/1/2"));
}

TEST(GlobalName, OfAnEarlierBootIsOfNoProcess) {
  wire::GlobalName name = first_global_name(::getpid(), "host");
  name.set_epoch(name.epoch() + 1);
  EXPECT_FALSE(process_of(name));
  name.set_epoch(name.epoch() - 1);
  name.set_serial(name.serial() + (1U << 22U));  // Another process that had this pid.
  ASSERT_TRUE(process_of(name));
  EXPECT_FALSE(process_of(name)->is_alive());
  name.set_serial(0);
  EXPECT_FALSE(process_of(name));
}

}  // namespace
}  // namespace migrate
