// Socket pairs whose both ends the program has: what waits in them, how they are set and shut down.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <thread>

#include "tests/programs/check.h"

namespace {

using check::called;
using check::stopping;

std::array<int, 2> make_pair(int type) {
  std::array<int, 2> ends{};
  called(::socketpair(AF_UNIX, type, 0, ends.data()), "socketpair");
  return ends;
}

int option(int fd, int name) {
  int value = 0;
  socklen_t size = sizeof(value);
  called(::getsockopt(fd, SOL_SOCKET, name, &value, &size), "getsockopt");
  return value;
}

void set_option(int fd, int name, int value) {
  called(::setsockopt(fd, SOL_SOCKET, name, &value, sizeof(value)), "setsockopt");
}

short events_of(int fd) {
  pollfd polled{fd, POLLIN | POLLOUT | POLLRDHUP, 0};
  called(::poll(&polled, 1, 0), "poll");
  return polled.revents;
}

/// Always some numbers in both directions of a stream.
void socket_stream() {
  const auto ends = make_pair(SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC);
  check::Random random(1);
  std::array<std::uint64_t, 2> written{};
  std::array<std::uint64_t, 2> read{};
  check::ready();
  while (!stopping()) {
    for (const std::size_t from : {0U, 1U}) {
      while (written[from] - read[from] < 100 + random.below(200)) {
        CHECK_EQUAL(::write(ends[from], &written[from], 8), 8);
        ++written[from];
      }
    }
    check::sleep_ns(2 * check::kMillisecond);
    for (const std::size_t from : {0U, 1U}) {
      while (written[from] - read[from] > random.below(100)) {
        std::uint64_t number = 0;
        CHECK_EQUAL(::read(ends[1 - from], &number, 8), 8);
        CHECK_EQUAL(number, read[from]);
        ++read[from];
      }
    }
    CHECK_EQUAL(::fcntl(ends[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    CHECK_EQUAL(::fcntl(ends[0], F_GETFD), FD_CLOEXEC);
  }
}

/// Messages keep their bounds and order, empty ones included.
void messages(int type, std::size_t shortest) {
  const auto ends = make_pair(type | SOCK_NONBLOCK);
  check::Random random(2);
  std::deque<std::string> sent;
  std::array<char, 4096> buffer{};
  check::ready();
  while (!stopping()) {
    while (sent.size() < 4 + random.below(4)) {
      sent.emplace_back(shortest + random.below(3000), static_cast<char>('a' + random.below(26)));
      CHECK_EQUAL(::send(ends[0], sent.back().data(), sent.back().size(), 0),
                  static_cast<ssize_t>(sent.back().size()));
    }
    sent.emplace_back();
    if (shortest == 0) {
      CHECK_EQUAL(::send(ends[0], "", 0, 0), 0);
    } else {
      sent.pop_back();
    }
    check::sleep_ns(2 * check::kMillisecond);
    while (sent.size() > random.below(4)) {
      const ssize_t count = ::recv(ends[1], buffer.data(), buffer.size(), 0);
      CHECK_EQUAL(count, static_cast<ssize_t>(sent.front().size()));
      CHECK(std::string(buffer.data(), static_cast<std::size_t>(count)) == sent.front());
      sent.pop_front();
    }
  }
}

void socket_datagrams() {
  messages(SOCK_DGRAM, 0);
}

void socket_packets() {
  messages(SOCK_SEQPACKET, 1);
}

/// Ends that were shut down or closed, with what had been sent before.
void socket_shutdown() {
  const auto half = make_pair(SOCK_STREAM);
  CHECK_EQUAL(::write(half[0], "last", 4), 4);
  called(::shutdown(half[0], SHUT_WR), "shutdown");
  const auto closed = make_pair(SOCK_STREAM);
  CHECK_EQUAL(::write(closed[1], "gone", 4), 4);
  called(::close(closed[1]), "close");
  const auto reset = make_pair(SOCK_STREAM);
  CHECK_EQUAL(::write(reset[0], "unread", 6), 6);
  called(::close(reset[1]), "close");
  const auto alone = make_pair(SOCK_DGRAM);
  called(::close(alone[1]), "close");
  const std::array<short, 4> expected{events_of(half[0]), events_of(half[1]), events_of(closed[0]),
                                      events_of(reset[0])};
  check::ready();
  do {
    CHECK_EQUAL(events_of(half[0]), expected[0]);
    CHECK_EQUAL(events_of(half[1]), expected[1]);
    CHECK_EQUAL(events_of(closed[0]), expected[2]);
    CHECK_EQUAL(events_of(reset[0]), expected[3]);
    CHECK_EQUAL(::write(half[1], "x", 1), 1);
    char got = 0;
    CHECK_EQUAL(::read(half[0], &got, 1), 1);
    CHECK(::send(half[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    check::sleep_ns(check::kMillisecond);
  } while (!stopping());
  std::array<char, 8> buffer{};
  CHECK_EQUAL(::read(half[1], buffer.data(), buffer.size()), 4);
  CHECK_EQUAL(std::string(buffer.data(), 4), "last");
  CHECK_EQUAL(::read(half[1], buffer.data(), buffer.size()), 0);
  CHECK_EQUAL(::read(closed[0], buffer.data(), buffer.size()), 4);
  CHECK_EQUAL(::read(closed[0], buffer.data(), buffer.size()), 0);
  CHECK(::read(reset[0], buffer.data(), buffer.size()) == -1 && errno == ECONNRESET);
  CHECK_EQUAL(::read(reset[0], buffer.data(), buffer.size()), 0);
  CHECK(::send(alone[0], "x", 1, 0) == -1 && errno == ECONNREFUSED);
}

/// Of an ordinary user, who is whom SO_PEERCRED names.
void socket_options() {
  constexpr uid_t kNobody = 65534;
  called(::setresgid(kNobody, kNobody, kNobody), "setresgid");
  called(::setresuid(kNobody, kNobody, kNobody), "setresuid");
  called(::prctl(PR_SET_DUMPABLE, 1), "prctl(PR_SET_DUMPABLE)");
  const auto ends = make_pair(SOCK_STREAM);
  set_option(ends[0], SO_SNDBUF, 20'000);
  set_option(ends[1], SO_RCVBUF, 30'000);
  set_option(ends[0], SO_PASSCRED, 1);
  set_option(ends[1], SO_RCVLOWAT, 5);
  set_option(ends[1], SO_PEEK_OFF, 2);
  const timeval limit{1, 500'000};
  called(::setsockopt(ends[1], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), "setsockopt");
  CHECK_EQUAL(::write(ends[0], "123456789", 9), 9);
  const std::array<int, 5> expected{option(ends[0], SO_SNDBUF), option(ends[1], SO_RCVBUF), 1, 5,
                                    option(ends[1], SO_SNDBUF)};
  check::ready();
  do {
    CHECK_EQUAL(option(ends[0], SO_SNDBUF), expected[0]);
    CHECK_EQUAL(option(ends[1], SO_RCVBUF), expected[1]);
    CHECK_EQUAL(option(ends[0], SO_PASSCRED), expected[2]);
    CHECK_EQUAL(option(ends[1], SO_RCVLOWAT), expected[3]);
    CHECK_EQUAL(option(ends[1], SO_SNDBUF), expected[4]);
    CHECK_EQUAL(option(ends[1], SO_PEEK_OFF), 2);
    timeval found{};
    socklen_t size = sizeof(found);
    called(::getsockopt(ends[1], SOL_SOCKET, SO_RCVTIMEO, &found, &size), "getsockopt");
    CHECK_EQUAL(found.tv_sec, limit.tv_sec);
    CHECK_EQUAL(found.tv_usec, limit.tv_usec);
    for (const int end : ends) {
      ucred peer{};
      size = sizeof(peer);
      called(::getsockopt(end, SOL_SOCKET, SO_PEERCRED, &peer, &size), "getsockopt");
      CHECK_EQUAL(peer.pid, ::getpid());
      CHECK_EQUAL(peer.uid, kNobody);
      CHECK_EQUAL(peer.gid, kNobody);
    }
    check::sleep_ns(check::kMillisecond);
  } while (!stopping());
}

/// A thread that sleeps in epoll_wait until another writes, as event loops are woken.
void socket_wakeup() {
  const auto ends = make_pair(SOCK_STREAM | SOCK_NONBLOCK);
  const int epoll = called(::epoll_create1(0), "epoll_create1");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 17;
  called(::epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event), "epoll_ctl");
  std::atomic<std::uint64_t> woken{0};
  std::thread loop([&] {
    for (char got = 0; got != 'q';) {
      epoll_event seen{};
      if (::epoll_wait(epoll, &seen, 1, 10'000) < 0) {
        CHECK_EQUAL(errno, EINTR);
        continue;
      }
      CHECK_EQUAL(seen.data.u64, 17U);
      CHECK_EQUAL(::read(ends[0], &got, 1), 1);
      woken += 1;
    }
  });
  check::ready();
  std::uint64_t sent = 0;
  do {
    CHECK_EQUAL(::write(ends[1], "w", 1), 1);
    ++sent;
    while (woken != sent) {
      check::sleep_ns(check::kMillisecond / 2);
    }
  } while (!stopping());
  CHECK_EQUAL(::write(ends[1], "q", 1), 1);
  loop.join();
}

constexpr check::Property kProperties[] = {
    {"socket_stream", socket_stream},   {"socket_datagrams", socket_datagrams},
    {"socket_packets", socket_packets}, {"socket_shutdown", socket_shutdown},
    {"socket_options", socket_options}, {"socket_wakeup", socket_wakeup},
};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
