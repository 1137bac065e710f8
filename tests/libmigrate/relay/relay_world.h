#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "libmigrate/relay/guest_relay.h"
#include "libmigrate/relay/home_relay.h"
#include "tests/libmigrate/relay/cuttable_channel.h"
#include "tests/libmigrate/relay/relay_actor.h"
#include "transport/memory_channel.h"

namespace migrate::relay_testing {

/// A moved process's place: its relay, and the process's ends by stream.
struct Place {
  std::unique_ptr<GuestRelay> relay;
  std::map<std::uint32_t, UniqueFd> ends;
};

/// A home with a deputy relay, and places that come and go, all driven by one thread.
class RelayWorld : public ::testing::Test {
 protected:
  /// Long, as the machine may be busy with much else.
  static constexpr std::chrono::seconds kPatience{80};
  static constexpr std::uint32_t kIn = 0;
  static constexpr std::uint32_t kOut = 1;
  static constexpr std::uint32_t kBoth = 2;

  void start_home(std::vector<HomeRelay::Stream> streams, pid_t deputy = 0) {
    specs.clear();
    for (const HomeRelay::Stream& stream : streams) {
      specs.push_back({stream.id, stream.directions});
    }
    HomeRelay::Handlers handlers;
    handlers.on_exit = [this](const wire::RelayExited& exited) {
      exits.push_back(exited.wait_status());
    };
    handlers.on_stopped = [this](int signal) { jobs.push_back(signal); };
    handlers.on_continued = [this] { jobs.push_back(0); };
    handlers.on_located = [this](const std::string& host, const std::string&) {
      hosts.push_back(host);
    };
    handlers.on_stream_closed = [this](std::uint32_t id, wire::RelayDirection direction) {
      closed.push_back(id * 10 + direction);
    };
    deputy_relay = std::make_unique<HomeRelay>(std::move(streams), deputy, std::move(handlers));
  }

  /// stdin, stdout, and a socket in both directions.
  void start_usual_home() {
    auto [in_read, in_write] = make_pipe();
    auto [out_read, out_write] = make_pipe();
    std::array<int, 2> ends{};
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    home_in = std::move(in_write);
    home_out = std::move(out_read);
    home_both.reset(ends[0]);
    for (const UniqueFd* fd : {&home_in, &home_out, &home_both}) {
      set_nonblocking(fd->get());
    }
    std::vector<HomeRelay::Stream> streams;
    streams.push_back({kIn, std::move(in_read), wire::RELAY_IN});
    streams.push_back({kOut, std::move(out_write), wire::RELAY_OUT});
    streams.push_back({kBoth, UniqueFd(ends[1]), wire::RELAY_BOTH});
    start_home(std::move(streams));
  }

  Place make_place(const wire::RelayState& state) {
    Place made;
    GuestRelay::Handlers handlers;
    handlers.on_signal = [this](std::span<const std::byte> siginfo) {
      std::uint64_t number = 0;
      std::memcpy(&number, siginfo.data(), sizeof number);
      signals.push_back(number);
    };
    wire::RelayState parsed;
    EXPECT_TRUE(parsed.ParseFromString(state.SerializeAsString()));
    auto relay = GuestRelay::create(parsed, std::move(handlers));
    EXPECT_TRUE(relay);
    made.relay = std::move(*relay);
    auto endpoints = made.relay->create_endpoints(::getuid(), ::getgid());
    EXPECT_TRUE(endpoints);
    for (StreamEndpoint& endpoint : *endpoints) {
      EXPECT_NE(endpoint.inode, 0U);
      set_nonblocking(endpoint.process_end.get());
      made.ends[endpoint.id] = std::move(endpoint.process_end);
    }
    return made;
  }

  std::shared_ptr<CuttableChannel::Cut> connect(GuestRelay& relay) {
    auto channels = make_memory_channels();
    EXPECT_TRUE(channels);
    auto cut = std::make_shared<CuttableChannel::Cut>();
    cut->ends = {std::move(channels->first), std::move(channels->second)};
    relay.attach(std::make_unique<CuttableChannel>(cut->ends[0], cut));
    deputy_relay->attach(std::make_unique<CuttableChannel>(cut->ends[1], cut));
    return cut;
  }

  void start_place() {
    place = make_place(make_relay_state(specs));
    connection = connect(*place.relay);
    place.relay->activate();
  }

  /// One turn of every relay; sleeps up to a millisecond when there is nothing to do.
  void turn(GuestRelay* other = nullptr, int sleep_ms = 1) {
    std::vector<pollfd> descriptors;
    int timeout_ms = sleep_ms;
    const auto shorten = [&](int wanted_ms) {
      timeout_ms = wanted_ms >= 0 ? std::min(timeout_ms, wanted_ms) : timeout_ms;
    };
    for (GuestRelay* relay : {place.relay.get(), other}) {
      if (relay != nullptr) {
        shorten(relay->collect_poll_fds(descriptors));
      }
    }
    shorten(deputy_relay->collect_poll_fds(descriptors));
    poll(descriptors.data(), descriptors.size(), timeout_ms);
    for (GuestRelay* relay : {place.relay.get(), other}) {
      const Result<void> done = relay != nullptr ? relay->handle() : Result<void>{};
      EXPECT_TRUE(done) << done.error().message();
    }
    const Result<void> done = deputy_relay->handle();
    EXPECT_TRUE(done) << done.error().message();
  }

  /// Turns until `condition` holds; a test failure after kPatience.
  ::testing::AssertionResult turn_until(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) {
        return ::testing::AssertionFailure() << "nothing came for too long";
      }
      if (HasFailure()) {
        return ::testing::AssertionFailure() << "failed before";
      }
      turn();
    }
    return ::testing::AssertionSuccess();
  }

  void turn_times(int count) {
    for (int i = 0; i < count; ++i) {
      turn();
    }
  }

  void signal(std::uint64_t number) {
    std::array<std::byte, kSiginfoBytes> siginfo{};
    std::memcpy(siginfo.data(), &number, sizeof number);
    EXPECT_TRUE(deputy_relay->send_signal(siginfo));
  }

  std::vector<RelayStreamSpec> specs;
  std::unique_ptr<HomeRelay> deputy_relay;
  Place place;
  std::shared_ptr<CuttableChannel::Cut> connection;
  UniqueFd home_in;
  UniqueFd home_out;
  UniqueFd home_both;
  std::vector<int> exits;
  std::vector<int> jobs;
  std::vector<std::string> hosts;
  std::vector<std::uint32_t> closed;
  std::vector<std::uint64_t> signals;
};

}  // namespace migrate::relay_testing
