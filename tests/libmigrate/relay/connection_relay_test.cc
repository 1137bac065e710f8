// Connections of TCP: what a peer at home and the moved process see of each other.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <random>
#include <stdexcept>

#include "libmigrate/links/tcp_pair.h"
#include "tests/libmigrate/relay/relay_world.h"

namespace migrate::relay_testing {
namespace {

struct Died : std::runtime_error {
  Died() : std::runtime_error("a worker has died") {}
};

class ConnectionRelay : public RelayWorld {
 protected:
  static constexpr std::uint32_t kLink = 5;

  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
    connect_at_home();
    const TcpCounts counts = *count_bytes(real_.get());
    start_ = ConnectionEnd::Start{.taken = counts.taken, .given = counts.given};
    make_deputy();
    RelayStreamSpec spec{kLink, wire::RELAY_BOTH};
    spec.is_connection = true;
    std::array<RelayStreamSpec, 1> all{spec};
    place = make_place_of(make_relay_state(all));
    connection = connect(*place.relay);
    place.relay->activate();
  }

  // The peer, who knows of nothing, and what was the process's.
  void connect_at_home() {
    const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::listen(listener.get(), 1), 0);
    const SocketName name = *SocketName::of(listener.get());
    peer_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(peer_.get(), name.address(), name.size()), 0);
    real_.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    set_nonblocking(peer_.get());
  }

  void make_deputy() {
    HomeRelay::Stream stream;
    stream.id = kLink;
    stream.real.reset(::fcntl(real_.get(), F_DUPFD_CLOEXEC, 0));
    stream.directions = wire::RELAY_BOTH;
    stream.connection = start_;
    std::vector<HomeRelay::Stream> streams;
    streams.push_back(std::move(stream));
    HomeRelay::Handlers handlers;
    handlers.on_change = [this] {
      if (std::exchange(home_dies_, false)) {
        throw Died();
      }
      home_note_ = deputy_relay->note();
      if (std::exchange(home_dies_when_noted_, false)) {
        throw Died();
      }
    };
    handlers.on_stream_closed = [this](std::uint32_t, wire::RelayDirection) { real_.reset(); };
    deputy_relay = std::make_unique<HomeRelay>(std::move(streams), 0, std::move(handlers));
    home_note_ = deputy_relay->note();
  }

  GuestRelay::Handlers guest_handlers() {
    GuestRelay::Handlers handlers;
    handlers.on_change = [this] {
      if (std::exchange(guest_dies_, false)) {
        throw Died();
      }
      if (place.relay) {
        guest_note_ = place.relay->note();
      }
    };
    return handlers;
  }

  Place make_place_of(const wire::RelayState& state) {
    Place made;
    made.relay = std::move(*GuestRelay::create(state, guest_handlers()));
    if (is_closed_) {
      EXPECT_TRUE(made.relay->create_endpoints(::getuid(), ::getgid()));
      guest_note_ = made.relay->note();
      return made;
    }
    const TcpPairNames names{*SocketName::of(real_.get()), *SocketName::of(peer_.get())};
    std::vector<TcpPair> pairs = std::move(*make_tcp_pairs({&names, 1}));
    std::vector<ConnectionParts> parts;
    parts.push_back({kLink, std::move(pairs.front())});
    auto ends = made.relay->create_endpoints(::getuid(), ::getgid(), {},
                                             {.connections = std::move(parts), .listeners = {}});
    EXPECT_TRUE(ends);
    set_nonblocking(ends->front().process_end.get());
    made.ends[kLink] = std::move(ends->front().process_end);
    guest_note_ = made.relay->note();
    return made;
  }

  // Whoever was to die did in the midst of its turn, before it could note what it had done.
  void turn_or_die() {
    try {
      turn(nullptr, 0);
      return;
    } catch (const Died&) {
    }
    if (home_died_next_) {
      const wire::HomeRelayState noted = home_note_;
      deputy_relay.reset();
      make_deputy();
      deputy_relay->adopt(noted);
    } else {
      const wire::GuestRelayState noted = guest_note_;
      std::vector<GuestRelay::Adopted> ends;
      for (const RelayEnd& end : place.relay->ends()) {
        ends.push_back({end.id, end.kind, UniqueFd(::dup(end.fd))});
      }
      place.relay.reset();
      place.relay = std::move(*GuestRelay::adopt(noted, std::move(ends), guest_handlers()));
    }
    connection = connect(*place.relay);
  }

  void close_and_move_on() {
    place.ends[kLink].reset();
    is_closed_ = true;
    move_on();
  }

  void make_deputy_anew() {
    deputy_relay.reset();
    make_deputy();
    connection = connect(*place.relay);
  }

  void move_on() {
    place = make_place_of(place.relay->freeze_state());
    connection = connect(*place.relay);
    place.relay->activate();
  }

  int process() const { return place.ends.at(kLink).get(); }
  int peer() const { return peer_.get(); }

  std::string received(int fd, std::size_t count) {
    std::string all;
    EXPECT_TRUE(turn_until([&] {
      std::string part(count, '\0');
      const ssize_t got = ::read(fd, part.data(), count - all.size());
      all.append(part, 0, static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
      return all.size() == count;
    }));
    return all;
  }

  // What read(2) says when it says something: the errno, or 0 for the end of file.
  int end_of(int fd) {
    int error = -1;
    EXPECT_TRUE(turn_until([&] {
      char byte = 0;
      const ssize_t got = ::read(fd, &byte, 1);
      error = got < 0 ? errno : got == 0 ? 0 : -1;
      return error != EAGAIN && error >= 0;
    }));
    return error;
  }

  // Up to the end of file.
  std::string rest_of(int fd) {
    std::string all;
    EXPECT_TRUE(turn_until([&] {
      char byte = 0;
      const ssize_t got = ::read(fd, &byte, 1);
      all.append(&byte, got == 1 ? 1 : 0);
      return got == 0;
    }));
    return all;
  }

  static void send_text(int fd, std::string_view text, int flags = 0) {
    ASSERT_EQ(::send(fd, text.data(), text.size(), flags | MSG_NOSIGNAL), ssize_t(text.size()));
  }

  static void linger_none(int fd) {
    const linger none{.l_onoff = 1, .l_linger = 0};
    ASSERT_EQ(::setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none)), 0);
  }

  UniqueFd peer_;
  UniqueFd real_;
  ConnectionEnd::Start start_;
  wire::HomeRelayState home_note_;
  wire::GuestRelayState guest_note_;
  bool is_closed_ = false;  // by the process
  bool home_dies_ = false;
  bool home_dies_when_noted_ = false;
  bool guest_dies_ = false;
  bool home_died_next_ = false;
};

TEST_F(ConnectionRelay, NothingIsLostOrDoubledWhoeverDies) {
  constexpr std::uint64_t kBytes = 12U << 20U;
  std::mt19937 random{11};  // NOLINT(cert-msc51-cpp): the same each time
  Actor to_process;
  Actor from_process;
  int turns = 0;
  int deaths = 0;
  while (to_process.read < kBytes || from_process.read < kBytes) {
    to_process.write_some(peer(), kBytes, 1 + random() % 70000);
    to_process.read_some(process(), 1 + random() % 50000);
    from_process.write_some(process(), kBytes, 1 + random() % 70000);
    from_process.read_some(peer(), 1 + random() % 50000);
    ASSERT_FALSE(HasFailure());
    ++turns;
    ASSERT_LT(turns, 2'000'000);
    if (turns % 13 == 7) {
      home_died_next_ = random() % 2 == 0;
      (home_died_next_ ? home_dies_ : guest_dies_) = true;
      ++deaths;
    } else if (turns % 97 == 50 && !home_dies_ && !guest_dies_) {
      move_on();
    }
    turn_or_die();
  }
  EXPECT_GT(deaths, 10);
}

TEST_F(ConnectionRelay, BothHalvesAreClosedByThemselves) {
  send_text(peer(), "question");
  ASSERT_EQ(::shutdown(peer(), SHUT_WR), 0);
  EXPECT_EQ(received(process(), 8), "question");
  EXPECT_EQ(end_of(process()), 0);
  move_on();
  EXPECT_EQ(end_of(process()), 0);
  send_text(process(), "answer");
  EXPECT_EQ(received(peer(), 6), "answer");
  ASSERT_EQ(::shutdown(process(), SHUT_WR), 0);
  EXPECT_EQ(end_of(peer()), 0);
}

TEST_F(ConnectionRelay, TheProcessEndsItsHalfFirst) {
  send_text(process(), "question");
  ASSERT_EQ(::shutdown(process(), SHUT_WR), 0);
  EXPECT_EQ(received(peer(), 8), "question");
  EXPECT_EQ(end_of(peer()), 0);
  send_text(peer(), "answer");
  EXPECT_EQ(received(process(), 6), "answer");
  ASSERT_EQ(::shutdown(peer(), SHUT_WR), 0);
  EXPECT_EQ(end_of(process()), 0);
}

TEST_F(ConnectionRelay, ACloseIsNoReset) {
  send_text(peer(), "read to the end");
  EXPECT_EQ(received(process(), 15), "read to the end");
  send_text(process(), "bye");
  place.ends[kLink].reset();
  EXPECT_EQ(received(peer(), 3), "bye");
  EXPECT_EQ(end_of(peer()), 0);
  ASSERT_TRUE(turn_until([&] { return !real_.valid(); }));  // The deputy's is closed, too.
  send_text(peer(), "x");  // Nobody is there any more, which a reset says.
  EXPECT_EQ(::send(peer(), "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
}

TEST_F(ConnectionRelay, ClosingWithUnreadBytesResets) {
  send_text(peer(), "never read");
  pollfd readable{process(), POLLIN, 0};
  ASSERT_TRUE(turn_until([&] { return ::poll(&readable, 1, 0) == 1; }));
  place.ends[kLink].reset();
  EXPECT_EQ(end_of(peer()), ECONNRESET);
}

TEST_F(ConnectionRelay, AResetOfTheProcessComesBehindItsBytes) {
  send_text(process(), "last words");
  linger_none(process());
  EXPECT_EQ(received(peer(), 10), "last words");
  place.ends[kLink].reset();
  EXPECT_EQ(end_of(peer()), ECONNRESET);
}

TEST_F(ConnectionRelay, AResetOfThePeerComesBehindItsBytes) {
  send_text(peer(), "last words");
  EXPECT_EQ(received(process(), 10), "last words");
  linger_none(peer());
  const SocketName name = *SocketName::of_peer(process());
  peer_.reset();
  EXPECT_EQ(end_of(process()), ECONNRESET);
  EXPECT_EQ(::send(process(), "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
}

TEST_F(ConnectionRelay, WhoOnlyWritesHearsOfAReset) {
  linger_none(peer());
  send_text(peer(), "unread");
  peer_.reset();
  ASSERT_TRUE(turn_until([&] {
    return ::send(process(), "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN;
  }));
}

TEST_F(ConnectionRelay, UrgentBytesKeepTheirPlaces) {
  for (const auto& [from, to] : {std::pair(peer(), process()), std::pair(process(), peer())}) {
    send_text(from, "ab");
    send_text(from, "!", MSG_OOB);
    send_text(from, "cd");
    EXPECT_EQ(received(to, 2), "ab");
    char byte = 0;
    ASSERT_TRUE(turn_until([&, to = to] { return ::recv(to, &byte, 1, MSG_OOB) == 1; }));
    EXPECT_EQ(byte, '!');
    EXPECT_EQ(received(to, 2), "cd");
  }
}

TEST_F(ConnectionRelay, WhatTheProcessHasClosedGoesOnAsClosed) {
  send_text(peer(), "question");
  EXPECT_EQ(received(process(), 8), "question");
  send_text(process(), "bye");
  close_and_move_on();
  EXPECT_EQ(rest_of(peer()), "bye");
  ASSERT_TRUE(turn_until([&] { return !real_.valid(); }));
}

TEST_F(ConnectionRelay, WhatTheProcessHasClosedUnreadIsResetFromThere) {
  send_text(peer(), "never read");
  pollfd readable{process(), POLLIN, 0};
  ASSERT_TRUE(turn_until([&] { return ::poll(&readable, 1, 0) == 1; }));
  close_and_move_on();
  EXPECT_EQ(end_of(peer()), ECONNRESET);
}

TEST_F(ConnectionRelay, AClosedConnectionIsClosedAtEachPlace) {
  place.ends[kLink].reset();
  EXPECT_EQ(end_of(peer()), 0);
  ASSERT_TRUE(turn_until([&] { return !real_.valid(); }));
  close_and_move_on();
  ASSERT_TRUE(turn_until([&] { return place.relay->established(); }));
  close_and_move_on();
  ASSERT_TRUE(turn_until([&] { return place.relay->established(); }));
}

TEST_F(ConnectionRelay, NothingIsDoubledWhenBothEndsHaveCome) {
  ASSERT_EQ(::shutdown(process(), SHUT_WR), 0);
  EXPECT_EQ(rest_of(peer()), "");
  send_text(peer(), "answer");
  ASSERT_EQ(::shutdown(peer(), SHUT_WR), 0);
  home_dies_when_noted_ = home_died_next_ = true;
  turn_or_die();
  EXPECT_EQ(rest_of(process()), "answer");
}

TEST_F(ConnectionRelay, AResetBehindAnEndIsHeard) {
  ASSERT_EQ(::shutdown(peer(), SHUT_WR), 0);
  EXPECT_EQ(rest_of(process()), "");
  linger_none(peer());
  peer_.reset();
  ASSERT_TRUE(turn_until([&] { return ::send(process(), "x", 1, MSG_NOSIGNAL) < 0; }));
  EXPECT_TRUE(place.relay->freeze_state().streams(0).out_gone());
}

TEST_F(ConnectionRelay, EachByteIsToldWhateverTheProcessHadSet) {
  const int many = 100;
  ASSERT_EQ(::setsockopt(real_.get(), SOL_SOCKET, SO_RCVLOWAT, &many, sizeof(many)), 0);
  const int ahead = 3;
  ::setsockopt(real_.get(), SOL_SOCKET, SO_PEEK_OFF, &ahead, sizeof(ahead));  // Linux 6.9
  make_deputy_anew();
  send_text(peer(), "few bytes");
  EXPECT_EQ(received(process(), 9), "few bytes");
}

TEST_F(ConnectionRelay, NobodyAtHomeLingers) {
  const linger long_time{.l_onoff = 1, .l_linger = 600};
  ASSERT_EQ(::setsockopt(real_.get(), SOL_SOCKET, SO_LINGER, &long_time, sizeof(long_time)), 0);
  make_deputy_anew();
  linger now{};
  socklen_t size = sizeof(now);
  ASSERT_EQ(::getsockopt(real_.get(), SOL_SOCKET, SO_LINGER, &now, &size), 0);
  EXPECT_EQ(now.l_onoff, 0);
}

TEST(DataMessage, IsNeverEmptyWhereverAPeerSaysThatTheUrgentByteIs) {
  StreamBuffer buffer;
  buffer.append("abc");
  for (const std::uint64_t urgent : {std::uint64_t{3}, UINT64_MAX - 1, UINT64_MAX}) {
    const wire::RelayMessage message = data_message(1, buffer, 0, 100, urgent);
    EXPECT_EQ(message.data().content(), "abc");
    EXPECT_FALSE(message.data().urgent());
  }
  const wire::RelayMessage message = data_message(1, buffer, 0, 100, 1);
  EXPECT_EQ(message.data().content(), "ab");
  EXPECT_TRUE(message.data().urgent());
}

TEST_F(ConnectionRelay, UnreadBytesGoAlong) {
  send_text(peer(), "one two");
  EXPECT_EQ(received(process(), 4), "one ");
  move_on();
  EXPECT_EQ(received(process(), 3), "two");
}

}  // namespace
}  // namespace migrate::relay_testing
