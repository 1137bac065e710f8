// Whether a host can make gateways; what they do is tested with relays (call_relay_test.cc).
#include "libmigrate/links/gateway.h"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <thread>

namespace migrate {
namespace {

// Of the calling thread, and of those that it starts.
void give_up_capability(unsigned number) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> sets{};
  ASSERT_EQ(::syscall(SYS_capget, &header, sets.data()), 0);
  sets[0].effective &= ~(1U << number);
  sets[0].permitted &= ~(1U << number);
  ASSERT_EQ(::syscall(SYS_capset, &header, sets.data()), 0);
}

TEST(Gateways, AreTriedOutByWhoMayMakeThem) {
  const auto tried = Gateway::try_out();
  EXPECT_TRUE(tried) << tried.error().message();
  EXPECT_EQ(::if_nametoindex("home0"), 0U);  // It was made elsewhere.
  for (const unsigned lost : {CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN}) {
    std::thread([lost] {
      give_up_capability(lost);
      EXPECT_FALSE(Gateway::try_out()) << "without " << lost;
    }).join();
  }
}

}  // namespace
}  // namespace migrate
