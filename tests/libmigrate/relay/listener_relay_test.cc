// Listeners of TCP: who connects at home comes to the process, wherever that is, and nothing is
// left of connections that are over.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/stat.h>

#include <cerrno>
#include <random>
#include <set>
#include <stdexcept>

#include "libmigrate/links/tcp_listener.h"
#include "tests/libmigrate/relay/relay_world.h"

namespace migrate::relay_testing {
namespace {

struct Killed : std::runtime_error {
  Killed() : std::runtime_error("a worker has died") {}
};

class ListenerRelay : public RelayWorld {
 protected:
  static constexpr std::uint32_t kListener = 4;
  static constexpr int kBacklog = 3;

  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
    listener_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const SocketName any = SocketName::loopback(0);
    ASSERT_EQ(::bind(listener_.get(), any.address(), any.size()), 0);
    ASSERT_EQ(::listen(listener_.get(), kBacklog), 0);
    name_ = *SocketName::of(listener_.get());
    start_deputy(nullptr);
    RelayStreamSpec spec{kListener, wire::RELAY_BOTH};
    spec.is_listener = true;
    begin_place(make_relay_state({&spec, 1}));
  }

  void start_deputy(const wire::HomeRelayState* noted) {
    std::vector<HomeRelay::Stream> streams;
    HomeRelay::Stream listener;
    listener.id = kListener;
    listener.real.reset(::fcntl(listener_.get(), F_DUPFD_CLOEXEC, 0));
    listener.directions = wire::RELAY_BOTH;
    listener.is_listener = true;
    streams.push_back(std::move(listener));
    const wire::HomeRelayState nothing;
    for (const auto& stream : (noted == nullptr ? nothing : *noted).streams()) {
      HomeRelay::Stream accepted;
      accepted.id = stream.id();
      accepted.real.reset(stream.deputy_descriptor() == 0
                              ? -1
                              : ::dup(static_cast<int>(stream.deputy_descriptor())));
      accepted.directions = wire::RELAY_BOTH;
      accepted.connection = ConnectionEnd::Start{};
      streams.push_back(std::move(accepted));
    }
    HomeRelay::Handlers handlers;
    handlers.on_accept = [this](std::uint32_t id, std::uint32_t) -> Result<AcceptedSocket> {
      EXPECT_EQ(id, kListener);
      const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      EXPECT_GE(fd, 0);
      deputys_.insert(fd);
      return AcceptedSocket{UniqueFd(::dup(fd)), static_cast<std::uint32_t>(fd)};
    };
    handlers.on_accepted_closed = [this](std::uint32_t descriptor) {
      EXPECT_EQ(deputys_.erase(static_cast<int>(descriptor)), 1U);
      ::close(static_cast<int>(descriptor));
    };
    handlers.on_stream_closed = [this](std::uint32_t id, wire::RelayDirection) {
      closed.push_back(id);
    };
    handlers.on_change = [this] {
      home_note_ = deputy_relay->note();
      if (std::exchange(home_dies_, false)) {
        throw Killed();
      }
    };
    deputy_relay = std::make_unique<HomeRelay>(std::move(streams), 0, std::move(handlers));
    if (noted != nullptr) {
      deputy_relay->adopt(*noted);
    }
    home_note_ = deputy_relay->note();
  }

  GuestRelay::Handlers place_handlers() {
    GuestRelay::Handlers handlers;
    handlers.on_change = [this] {
      if (std::exchange(guest_dies_unnoted_, false)) {
        throw Killed();
      }
      if (place.relay) {
        keep(*place.relay);
      }
      if (std::exchange(guest_dies_, false)) {
        throw Killed();
      }
    };
    return handlers;
  }

  // What the session's file and the cell's init have of it.
  void keep(const GuestRelay& relay) {
    guest_note_ = relay.note();
    kept_.clear();
    for (const RelayEnd& end : relay.ends()) {
      kept_.push_back({end.id, end.kind, UniqueFd(::dup(end.fd))});
    }
  }

  void begin_place(const wire::RelayState& state) {
    place.relay = std::move(*GuestRelay::create(state, place_handlers()));
    const TcpListenerNames names{name_, false, false, kBacklog};
    NetworkParts parts;
    if (state.listeners_size() > 0) {
      parts.listeners.push_back({kListener, std::move(make_tcp_listeners({&names, 1})->front())});
    }
    auto ends = place.relay->create_endpoints(::getuid(), ::getgid(), {}, std::move(parts));
    ASSERT_TRUE(ends) << ends.error().message();
    for (StreamEndpoint& end : *ends) {
      place.ends[end.id] = std::move(end.process_end);
    }
    keep(*place.relay);
    connection = connect(*place.relay);
    place.relay->activate();
  }

  void move_on() {
    const wire::RelayState state = place.relay->freeze_state();
    place = Place();
    begin_place(state);
  }

  void turn_or_die() {
    try {
      turn(nullptr, 0);
      return;
    } catch (const Killed&) {
    }
    if (home_died_) {
      const wire::HomeRelayState noted = home_note_;
      deputy_relay.reset();
      start_deputy(&noted);
    } else {
      place.relay.reset();
      place.relay =
          std::move(*GuestRelay::adopt(guest_note_, std::exchange(kept_, {}), place_handlers()));
      keep(*place.relay);
    }
    connection = connect(*place.relay);
  }

  UniqueFd call() {
    UniqueFd peer(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    EXPECT_TRUE(::connect(peer.get(), name_.address(), name_.size()) == 0 || errno == EINPROGRESS);
    return peer;
  }

  UniqueFd accept_now() {
    return UniqueFd(
        ::accept4(place.ends.at(kListener).get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  }

  UniqueFd accept_one() {
    UniqueFd made;
    set_nonblocking(place.ends.at(kListener).get());
    EXPECT_TRUE(turn_until([&] {
      made = accept_now();
      return made.valid();
    }));
    return made;
  }

  std::string line_of(int fd) {
    std::string text;
    EXPECT_TRUE(turn_until([&] {
      char byte = 0;
      const ssize_t got = ::read(fd, &byte, 1);
      text.append(&byte, got == 1 ? 1 : 0);
      return got == 0 || (got == 1 && byte == '\n');
    }));
    return text;
  }

  static void say(int fd, std::string_view text) {
    EXPECT_EQ(::send(fd, text.data(), text.size(), MSG_NOSIGNAL), ssize_t(text.size()));
  }

  bool nothing_left() const {
    return deputy_relay->note().streams_size() == 0 && place.relay->note().streams_size() == 0 &&
           deputys_.empty();
  }

  SocketName name_;
  UniqueFd listener_;
  std::set<int> deputys_;
  wire::HomeRelayState home_note_;
  wire::GuestRelayState guest_note_;
  bool home_dies_ = false;
  std::vector<GuestRelay::Adopted> kept_;
  bool guest_dies_ = false;
  bool guest_dies_unnoted_ = false;
  bool home_died_ = false;
};

TEST_F(ListenerRelay, WhoConnectsComesToTheProcess) {
  const UniqueFd peer = call();
  UniqueFd link = accept_one();
  EXPECT_EQ(*SocketName::of(link.get()), *SocketName::of_peer(peer.get()));
  EXPECT_EQ(*SocketName::of_peer(link.get()), *SocketName::of(peer.get()));
  say(peer.get(), "question\n");
  EXPECT_EQ(line_of(link.get()), "question\n");
  say(link.get(), "answer\n");
  EXPECT_EQ(line_of(peer.get()), "answer\n");
  link.reset();
  EXPECT_EQ(line_of(peer.get()), "");
  EXPECT_TRUE(turn_until([this] { return nothing_left(); }));
}

TEST_F(ListenerRelay, WhoWaitsGoesOnWithTheProcess) {
  const UniqueFd peer = call();
  say(peer.get(), "early\n");
  ASSERT_TRUE(turn_until([this] { return place.relay->note().streams_size() == 1; }));
  turn_times(20);
  move_on();
  UniqueFd link = accept_one();
  EXPECT_EQ(line_of(link.get()), "early\n");
  const UniqueFd another = call();
  const UniqueFd second = accept_one();
  say(second.get(), "x\n");
  EXPECT_EQ(line_of(another.get()), "x\n");
}

TEST_F(ListenerRelay, WhatWasAcceptedIsKnownByItsSocket) {
  const UniqueFd peer = call();
  const UniqueFd link = accept_one();
  struct stat status {};
  ASSERT_EQ(::fstat(link.get(), &status), 0);
  const auto stream = place.relay->accepted_stream(status.st_ino);
  ASSERT_TRUE(stream);
  EXPECT_EQ(*stream, place.relay->note().streams(0).id());
  EXPECT_FALSE(place.relay->accepted_stream(1));
}

TEST_F(ListenerRelay, NoMoreComeThanTheBacklogLets) {
  std::vector<UniqueFd> peers;
  for (int i = 0; i < kBacklog + 1; ++i) {
    peers.push_back(call());
  }
  ASSERT_TRUE(turn_until([this] { return deputys_.size() == kBacklog; }));
  turn_times(30);
  EXPECT_EQ(deputys_.size(), std::size_t{kBacklog});
  const UniqueFd link = accept_one();
  EXPECT_TRUE(turn_until([this] { return deputys_.size() == kBacklog + 1; }));
}

TEST_F(ListenerRelay, WhatWaitsIsResetWithTheListener) {
  const UniqueFd peer = call();
  ASSERT_TRUE(turn_until([this] { return place.relay->note().streams_size() == 1; }));
  turn_times(20);
  place.ends.clear();
  ASSERT_TRUE(turn_until([this] { return !closed.empty(); }));
  EXPECT_EQ(closed.front(), kListener);
  char byte = 0;
  EXPECT_TRUE(turn_until([&] { return ::read(peer.get(), &byte, 1) < 0 && errno == ECONNRESET; }));
  EXPECT_TRUE(turn_until([this] { return nothing_left(); }));
}

TEST_F(ListenerRelay, NoneIsLostWhoeverDies) {
  constexpr std::size_t kCalls = 150;
  std::mt19937 random{5};  // NOLINT(cert-msc51-cpp): the same each time
  std::vector<UniqueFd> peers;
  std::vector<int> asks;
  std::vector<std::pair<UniqueFd, std::string>> links;  // And what came by them.
  std::size_t answered = 0;
  set_nonblocking(place.ends.at(kListener).get());
  for (int turns = 0; answered < kCalls; ++turns) {
    ASSERT_LT(turns, 1'000'000);
    ASSERT_FALSE(HasFailure());
    if (peers.size() < kCalls && random() % 3 == 0 && peers.size() < answered + 5) {
      peers.push_back(call());
      asks.push_back(peers.back().get());
    }
    std::erase_if(asks, [](int peer) { return ::send(peer, "ask\n", 4, MSG_NOSIGNAL) == 4; });
    if (UniqueFd link = accept_now(); link.valid()) {
      links.emplace_back(std::move(link), std::string());
    }
    for (auto& [link, question] : links) {
      char text[16];
      const ssize_t got = ::recv(link.get(), text, sizeof(text), MSG_DONTWAIT);
      question.append(text, static_cast<std::size_t>(std::max(got, ssize_t{0})));
      ASSERT_LE(question.size(), 4U) << question;
      if (got > 0 && question == "ask\n") {
        say(link.get(), "hello\n");
        ::shutdown(link.get(), SHUT_WR);
      }
    }
    if (answered < peers.size()) {
      char text[16];
      const ssize_t got =
          ::recv(peers[answered].get(), text, sizeof(text), MSG_PEEK | MSG_DONTWAIT);
      ASSERT_TRUE(got > 0 || (got < 0 && (errno == EAGAIN || errno == ENOTCONN)))
          << answered << " " << got << " " << errno;
      if (got == 6) {
        peers[answered++].reset();
      }
    }
    if (turns % 11 == 5) {
      home_died_ = random() % 2 == 0;
      bool& guest_dies = random() % 2 == 0 ? guest_dies_ : guest_dies_unnoted_;
      (home_died_ ? home_dies_ : guest_dies) = true;
    }
    turn_or_die();
  }
  EXPECT_EQ(links.size(), kCalls);
  links.clear();
  home_dies_ = guest_dies_ = guest_dies_unnoted_ = false;
  EXPECT_TRUE(turn_until([this] { return nothing_left(); }));
}

}  // namespace
}  // namespace migrate::relay_testing
