#pragma once

#include <sched.h>

#include <future>
#include <set>
#include <stdexcept>
#include <thread>

#include "tests/libmigrate/relay/relay_world.h"

namespace migrate::relay_testing {

struct WorkerDied : std::runtime_error {
  WorkerDied() : std::runtime_error("a worker has died") {}
};

/// As RelayWorld, where the process has a network of its own, and workers die. We are the deputy.
class CellWorld : public RelayWorld {
 protected:
  /// Begins a home, as `noted` by one before.
  virtual void start_deputy(const wire::HomeRelayState* noted) = 0;

  void begin_in_cell() {
    place.relay = std::move(*GuestRelay::create(make_relay_state({}), place_handlers()));
    ASSERT_TRUE(place.relay->create_endpoints(::getuid(), ::getgid()));
    make_cell();
    keep(*place.relay);
    connection = connect(*place.relay);
    place.relay->activate();
  }

  // A network namespace that is set up as this one.
  void make_cell() {
    std::promise<pid_t> entered;
    std::promise<void> over;
    std::thread cell([&] {
      const int done = ::unshare(CLONE_NEWNET);
      entered.set_value(done == 0 ? ::gettid() : 0);
      over.get_future().wait();
    });
    const pid_t thread = entered.get_future().get();
    space_.reset(::open(("/proc/" + std::to_string(thread) + "/ns/net").c_str(), O_RDONLY));
    wire::HomeNetwork network;
    add(network, SocketName::loopback(0), 8, false);
    add(network, SocketName::of_address("\x0A\x09\x08\x07", 0), 24, true);
    add(network, SocketName::of_address("\x0A\x09\x08\x07", 0), 24, true);  // On two interfaces.
    auto gateway = Gateway::create(thread, network);
    over.set_value();
    cell.join();
    ASSERT_TRUE(gateway) << gateway.error().message();
    place.relay->set_gateway(std::move(*gateway));
  }

  static void add(wire::HomeNetwork& network, const SocketName& name, unsigned prefix,
                  bool is_usual) {
    wire::HomeNetwork::Address& address = *network.add_addresses();
    address.set_name(name.to_bytes());
    address.set_prefix(prefix);
    address.set_is_usual(is_usual);
  }

  static UniqueFd descriptor(std::uint32_t of_deputy) {
    return UniqueFd(of_deputy == 0 ? -1 : ::dup(static_cast<int>(of_deputy)));
  }

  // For start_deputy().
  void begin_deputy(const wire::HomeRelayState* noted, HomeRelay::Handlers handlers) {
    const wire::HomeRelayState nothing;
    std::vector<HomeRelay::Stream> streams;
    for (const auto& stream : (noted == nullptr ? nothing : *noted).streams()) {
      streams.push_back({stream.id(), descriptor(stream.deputy_descriptor()), wire::RELAY_BOTH,
                         std::nullopt, ConnectionEnd::Start{}});
    }
    for (const auto& listener : (noted == nullptr ? nothing : *noted).listeners()) {
      if (listener.deputy_descriptor() != 0) {
        streams.push_back({listener.id(), descriptor(listener.deputy_descriptor()),
                           wire::RELAY_BOTH, std::nullopt, std::nullopt, true});
      }
    }
    handlers.on_accepted_closed = [this](std::uint32_t descriptor) {
      EXPECT_EQ(deputys_.erase(static_cast<int>(descriptor)), 1U);
      ::close(static_cast<int>(descriptor));
    };
    handlers.on_change = [this] {
      home_note_ = deputy_relay->note();
      if (std::exchange(home_dies_, false)) {
        throw WorkerDied();
      }
    };
    deputy_relay = std::make_unique<HomeRelay>(std::move(streams), 0, std::move(handlers));
    if (noted != nullptr) {
      deputy_relay->adopt(*noted);
    }
    home_note_ = deputy_relay->note();
  }

  // What the deputy has made.
  AcceptedSocket had_by_deputy(UniqueFd made) {
    const int fd = made.release();
    deputys_.insert(fd);
    return {UniqueFd(::dup(fd)), static_cast<std::uint32_t>(fd)};
  }

  GuestRelay::Handlers place_handlers() {
    GuestRelay::Handlers handlers;
    handlers.on_change = [this] {
      if (place.relay) {
        keep(*place.relay);
      }
      if (std::exchange(guest_dies_, false)) {
        throw WorkerDied();
      }
    };
    return handlers;
  }

  void keep(const GuestRelay& relay) {
    guest_note_ = relay.note();
    kept_.clear();
    for (const RelayEnd& end : relay.ends()) {
      kept_.push_back({end.id, end.kind, UniqueFd(::dup(end.fd))});
    }
  }

  UniqueFd socket_inside(int type, int family = AF_INET) {
    UniqueFd made;
    std::thread([&] {
      EXPECT_EQ(::setns(space_.get(), CLONE_NEWNET), 0);
      made.reset(::socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    }).join();
    EXPECT_TRUE(made.valid());
    return made;
  }

  UniqueFd accept_at(const UniqueFd& listener) {
    UniqueFd made;
    EXPECT_TRUE(turn_until([&] {
      made.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      return made.valid();
    }));
    return made;
  }

  std::string text_of(const UniqueFd& socket, std::size_t size) {
    std::string text;
    EXPECT_TRUE(turn_until([&] {
      std::string part(size - text.size(), '\0');
      const ssize_t got = ::read(socket.get(), part.data(), part.size());
      text.append(part, 0, static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
      return got == 0 || text.size() == size;
    }));
    return text;
  }

  static void say(const UniqueFd& socket, std::string_view text) {
    EXPECT_EQ(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL), ssize_t(text.size()));
  }

  void expect_echo(const UniqueFd& client, const UniqueFd& server) {
    say(client, "question");
    EXPECT_EQ(text_of(server, 8), "question");
    say(server, "answer");
    EXPECT_EQ(text_of(client, 6), "answer");
  }

  void guest_dies() {
    guest_dies_ = true;
    EXPECT_THROW(turn_times(2), WorkerDied);
    place.relay.reset();
    place.relay =
        std::move(*GuestRelay::adopt(guest_note_, std::exchange(kept_, {}), place_handlers()));
    keep(*place.relay);
    connection = connect(*place.relay);
  }

  void home_dies() {
    home_dies_ = true;
    EXPECT_THROW(turn_times(2), WorkerDied);
    const wire::HomeRelayState noted = home_note_;
    deputy_relay.reset();
    start_deputy(&noted);
    connection = connect(*place.relay);
  }

  bool nothing_left() const {
    return deputy_relay->note().streams_size() == 0 && place.relay->note().streams_size() == 0 &&
           deputys_.empty();
  }

  UniqueFd space_;
  std::set<int> deputys_;
  wire::HomeRelayState home_note_;
  wire::GuestRelayState guest_note_;
  std::vector<GuestRelay::Adopted> kept_;
  bool home_dies_ = false;
  bool guest_dies_ = false;
};

}  // namespace migrate::relay_testing
