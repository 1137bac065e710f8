// How RDMA connections come about, are refused, and end.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <future>
#include <utility>

#include "base/unique_fd.h"
#include "tests/transport/rdma/device.h"
#include "tests/transport/text_bytes.h"

namespace migrate::test {
namespace {

std::string output_of(const std::string& command) {
  std::string output;
  FILE* const pipe = ::popen(command.c_str(), "r");
  std::array<char, 4096> buffer;
  while (const std::size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    output.append(buffer.data(), count);
  }
  ::pclose(pipe);
  return output;
}

/// What connect_rdma() says to `greeting`; the listener's own answer goes to `refused`.
Result<std::unique_ptr<OneSidedChannel>> knock(Meeting& meeting, const PageGreeting& greeting,
                                               Error& refused) {
  auto connecting = std::async(std::launch::async, [&] {
    return connect_rdma(address_of(*meeting.listener), greeting, {}, kConnectMs);
  });
  auto accepted = meeting.listener->accept(kConnectMs);
  if (!accepted) {
    refused = accepted.error();
  }
  return connecting.get();
}

TEST(RdmaConnection, IsRefusedWithoutTheToken) {
  Meeting meeting;
  PageGreeting forged = meeting.greeting(Purpose::kUrgent);
  forged.token[15] = std::byte{1};
  Error refused;
  const auto channel = knock(meeting, forged, refused);
  ASSERT_FALSE(channel);
  EXPECT_EQ(channel.error().code, ErrorCode::kRefused) << channel.error().message();
  EXPECT_NE(channel.error().message().find("token"), std::string::npos);
  EXPECT_EQ(refused.code, ErrorCode::kRefused) << refused.message();
  // The listener goes on.
  auto [left, right] = connect_pair(meeting, Purpose::kUrgent);
  ASSERT_TRUE(left && right);
  ASSERT_TRUE(left->send_one(bytes_of("hello")));
  EXPECT_EQ(text_of(right->receive().value()), "hello");
}

TEST(RdmaConnection, IsRefusedForAnotherSessionOrPurpose) {
  Meeting meeting;
  PageGreeting other = meeting.greeting(Purpose::kBulk);
  other.session[0] = std::byte{9};
  Error refused;
  EXPECT_EQ(knock(meeting, other, refused).error().code, ErrorCode::kRefused);
  EXPECT_EQ(refused.code, ErrorCode::kRefused);
  const auto home = knock(meeting, meeting.greeting(Purpose::kHome), refused);
  ASSERT_FALSE(home);
  EXPECT_NE(home.error().message().find("purpose"), std::string::npos) << home.error().message();
}

TEST(RdmaConnection, FailsWhereNobodyListens) {
  Address nowhere;
  {
    const Meeting meeting;
    nowhere = address_of(*meeting.listener);
  }
  const auto channel = connect_rdma(nowhere, {}, {}, kConnectMs);
  ASSERT_FALSE(channel);
  EXPECT_EQ(channel.error().code, ErrorCode::kPeerLost) << channel.error().message();
}

TEST(RdmaConnection, FailsWhereNoDeviceLeads) {
  const auto channel =
      connect_rdma({.scheme = "rdma", .host = "192.0.2.1", .port = 1}, {}, {}, 1000);
  ASSERT_FALSE(channel);
  EXPECT_EQ(channel.error().code, ErrorCode::kUnsupported) << channel.error().message();
  EXPECT_NE(channel.error().message().find("rdma link"), std::string::npos)
      << channel.error().message();
}

TEST(RdmaConnection, ListensOnlyOnAddressesOfThisHost) {
  const auto listener = listen_rdma("192.0.2.1", {}, {});
  ASSERT_FALSE(listener);
  EXPECT_NE(listener.error().message().find("rdma link"), std::string::npos)
      << listener.error().message();
}

/// A process of its own that connects to `meeting` (rdma_peer.cc): what this process knows of RDMA
/// does not outlive a fork.
class Peer {
 public:
  /// `prepare` is called in the child, as root.
  Peer(
      const Meeting& meeting, Purpose purpose, const std::function<void()>& prepare = [] {}) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe(ends.data()), 0);
    const std::string port = std::to_string(meeting.listener->port());
    const std::string number = std::to_string(static_cast<int>(purpose));
    const std::string program =
        (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "rdma_peer").string();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(ends[1], STDOUT_FILENO);
      prepare();
      ::execl(program.c_str(), program.c_str(), port.c_str(), number.c_str(), nullptr);
      ::_exit(127);
    }
    ::close(ends[1]);
    output_.reset(ends[0]);
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  ~Peer() { kill(); }

  void kill() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(std::exchange(pid_, 0), nullptr, 0);
    }
  }
  /// What it prints: "connected", or why not.
  std::string says() const {
    std::array<char, 1024> buffer;
    const ssize_t count = ::read(output_.get(), buffer.data(), buffer.size());
    return {buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0))};
  }

 private:
  pid_t pid_ = 0;
  UniqueFd output_;
};

void become_nobody() {
  constexpr uid_t kNobody = 65534;
  if (::setresgid(kNobody, kNobody, kNobody) != 0 || ::setresuid(kNobody, kNobody, kNobody) != 0) {
    ::_exit(126);
  }
}

TEST(RdmaConnection, TellsWhyMemoryCannotBePinned) {
  const Meeting meeting;
  const Peer peer(meeting, Purpose::kBulk, [] {
    const rlimit limit{65536, 65536};
    ::setrlimit(RLIMIT_MEMLOCK, &limit);
    become_nobody();
  });
  const std::string text = peer.says();
  EXPECT_NE(text.find("RLIMIT_MEMLOCK is 65536"), std::string::npos) << text;
}

TEST(RdmaConnection, TellsThatPermissionIsMissing) {
  const char* const device = "/dev/infiniband/rdma_cm";
  const Meeting meeting;
  ::chmod(device, 0600);
  const std::string text = Peer(meeting, Purpose::kBulk, become_nobody).says();
  ::chmod(device, 0666);
  EXPECT_NE(text.find("permission on /dev/infiniband"), std::string::npos) << text;
}

TEST(RdmaConnection, EndsWithThePeersProcess) {
  const Meeting meeting;
  Peer peer(meeting, Purpose::kUrgent);
  auto accepted = meeting.listener->accept(kConnectMs);
  ASSERT_TRUE(accepted) << accepted.error().message() << peer.says();
  const auto greeting = accepted->channel->receive(0, kConnectMs);
  ASSERT_TRUE(greeting) << greeting.error().message();
  EXPECT_EQ(text_of(*greeting), "up");
  peer.kill();
  const auto message = accepted->channel->receive(0, kConnectMs);
  ASSERT_FALSE(message);
  EXPECT_EQ(message.error().code, ErrorCode::kPeerLost) << message.error().message();
}

TEST(RdmaConnection, ListsThePort) {
  const auto ports = rdma_ports();
  ASSERT_TRUE(ports) << ports.error().message();
  ASSERT_FALSE(ports->empty());
  bool found = false;
  for (const PagePort& port : *ports) {
    EXPECT_EQ(port.transport, "RoCE");
    EXPECT_EQ(port.state, "active");
    EXPECT_GE(port.mtu_bytes, 1024U);
    for (const std::string& address : port.addresses) {
      found = found || address == rdma_address();
    }
  }
  EXPECT_TRUE(found);
}

/// Of this process: each completion channel and each channel of connection events is one.
std::size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

// Objects of every kind as the kernel counts them: "0: rxe0: pd 3 cq 2 qp 2 cm_id 0 mr 1 ctx 1".
TEST(RdmaConnection, LeavesNothingBehind) {
  const char* const more = std::getenv("MIGRATE_RDMA_SESSIONS");
  const int sessions = more != nullptr ? std::atoi(more) : 20;
  const char* const command = "rdma resource show | sed 's/ctx.*//'";
  Meeting meeting;
  { auto first = connect_pair(meeting, Purpose::kUrgent); }
  const std::string before = output_of(command);
  ASSERT_NE(before.find("qp"), std::string::npos) << before;
  const std::size_t descriptors_before = open_descriptors();
  for (int i = 0; i < sessions; ++i) {
    auto [left, right] = connect_pair(meeting, i % 2 == 0 ? Purpose::kUrgent : Purpose::kBulk);
    ASSERT_TRUE(left && right);
    ASSERT_TRUE(left->send_one(bytes_of("x")));
    ASSERT_TRUE(right->receive(0, kConnectMs));
    if (i % 3 == 0) {
      right->shutdown();
    }
  }
  EXPECT_EQ(output_of(command), before);
  EXPECT_EQ(open_descriptors(), descriptors_before);
}

}  // namespace
}  // namespace migrate::test
