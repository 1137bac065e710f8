#include "libmigrate/rights/asker.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/unique_fd.h"

namespace migrate {
namespace {

TEST(Asker, TravelsWhole) {
  Asker asker{.user = 1000, .group = 100, .groups = {4, 27}, .capabilities = 1U << 19U};
  asker.is_target = true;
  const auto read = asker_from({{"asker", to_json(asker)}});
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->user, asker.user);
  EXPECT_EQ(read->group, asker.group);
  EXPECT_EQ(read->groups, asker.groups);
  EXPECT_EQ(read->capabilities, asker.capabilities);
  EXPECT_TRUE(read->is_target);
}

TEST(Asker, MalformedIsNobody) {
  const nlohmann::json good = to_json(Asker{.user = 0, .group = 0});
  EXPECT_TRUE(asker_from({{"asker", good}}));
  EXPECT_FALSE(asker_from(nlohmann::json::object()));
  EXPECT_FALSE(asker_from({{"asker", 0}}));
  for (const char* name : {"user", "group", "groups", "capabilities", "is_target"}) {
    nlohmann::json bad = good;
    bad.erase(name);
    EXPECT_FALSE(asker_from({{"asker", bad}})) << name;
    for (const nlohmann::json& value :
         {nlohmann::json("0"), nlohmann::json(-1), nlohmann::json(1e30), nlohmann::json({"x"})}) {
      bad[name] = value;
      EXPECT_FALSE(asker_from({{"asker", bad}})) << name << " " << value;
    }
  }
}

TEST(Asker, IsWhoConnected) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  const UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  const auto asker =
      asker_of(ours.get(), PeerProcess::of(ours.get(), clock_ns(CLOCK_BOOTTIME)).value());
  ASSERT_TRUE(asker) << asker.error().message();
  EXPECT_EQ(asker->user, ::geteuid());
  EXPECT_EQ(asker->group, ::getegid());
  EXPECT_EQ(asker->groups.size(), static_cast<std::size_t>(::getgroups(0, nullptr)));
  EXPECT_EQ(asker->capabilities != 0, ::geteuid() == 0);
}

}  // namespace
}  // namespace migrate
