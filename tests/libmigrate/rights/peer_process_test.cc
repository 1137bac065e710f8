#include "libmigrate/rights/peer_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/clock.h"
#include "base/unique_fd.h"

namespace migrate {
namespace {

/// A child that waits to be killed, and has made a pair of sockets of which this is one end.
class Connected {
 public:
  Connected() {
    std::array<int, 2> pass{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pass.data()), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      connect_and_wait(pass[1]);
    }
    const UniqueFd ours(pass[0]);
    const UniqueFd theirs(pass[1]);
    char byte = 0;
    iovec data{&byte, 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    EXPECT_EQ(::recvmsg(ours.get(), &message, MSG_CMSG_CLOEXEC), 1);
    int descriptor = -1;
    std::copy_n(CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof descriptor,
                reinterpret_cast<unsigned char*>(&descriptor));
    socket_.reset(descriptor);
  }
  Connected(const Connected&) = delete;
  Connected& operator=(const Connected&) = delete;
  ~Connected() { end(); }

  void end() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
      pid_ = 0;
    }
  }
  pid_t pid() const { return pid_; }
  int socket() const { return socket_.get(); }

 private:
  [[noreturn]] static void connect_and_wait(int pass) {
    std::array<int, 2> ends{};
    char byte = 0;
    iovec data{&byte, 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0) {
      std::copy_n(reinterpret_cast<const unsigned char*>(ends.data()), sizeof(int),
                  CMSG_DATA(header));
      static_cast<void>(::sendmsg(pass, &message, 0));
    }
    for (;;) {
      ::pause();
    }
  }

  pid_t pid_ = 0;
  UniqueFd socket_;
};

std::int64_t now_ns() {
  return clock_ns(CLOCK_BOOTTIME);
}

TEST(PeerProcess, IsThereUntilItEnds) {
  Connected child;
  const auto peer = PeerProcess::of(child.socket(), now_ns());
  ASSERT_TRUE(peer) << peer.error().message();
  EXPECT_EQ(peer->pid(), child.pid());
  EXPECT_TRUE(peer->is_there());
  EXPECT_TRUE(peer->must_be_there());
  child.end();
  EXPECT_FALSE(peer->is_there());
  EXPECT_EQ(peer->must_be_there().error().code, ErrorCode::kNotFound);
}

TEST(PeerProcess, ThatHasEndedBeforeIsNobody) {
  Connected child;
  child.end();
  const auto peer = PeerProcess::of(child.socket(), now_ns());
  EXPECT_TRUE(!peer || !peer->is_there());
}

TEST(PeerProcess, ByItsPidIsNoneThatBeganLater) {
  constexpr std::int64_t kTicks = 5 * kNanosecondsPerSecond / 100;
  const std::int64_t before = now_ns() - kTicks;
  Connected child;
  EXPECT_TRUE(PeerProcess::by_pid(child.pid(), now_ns()).is_there());
  EXPECT_FALSE(PeerProcess::by_pid(child.pid(), before).is_there());
  const pid_t pid = child.pid();
  const PeerProcess peer = PeerProcess::by_pid(pid, now_ns());
  child.end();
  EXPECT_FALSE(peer.is_there());
  EXPECT_FALSE(PeerProcess::by_pid(pid, now_ns()).is_there());
}

TEST(PeerProcess, NoneIsNotThere) {
  EXPECT_FALSE(PeerProcess().is_there());
}

}  // namespace
}  // namespace migrate
