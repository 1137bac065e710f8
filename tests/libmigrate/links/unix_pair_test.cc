#include "libmigrate/links/unix_pair.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

namespace migrate {
namespace {

UnixPair pair_of(const UnixPairNames& names) {
  auto made = make_unix_pairs(std::span(&names, 1));
  EXPECT_TRUE(made) << (made ? "" : made.error().message());
  return made ? std::move(made->front()) : UnixPair();
}

void expect_connected(const UnixPair& pair) {
  ASSERT_EQ(::send(pair.mate.get(), "abc", 3, MSG_NOSIGNAL), 3);
  std::string heard(8, '\0');
  EXPECT_EQ(::recv(pair.end.get(), heard.data(), heard.size(), MSG_DONTWAIT), 3);
}

ucred maker_of(const UniqueFd& fd) {
  ucred maker{};
  socklen_t size = sizeof(maker);
  EXPECT_EQ(::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &maker, &size), 0);
  return maker;
}

class UnixPairs : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
  }
};

TEST_F(UnixPairs, WithoutNamesAreSuch) {
  const UnixPair pair = pair_of({});
  EXPECT_EQ(unix_name_of(pair.end.get(), false).value(), "");
  EXPECT_EQ(unix_name_of(pair.end.get(), true).value(), "");
  expect_connected(pair);
}

TEST_F(UnixPairs, HaveTheNamesThatAreAskedForAndLeaveNoFile) {
  const std::string folder = "/run/no-such-folder/" + std::to_string(::getpid());
  const std::string abstract("\0an abstract name", 17);
  for (const UnixPairNames& names : {
           UnixPairNames{.peer = folder + "/server"},
           UnixPairNames{.local = folder + "/server"},
           UnixPairNames{.local = folder + "/client", .peer = folder + "/server"},
           UnixPairNames{.local = "relative/client", .peer = "../server"},
           UnixPairNames{.peer = abstract},
           UnixPairNames{.local = abstract, .peer = folder + "/server"},
           UnixPairNames{.peer = "/" + std::string(kMostUnixNameBytes - 1, 'x')},
       }) {
    const UnixPair pair = pair_of(names);
    EXPECT_EQ(unix_name_of(pair.end.get(), false).value(), names.local);
    EXPECT_EQ(unix_name_of(pair.end.get(), true).value(), names.peer);
    expect_connected(pair);
  }
  EXPECT_NE(::access(folder.c_str(), F_OK), 0);
}

TEST_F(UnixPairs, ManyHaveOneName) {
  const std::vector<UnixPairNames> names(20, {.peer = "/run/server", .peer_user = 65534});
  const auto pairs = make_unix_pairs(names);
  ASSERT_TRUE(pairs);
  for (const UnixPair& pair : *pairs) {
    expect_connected(pair);
  }
}

TEST_F(UnixPairs, TellWhoTheOtherIs) {
  for (const UnixPairNames& names :
       {UnixPairNames{.peer_user = 1234, .peer_group = 4321},
        UnixPairNames{.peer = "/run/a/server", .peer_user = 1234, .peer_group = 4321},
        UnixPairNames{.local = "/run/a/server", .peer_user = 1234, .peer_group = 4321}}) {
    const UnixPair pair = pair_of(names);
    EXPECT_EQ(maker_of(pair.end).uid, 1234U);
    EXPECT_EQ(maker_of(pair.end).gid, 4321U);
  }
  EXPECT_EQ(::geteuid(), 0U);
}

TEST_F(UnixPairs, ANameThatIsTooLongIsAnError) {
  const UnixPairNames names{.peer = std::string(kMostUnixNameBytes + 1, 'x')};
  EXPECT_FALSE(make_unix_pairs(std::span(&names, 1)));
}

}  // namespace
}  // namespace migrate
