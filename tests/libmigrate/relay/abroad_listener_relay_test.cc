// Listeners that a process makes while it is away: who connects at home comes to them, and they go
// on with the process.
#include <netinet/in.h>
#include <poll.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "libmigrate/links/stream_ids.h"
#include "libmigrate/links/tcp_listener.h"
#include "tests/libmigrate/relay/cell_world.h"

namespace migrate::relay_testing {
namespace {

class AbroadListenerRelay : public CellWorld {
 protected:
  static constexpr int kBacklog = 5;

  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
    start_deputy(nullptr);
    begin_in_cell();
  }

  void start_deputy(const wire::HomeRelayState* noted) override {
    HomeRelay::Handlers handlers;
    handlers.on_listen = [this](const wire::RelayListening& wanted) -> Result<AcceptedSocket> {
      const SocketName name = *SocketName::from_bytes(wanted.name());
      UniqueFd made(::socket(name.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      if (::bind(made.get(), name.address(), name.size()) != 0 ||
          ::listen(made.get(), static_cast<int>(wanted.backlog())) != 0) {
        return fail(system_error("listen"));
      }
      return had_by_deputy(std::move(made));
    };
    handlers.on_accept = [this](std::uint32_t, std::uint32_t by) -> Result<AcceptedSocket> {
      UniqueFd made(::accept4(static_cast<int>(by), nullptr, nullptr, SOCK_CLOEXEC));
      return made.valid() ? Result<AcceptedSocket>(had_by_deputy(std::move(made)))
                          : fail(system_error("accept"));
    };
    begin_deputy(noted, std::move(handlers));
  }

  UniqueFd listen_inside(std::uint16_t port = 0) {
    UniqueFd made = socket_inside(SOCK_STREAM);
    const SocketName any = SocketName::loopback(port);
    EXPECT_EQ(::bind(made.get(), any.address(), any.size()), 0);
    EXPECT_EQ(::listen(made.get(), kBacklog), 0);
    return made;
  }

  static SocketName name_of(const UniqueFd& socket) { return *SocketName::of(socket.get()); }

  static std::uint64_t inode_of(const UniqueFd& socket) {
    struct stat status {};
    EXPECT_EQ(::fstat(socket.get(), &status), 0);
    return status.st_ino;
  }

  UniqueFd call(const SocketName& name) {
    UniqueFd peer(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    EXPECT_TRUE(turn_until([&] {
      return ::connect(peer.get(), name.address(), name.size()) == 0 || errno == EINPROGRESS ||
             errno == EISCONN;
    }));
    return peer;
  }

  bool is_made() const {
    return home_note_.listeners_size() == 1 && home_note_.listeners(0).deputy_descriptor() != 0;
  }

  // To the next place, where all listeners are in a namespace of their own.
  std::map<std::uint32_t, UniqueFd> move_on(const SocketName& name) {
    const wire::RelayState state = place.relay->freeze_state();
    EXPECT_EQ(state.listeners_size(), 1);
    EXPECT_EQ(state.made_listeners_size(), 1);
    place = Place();
    place.relay = std::move(*GuestRelay::create(state, place_handlers()));
    const TcpListenerNames wanted{name, false, false, kBacklog};
    NetworkParts parts;
    parts.listeners.push_back(
        {state.listeners(0), std::move(make_tcp_listeners({&wanted, 1})->front())});
    auto ends = place.relay->create_endpoints(::getuid(), ::getgid(), {}, std::move(parts));
    std::map<std::uint32_t, UniqueFd> made;
    for (StreamEndpoint& end : *ends) {
      set_nonblocking(end.process_end.get());
      made[end.id] = std::move(end.process_end);
    }
    keep(*place.relay);
    connection = connect(*place.relay);
    place.relay->activate();
    return made;
  }
};

TEST_F(AbroadListenerRelay, WhoConnectsAtHomeComesToIt) {
  UniqueFd listener = listen_inside();
  const SocketName name = name_of(listener);
  ASSERT_TRUE(turn_until([this] { return is_made(); }));
  const UniqueFd peer = call(name);
  UniqueFd link = accept_at(listener);
  EXPECT_EQ(name_of(link), name);
  EXPECT_EQ(*SocketName::of_peer(link.get()), name_of(peer));
  expect_echo(peer, link);
  EXPECT_EQ(place.relay->accepted_stream(inode_of(link)), place.relay->note().streams(0).id());
  EXPECT_EQ(place.relay->accepted_stream(inode_of(listener)), home_note_.listeners(0).id());
  EXPECT_GE(home_note_.listeners(0).id(), kFirstMadeListener);
  link.reset();
  EXPECT_EQ(text_of(peer, 1), "");
  listener.reset();
  EXPECT_TRUE(turn_until([this] { return nothing_left(); }));
  EXPECT_EQ(home_note_.listeners_size(), 0);
  EXPECT_EQ(guest_note_.listeners_size(), 0);
}

TEST_F(AbroadListenerRelay, WhoMakesAnotherOfTheNameHasItAtHome) {
  UniqueFd listener = listen_inside();
  const SocketName name = name_of(listener);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(turn_until([this] { return is_made(); }));
    UniqueFd peer = call(name);
    UniqueFd link = accept_at(listener);
    expect_echo(link, peer);
    const int hard[] = {1, 0};  // struct linger: the name is free at once.
    ASSERT_EQ(::setsockopt(link.get(), SOL_SOCKET, SO_LINGER, hard, sizeof(hard)), 0);
    listener.reset();
    ASSERT_TRUE(turn_until([this] { return home_note_.listeners_size() == 0; }));
    link.reset();
    peer.reset();
    ASSERT_TRUE(turn_until([this] { return nothing_left(); }));
    listener = listen_inside(name.port());
  }
}

TEST_F(AbroadListenerRelay, WhatIsTakenAtHomeIsReachedInTheCell) {
  const UniqueFd other(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::listen(other.get(), 1), 0);
  const UniqueFd listener = listen_inside(name_of(other).port());
  ASSERT_TRUE(turn_until(
      [this] { return home_note_.listeners_size() == 1 && home_note_.listeners(0).error() != 0; }));
  EXPECT_EQ(home_note_.listeners(0).error(), std::uint32_t{EADDRINUSE});
  const SocketName name = name_of(listener);
  const UniqueFd client = socket_inside(SOCK_STREAM);
  EXPECT_NE(::connect(client.get(), name.address(), name.size()), 0);
  const UniqueFd server = accept_at(listener);
  expect_echo(client, server);
}

TEST_F(AbroadListenerRelay, ItGoesOnWithTheProcess) {
  UniqueFd listener = listen_inside();
  const SocketName name = name_of(listener);
  ASSERT_TRUE(turn_until([this] { return is_made(); }));
  const UniqueFd waits = call(name);
  say(waits, "early");
  ASSERT_TRUE(turn_until([this] { return place.relay->note().streams_size() == 1; }));
  turn_times(20);
  auto ends = move_on(name);
  listener = std::move(ends.begin()->second);
  const UniqueFd link = accept_at(listener);
  EXPECT_EQ(text_of(link, 5), "early");
  expect_echo(waits, link);
  guest_dies();
  home_dies();
  const UniqueFd another = call(name);
  expect_echo(another, accept_at(listener));
  listener.reset();
  EXPECT_TRUE(turn_until([this] { return home_note_.listeners_size() == 0; }));
}

// Home has heard nothing of it yet.
TEST_F(AbroadListenerRelay, WhatWasMadeLastGoesOnToo) {
  turn_times(5);
  UniqueFd listener = listen_inside();
  const SocketName name = name_of(listener);
  EXPECT_EQ(place.relay->accepted_stream(inode_of(listener)), kFirstMadeListener);
  auto ends = move_on(name);
  listener = std::move(ends.begin()->second);
  ASSERT_TRUE(turn_until([this] { return is_made(); }));
  const UniqueFd peer = call(name);
  expect_echo(peer, accept_at(listener));
}

TEST_F(AbroadListenerRelay, ItOutlivesWorkers) {
  UniqueFd listener = listen_inside();
  const SocketName name = name_of(listener);
  ASSERT_TRUE(turn_until([this] { return is_made(); }));
  std::vector<std::pair<UniqueFd, UniqueFd>> links;
  for (int i = 0; i < 3; ++i) {
    UniqueFd first = call(name);
    guest_dies();
    UniqueFd first_link = accept_at(listener);
    links.emplace_back(std::move(first), std::move(first_link));
    UniqueFd second = call(name);
    home_dies();
    UniqueFd second_link = accept_at(listener);
    links.emplace_back(std::move(second), std::move(second_link));
    for (const auto& [peer, link] : links) {
      expect_echo(peer, link);
    }
  }
  EXPECT_EQ(home_note_.listeners(0).accepted(), 6U);
  links.clear();
  guest_dies();
  listener.reset();
  EXPECT_TRUE(turn_until([this] { return nothing_left(); }));
}

// The kernel would find the second in place of the first.
TEST_F(AbroadListenerRelay, OneOfAllAddressesTakesThePlaceOfOne) {
  UniqueFd listener = listen_inside();
  const SocketName name = name_of(listener);
  ASSERT_TRUE(turn_until([this] { return is_made(); }));
  listener = socket_inside(SOCK_STREAM);
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_port = htons(name.port());
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&any), sizeof(any)), 0);
  ASSERT_EQ(::listen(listener.get(), kBacklog), 0);
  ASSERT_TRUE(turn_until(
      [&] { return is_made() && home_note_.listeners(0).name() == name_of(listener).to_bytes(); }));
  const UniqueFd peer = call(name);
  expect_echo(peer, accept_at(listener));
}

wire::RelayListening wanted(std::uint32_t id, const std::string& name) {
  wire::RelayListening listening;
  listening.set_listener(id);
  listening.set_name(name);
  return listening;
}

TEST(HomeAcceptor, NotesNothingOfWhichItDoesNotKnow) {
  const std::string unknown = "\xC2\x3E\x05other";  // Field 1000.
  wire::RelayListening listening;
  ASSERT_TRUE(listening.ParseFromString(
      wanted(kFirstMadeListener, SocketName::loopback(80).to_bytes()).SerializeAsString() +
      unknown));
  HomeAcceptor acceptor;
  ASSERT_TRUE(acceptor.want(listening));
  wire::HomeRelayState noted;
  acceptor.note(noted);
  EXPECT_EQ(noted.SerializeAsString().find("other"), std::string::npos);
}

TEST(HomeAcceptor, WhatLacksForAMomentIsTriedAgain) {
  HomeAcceptor acceptor;
  ASSERT_TRUE(acceptor.want(wanted(kFirstMadeListener, SocketName::loopback(80).to_bytes())));
  std::vector<pollfd> polled;
  EXPECT_EQ(acceptor.collect(polled, 0), 0);
  int asked = 0;
  const HomeAcceptor::Listen lacks = [&](const wire::RelayListening&) -> Result<AcceptedSocket> {
    ++asked;
    return fail(make_error(ErrorCode::kRetry, "make a listener"));
  };
  acceptor.make_wanted(lacks);
  acceptor.make_wanted(lacks);
  EXPECT_EQ(asked, 1);
  const int rest_ms = acceptor.collect(polled, 0);
  ASSERT_GT(rest_ms, 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(rest_ms));
  acceptor.make_wanted([](const wire::RelayListening&) -> Result<AcceptedSocket> {
    UniqueFd made(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::listen(made.get(), 1), 0);
    return AcceptedSocket{std::move(made), 7};
  });
  EXPECT_TRUE(acceptor.is_open());
}

TEST(HomeAcceptor, WhatCannotBeHadIsTriedOnceOnEachLink) {
  HomeAcceptor acceptor;
  ASSERT_TRUE(acceptor.want(wanted(kFirstMadeListener, SocketName::loopback(80).to_bytes())));
  int asked = 0;
  const HomeAcceptor::Listen taken = [&](const wire::RelayListening&) -> Result<AcceptedSocket> {
    ++asked;
    return fail(system_error_from(EADDRINUSE, "listen"));
  };
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(acceptor.want(wanted(kFirstMadeListener, SocketName::loopback(80).to_bytes())));
    acceptor.make_wanted(taken);
  }
  EXPECT_EQ(asked, 1);
  EXPECT_FALSE(acceptor.is_open());
  acceptor.try_again();
  acceptor.make_wanted(taken);
  EXPECT_EQ(asked, 2);
}

TEST(HomeAcceptor, TakesNoListenerButOneOfTheProcess) {
  const std::string name = SocketName::loopback(80).to_bytes();
  const std::string local_six =
      SocketName::of_address(std::string("\xFE\x80") + std::string(14, '\1'), 80).to_bytes();
  HomeAcceptor acceptor;
  EXPECT_FALSE(acceptor.want(wanted(5, name)));
  EXPECT_FALSE(acceptor.want(wanted(kFirstOfNoStream, name)));
  EXPECT_FALSE(acceptor.want(wanted(kFirstMadeListener, "")));
  EXPECT_FALSE(acceptor.want(wanted(kFirstMadeListener, SocketName::loopback(0).to_bytes())));
  EXPECT_FALSE(acceptor.want(wanted(kFirstMadeListener, local_six)));
  EXPECT_TRUE(acceptor.want(wanted(kFirstMadeListener, name)));
  EXPECT_TRUE(acceptor.want(wanted(kFirstMadeListener, name)));
  EXPECT_FALSE(acceptor.want(wanted(kFirstMadeListener, SocketName::loopback(81).to_bytes())));
  for (std::uint32_t i = 1; i < kMaxRelayStreams; ++i) {
    ASSERT_TRUE(acceptor.want(wanted(kFirstMadeListener + i, name)));
  }
  EXPECT_FALSE(acceptor.want(wanted(kFirstMadeListener + kMaxRelayStreams, name)));
  EXPECT_FALSE(acceptor.close(kFirstMadeListener));  // It has not been made.
  EXPECT_EQ(acceptor.listeners().size(), std::size_t{kMaxRelayStreams} - 1);
}

}  // namespace
}  // namespace migrate::relay_testing
