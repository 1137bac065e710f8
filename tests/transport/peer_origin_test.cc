#include "transport/peer_origin.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/tcp.h"

namespace migrate {
namespace {

constexpr uid_t kUser = 54321;

class PeerOriginTest : public testing::TestWithParam<const char*> {
 protected:
  Address address() const { return {"tcp", GetParam(), listener_.port()}; }

  PeerOrigins origins_ = PeerOrigins::create().value();
  TcpListener listener_ = TcpListener::create({"tcp", GetParam(), 0}).value();
};

TEST_P(PeerOriginTest, TellsWhoseConnectionItIs) {
  const UniqueFd client = connect_tcp(address(), 1000).value();
  const auto accepted = listener_.accept(1000).value();
  const PeerOrigin origin = origins_.of(accepted.fd.get());
  EXPECT_EQ(origin.group, "user " + std::to_string(geteuid()));
  EXPECT_TRUE(origin.is_local);
  EXPECT_EQ(origin.is_root, geteuid() == 0);
  EXPECT_EQ(origin.host, GetParam());
}

TEST_P(PeerOriginTest, TellsUsersApart) {
  if (geteuid() != 0) {
    GTEST_SKIP() << "needs root, to be another user";
  }
  const pid_t child = fork();
  if (child == 0) {
    const bool other = setgid(kUser) == 0 && setuid(kUser) == 0;
    const auto client = connect_tcp(address(), 1000);
    pause();
    _exit(other && client ? 0 : 1);
  }
  const auto accepted = listener_.accept(5000);
  const PeerOrigin origin =
      accepted ? origins_.of(accepted->fd.get()) : PeerOrigin{.host = "", .group = ""};
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_EQ(origin.group, "user " + std::to_string(kUser));
  EXPECT_FALSE(origin.is_root);
}

TEST_P(PeerOriginTest, AConnectionThatNobodyHasOpenIsNotRoots) {
  UniqueFd client = connect_tcp(address(), 1000).value();
  const auto accepted = listener_.accept(1000).value();
  client.reset();
  const PeerOrigin origin = origins_.of(accepted.fd.get());
  EXPECT_FALSE(origin.is_local);
  EXPECT_FALSE(origin.is_root);
}

TEST_P(PeerOriginTest, RootConnectsFromAReservedPort) {
  if (geteuid() != 0) {
    GTEST_SKIP() << "needs root, for such a port";
  }
  const UniqueFd client = connect_tcp(address(), 1000, SourcePort::kReserved).value();
  const auto accepted = listener_.accept(1000).value();
  SocketAddress peer;
  peer.length = sizeof peer.storage;
  ASSERT_EQ(
      ::getpeername(accepted.fd.get(), reinterpret_cast<sockaddr*>(&peer.storage), &peer.length),
      0);
  EXPECT_LT(peer.port(), 1024);
}

INSTANTIATE_TEST_SUITE_P(Families, PeerOriginTest, testing::Values("127.0.0.1", "::1"));

}  // namespace
}  // namespace migrate
