// Connections that a process makes while it is away, and datagrams that it sends: what comes of
// them is what would at home.
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/stat.h>

#include <cerrno>
#include <thread>

#include "libmigrate/links/home_network.h"
#include "tests/libmigrate/relay/cell_world.h"

namespace migrate::relay_testing {
namespace {

constexpr std::uint16_t kFarPort = 80;

SocketName far_away() {
  return SocketName::of_address("\xCB\x71\x71\x07", kFarPort);
}

class CallRelay : public CellWorld {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
    start_deputy(nullptr);
    begin_in_cell();
  }

  void start_deputy(const wire::HomeRelayState* noted) override {
    HomeRelay::Handlers handlers;
    handlers.on_call = [this](int type, const SocketName& local, const SocketName* peer) {
      return make_real(type, local, peer);
    };
    begin_deputy(noted, std::move(handlers));
  }

  Result<AcceptedSocket> make_real(int type, const SocketName& local, const SocketName* peer) {
    ++made_;
    if (error_ != 0) {
      return fail(system_error_from(error_, "connect"));
    }
    // As ParkedProcess::make_socket(): the port that the cell has chosen may be taken here.
    UniqueFd made(::socket(local.family(), type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (type == SOCK_STREAM) {
      share_name(made);
    }
    if (::bind(made.get(), local.address(), local.size()) != 0) {
      const SocketName any = SocketName::of_address(local.address_bytes(), 0);
      EXPECT_EQ(::bind(made.get(), any.address(), any.size()), 0);
    }
    if (peer != nullptr && ::connect(made.get(), peer->address(), peer->size()) != 0 &&
        errno != EINPROGRESS) {
      return fail(system_error("connect"));
    }
    return had_by_deputy(std::move(made));
  }

  static void share_name(const UniqueFd& socket) {
    const int yes = 1;
    EXPECT_EQ(::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)), 0);
  }

  // As only who may do so in there can.
  void remove_device() {
    std::thread([&] {
      EXPECT_EQ(::setns(space_.get(), CLONE_NEWNET), 0);
      struct {
        nlmsghdr header;
        ifinfomsg link;
      } request{};
      request.header.nlmsg_len = sizeof(request);
      request.header.nlmsg_type = RTM_DELLINK;
      request.header.nlmsg_flags = NLM_F_REQUEST;
      request.link.ifi_index = static_cast<int>(::if_nametoindex("home0"));
      const UniqueFd netlink(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
      EXPECT_EQ(::send(netlink.get(), &request, sizeof(request), 0), ssize_t(sizeof(request)));
    }).join();
  }

  static UniqueFd socket_here(int type) {
    UniqueFd made(::socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const SocketName any = SocketName::loopback(0);
    EXPECT_EQ(::bind(made.get(), any.address(), any.size()), 0);
    return made;
  }

  static UniqueFd listener_here() {
    UniqueFd made = socket_here(SOCK_STREAM);
    EXPECT_EQ(::listen(made.get(), 100), 0);
    return made;
  }

  static void begin(const UniqueFd& socket, const SocketName& peer) {
    EXPECT_NE(::connect(socket.get(), peer.address(), peer.size()), 0);
    EXPECT_EQ(errno, EINPROGRESS);
  }

  // SO_ERROR, once there is something to be told.
  int outcome(const UniqueFd& socket) {
    pollfd polled{socket.get(), POLLOUT, 0};
    EXPECT_TRUE(turn_until([&] { return ::poll(&polled, 1, 0) > 0; }));
    int error = 0;
    socklen_t size = sizeof(error);
    EXPECT_EQ(::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size), 0);
    return error;
  }

  struct Datagram {
    std::string content;
    SocketName from;
  };
  Datagram received(const UniqueFd& socket) {
    std::string room(1000, '\0');
    sockaddr_in from{};
    socklen_t size = sizeof(from);
    ssize_t got = -1;
    EXPECT_TRUE(turn_until([&] {
      got = ::recvfrom(socket.get(), room.data(), room.size(), MSG_DONTWAIT,
                       reinterpret_cast<sockaddr*>(&from), &size);
      return got >= 0;
    }));
    room.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    return {room, SocketName::from_bytes({reinterpret_cast<const char*>(&from), size})
                      .value_or(SocketName())};
  }
  // Sends one, and gives what has come at the other end.
  Datagram exchange(const UniqueFd& by, const SocketName& to, const UniqueFd& at) {
    EXPECT_EQ(::sendto(by.get(), "text", 4, 0, to.address(), to.size()), 4);
    Datagram datagram = received(at);
    EXPECT_EQ(datagram.content, "text");
    return datagram;
  }

  int error_ = 0;
  int made_ = 0;
};

TEST_F(CallRelay, WhoIsCalledAtHomeAnswers) {
  const UniqueFd listener = listener_here();
  UniqueFd client = socket_inside(SOCK_STREAM);
  begin(client, *SocketName::of(listener.get()));
  const UniqueFd server = accept_at(listener);
  EXPECT_EQ(outcome(client), 0);
  EXPECT_EQ(*SocketName::of(client.get()), *SocketName::of_peer(server.get()));
  EXPECT_EQ(*SocketName::of_peer(client.get()), *SocketName::of(server.get()));
  expect_echo(client, server);
  struct stat status {};
  ASSERT_EQ(::fstat(client.get(), &status), 0);
  EXPECT_TRUE(place.relay->accepted_stream(status.st_ino));
  client.reset();
  EXPECT_EQ(text_of(server, 1), "");
  EXPECT_TRUE(turn_until([this] { return nothing_left(); }));
}

TEST_F(CallRelay, WhoWritesFirstIsHeard) {
  const UniqueFd listener = listener_here();
  const UniqueFd client = socket_inside(SOCK_STREAM);
  begin(client, *SocketName::of(listener.get()));
  UniqueFd server = accept_at(listener);
  say(server, "greeting");
  EXPECT_EQ(text_of(client, 8), "greeting");
  server.reset();
  EXPECT_EQ(text_of(client, 1), "");
}

TEST_F(CallRelay, NobodyListens) {
  const UniqueFd taken = socket_here(SOCK_STREAM);
  const UniqueFd client = socket_inside(SOCK_STREAM);
  begin(client, *SocketName::of(taken.get()));
  EXPECT_EQ(outcome(client), ECONNREFUSED);
  EXPECT_TRUE(turn_until([this] { return nothing_left(); }));
}

TEST_F(CallRelay, NobodyIsReached) {
  for (const int error : {ENETUNREACH, EHOSTUNREACH}) {
    error_ = error;
    const UniqueFd client = socket_inside(SOCK_STREAM);
    begin(client, far_away());
    EXPECT_EQ(outcome(client), error);
  }
}

TEST_F(CallRelay, WhoCannotBeCalledNowIsCalledAgain) {
  const UniqueFd listener = listener_here();
  error_ = EAGAIN;
  const UniqueFd client = socket_inside(SOCK_STREAM);
  begin(client, *SocketName::of(listener.get()));
  ASSERT_TRUE(turn_until([this] { return made_ > 0; }));
  error_ = 0;
  EXPECT_EQ(outcome(client), 0);
}

TEST_F(CallRelay, WhoseNameHasThatPeerAtHomeCallsByAnother) {
  const UniqueFd listener = listener_here();
  const SocketName peer = *SocketName::of(listener.get());
  const UniqueFd other = socket_here(SOCK_STREAM);
  share_name(other);
  begin(other, peer);
  const UniqueFd others = accept_at(listener);
  const SocketName name = *SocketName::of(other.get());
  const UniqueFd client = socket_inside(SOCK_STREAM);
  ASSERT_EQ(::bind(client.get(), name.address(), name.size()), 0);
  begin(client, peer);
  EXPECT_EQ(outcome(client), 0);
  const UniqueFd server = accept_at(listener);
  EXPECT_EQ(SocketName::of_peer(server.get())->address_bytes(), name.address_bytes());
  EXPECT_EQ(*SocketName::of(client.get()), name);
  expect_echo(client, server);
}

TEST_F(CallRelay, ADeviceThatIsRemovedIsToldOnce) {
  remove_device();
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  turn_times(20);
  const std::string said =
      testing::internal::GetCapturedStdout() + testing::internal::GetCapturedStderr();
  const std::size_t first = said.find("the gateway of a cell");
  EXPECT_NE(first, std::string::npos);
  EXPECT_EQ(said.find("the gateway of a cell", first + 1), std::string::npos) << said;
}

TEST_F(CallRelay, ACallThatIsGivenUpIsOver) {
  const UniqueFd full = socket_here(SOCK_STREAM);
  ASSERT_EQ(::listen(full.get(), 0), 0);
  const SocketName name = *SocketName::of(full.get());
  const UniqueFd filler(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::connect(filler.get(), name.address(), name.size()), 0);
  UniqueFd client = socket_inside(SOCK_STREAM);
  begin(client, name);
  ASSERT_TRUE(turn_until([this] { return deputys_.size() == 1; }));
  turn_times(20);
  client.reset();
  EXPECT_TRUE(turn_until([this] { return nothing_left(); }));
}

TEST_F(CallRelay, ManyAtOnce) {
  constexpr std::size_t kMany = 60;
  const UniqueFd listener = listener_here();
  std::vector<UniqueFd> clients;
  for (std::size_t i = 0; i < kMany; ++i) {
    clients.push_back(socket_inside(SOCK_STREAM));
    begin(clients.back(), *SocketName::of(listener.get()));
  }
  for (const UniqueFd& client : clients) {
    EXPECT_EQ(outcome(client), 0);
    say(client, "x");
  }
  for (std::size_t i = 0; i < kMany; ++i) {
    const UniqueFd server = accept_at(listener);
    EXPECT_EQ(text_of(server, 1), "x");
  }
  clients.clear();
  EXPECT_TRUE(turn_until([this] { return nothing_left(); }));
}

TEST_F(CallRelay, WhoListensInTheCellIsCalledThere) {
  const UniqueFd listener = socket_inside(SOCK_STREAM);
  const SocketName any = SocketName::loopback(0);
  ASSERT_EQ(::bind(listener.get(), any.address(), any.size()), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  const UniqueFd client = socket_inside(SOCK_STREAM);
  begin(client, *SocketName::of(listener.get()));
  const UniqueFd server = accept_at(listener);
  EXPECT_EQ(outcome(client), 0);
  expect_echo(client, server);
  EXPECT_EQ(made_, 0);
}

TEST_F(CallRelay, ManyBytesGoBothWays) {
  constexpr std::uint64_t kMany = 3U << 20U;
  const UniqueFd listener = listener_here();
  const UniqueFd client = socket_inside(SOCK_STREAM);
  begin(client, *SocketName::of(listener.get()));
  const UniqueFd server = accept_at(listener);
  EXPECT_EQ(outcome(client), 0);
  Actor one;
  Actor other;
  EXPECT_TRUE(turn_until([&] {
    one.write_some(client.get(), kMany, 60000);
    other.write_some(server.get(), kMany, 60000);
    one.read_some(client.get(), 60000);
    other.read_some(server.get(), 60000);
    return one.read == kMany && other.read == kMany;
  }));
}

TEST_F(CallRelay, ConnectionsOutliveWorkers) {
  const UniqueFd listener = listener_here();
  UniqueFd client = socket_inside(SOCK_STREAM);
  begin(client, *SocketName::of(listener.get()));
  const UniqueFd server = accept_at(listener);
  EXPECT_EQ(outcome(client), 0);
  for (int i = 0; i < 3; ++i) {
    expect_echo(client, server);
    say(client, "before");
    guest_dies();
    EXPECT_EQ(text_of(server, 6), "before");
    say(server, "behind");
    home_dies();
    EXPECT_EQ(text_of(client, 6), "behind");
  }
  client.reset();
  EXPECT_EQ(text_of(server, 1), "");
  EXPECT_TRUE(turn_until([this] { return nothing_left(); }));
}

TEST_F(CallRelay, AWorkerDiesBeforeItHasAnswered) {
  const UniqueFd listener = listener_here();
  const UniqueFd client = socket_inside(SOCK_STREAM);
  begin(client, *SocketName::of(listener.get()));
  EXPECT_TRUE(turn_until([this] { return deputy_relay->note().streams_size() == 1; }));
  guest_dies();
  EXPECT_EQ(outcome(client), 0);
  say(client, "x");
  EXPECT_TRUE(turn_until([&] {  // Of two that came, one has been left.
    const UniqueFd server(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    return server.valid() && text_of(server, 1) == "x";
  }));
}

TEST_F(CallRelay, WhatWasWrittenGoesWithTheProcess) {
  const UniqueFd listener = listener_here();
  const UniqueFd client = socket_inside(SOCK_STREAM);
  begin(client, *SocketName::of(listener.get()));
  const UniqueFd server = accept_at(listener);
  EXPECT_EQ(outcome(client), 0);
  const std::string much(300'000, 'm');
  say(client, much.substr(0, 200'000));
  const wire::RelayState state = place.relay->freeze_state();
  ASSERT_EQ(state.streams_size(), 1);
  EXPECT_FALSE(state.streams(0).connection().reset());
  EXPECT_EQ(state.streams(0).out_first() + state.streams(0).out_unacked().size(), 200'000U);
  place.relay->thaw();
  EXPECT_EQ(text_of(server, 200'000), much.substr(0, 200'000));
}

TEST_F(CallRelay, DatagramsGoAndCome) {
  const UniqueFd server = socket_here(SOCK_DGRAM);
  const SocketName name = *SocketName::of(server.get());
  const UniqueFd client = socket_inside(SOCK_DGRAM);
  for (const std::string& text :
       {std::string("question"), std::string(40'000, 'q'), std::string()}) {
    ASSERT_EQ(::sendto(client.get(), text.data(), text.size(), 0, name.address(), name.size()),
              ssize_t(text.size()));
    std::string room(50'000, '\0');
    sockaddr_in from{};
    socklen_t size = sizeof(from);
    ssize_t got = -1;
    ASSERT_TRUE(turn_until([&] {
      got = ::recvfrom(server.get(), room.data(), room.size(), 0,
                       reinterpret_cast<sockaddr*>(&from), &size);
      return got >= 0;
    }));
    EXPECT_EQ(room.substr(0, static_cast<std::size_t>(got)), text);
    ASSERT_EQ(::sendto(server.get(), "answer", 6, 0, reinterpret_cast<sockaddr*>(&from), size), 6);
    ASSERT_TRUE(turn_until([&] {
      got = ::recvfrom(client.get(), room.data(), room.size(), 0,
                       reinterpret_cast<sockaddr*>(&from), &size);
      return got >= 0;
    }));
    EXPECT_EQ(room.substr(0, static_cast<std::size_t>(got)), "answer");
    EXPECT_EQ(*SocketName::from_bytes({reinterpret_cast<const char*>(&from), size}), name);
  }
}

// Who waits for others has not sent anything.
TEST_F(CallRelay, WhoHasANameIsWrittenTo) {
  const UniqueFd server = socket_inside(SOCK_DGRAM);
  const SocketName any = SocketName::none_of(AF_INET);
  ASSERT_EQ(::bind(server.get(), any.address(), any.size()), 0);
  const std::uint16_t port = SocketName::of(server.get())->port();
  ASSERT_TRUE(turn_until([&] { return made_ == 1; }));
  const UniqueFd client = socket_here(SOCK_DGRAM);
  const SocketName name = SocketName::loopback(port);
  const Datagram asked = exchange(client, name, server);
  EXPECT_EQ(asked.from, *SocketName::of(client.get()));
  EXPECT_EQ(exchange(server, asked.from, client).from, name);
  EXPECT_EQ(made_, 1);
}

TEST_F(CallRelay, ASocketOfBeforeIsUsedAndWhatWaitsInItComes) {
  UniqueFd real = socket_here(SOCK_DGRAM);
  const SocketName name = *SocketName::of(real.get());
  const UniqueFd client = socket_here(SOCK_DGRAM);
  ASSERT_EQ(::sendto(client.get(), "early", 5, 0, name.address(), name.size()), 5);
  const int held = ::dup(real.get());
  deputys_.insert(held);
  std::vector<KeptDatagrams> kept(1);
  kept[0] = {name, std::move(real), {static_cast<std::uint32_t>(held)}};
  deputy_relay->keep(std::move(kept));
  UniqueFd inside = socket_inside(SOCK_DGRAM);
  ASSERT_EQ(::bind(inside.get(), name.address(), name.size()), 0);
  EXPECT_EQ(received(inside).content, "early");
  EXPECT_EQ(exchange(inside, *SocketName::of(client.get()), client).from, name);
  EXPECT_EQ(exchange(client, name, inside).from, *SocketName::of(client.get()));
  EXPECT_EQ(made_, 0);
  inside.reset();
  EXPECT_TRUE(turn_until([&] { return deputys_.empty(); }));
}

TEST_F(CallRelay, ADatagramIsRefused) {
  SocketName name;
  {
    const UniqueFd gone = socket_here(SOCK_DGRAM);
    name = *SocketName::of(gone.get());
  }
  const UniqueFd client = socket_inside(SOCK_DGRAM);
  ASSERT_EQ(::connect(client.get(), name.address(), name.size()), 0);
  say(client, "x");
  char byte = 0;
  ASSERT_TRUE(
      turn_until([&] { return ::recv(client.get(), &byte, 1, 0) < 0 && errno == ECONNREFUSED; }));
}

}  // namespace
}  // namespace migrate::relay_testing
