// New workers take over from dead ones, on either side, in the midst of traffic.
#include <random>

#include "tests/libmigrate/relay/relay_world.h"

namespace migrate::relay_testing {
namespace {

class RelayAdoption : public RelayWorld {
 protected:
  void start() {
    auto [in_read, in_write] = make_pipe();
    auto [out_read, out_write] = make_pipe();
    home_in = std::move(in_write);
    home_out = std::move(out_read);
    real_in = std::move(in_read);
    real_out = std::move(out_write);
    set_nonblocking(home_in.get());
    set_nonblocking(home_out.get());
    start_home(streams());
    start_place();
  }

  /// Of the deputy's descriptors, which outlive its workers.
  std::vector<HomeRelay::Stream> streams() const {
    std::vector<HomeRelay::Stream> made;
    made.push_back({kIn, UniqueFd(::dup(real_in.get())), wire::RELAY_IN});
    made.push_back({kOut, UniqueFd(::dup(real_out.get())), wire::RELAY_OUT});
    return made;
  }

  void replace_deputy() {
    const wire::HomeRelayState noted = deputy_relay->note();
    deputy_relay.reset();
    start_home(streams());
    deputy_relay->adopt(noted);
    connection = connect(*place.relay);
  }

  void replace_guest() {
    const wire::GuestRelayState noted = place.relay->note();
    std::vector<GuestRelay::Adopted> ends;
    for (const RelayEnd& end : place.relay->ends()) {
      ends.push_back({end.id, end.kind, UniqueFd(::dup(end.fd))});
    }
    place.relay.reset();
    GuestRelay::Handlers handlers;
    handlers.on_signal = [this](std::span<const std::byte> siginfo) {
      std::uint64_t number = 0;
      std::memcpy(&number, siginfo.data(), sizeof number);
      signals.push_back(number);
    };
    auto relay = GuestRelay::adopt(noted, std::move(ends), std::move(handlers));
    ASSERT_TRUE(relay);
    place.relay = std::move(*relay);
    connection = connect(*place.relay);
  }

  UniqueFd real_in;
  UniqueFd real_out;
  std::mt19937 random{7};  // NOLINT(cert-msc51-cpp): the same each time
};

TEST_F(RelayAdoption, NothingIsLostOrRepeated) {
  constexpr std::uint64_t kBytes = 1U << 20U;
  start();
  Actor to_process;
  Actor from_process;
  std::uint64_t sent = 0;
  int turns = 0;
  ASSERT_TRUE(turn_until([&] {
    to_process.write_some(home_in.get(), kBytes);
    to_process.read_some(place.ends[kIn].get(), 1 + random() % 9000);
    from_process.write_some(place.ends[kOut].get(), kBytes);
    from_process.read_some(home_out.get(), 1 + random() % 9000);
    if (++turns % 17 == 0) {
      signal(++sent);
    }
    if (turns % 23 == 5) {
      replace_guest();
    }
    if (turns % 31 == 7) {
      replace_deputy();
    }
    return to_process.read == kBytes && from_process.read == kBytes && signals.size() >= sent;
  }));
  for (std::uint64_t i = 0; i < signals.size(); ++i) {
    ASSERT_EQ(signals[i], i + 1);
  }
  EXPECT_GT(turns, 60);
}

TEST_F(RelayAdoption, EndsComeThrough) {
  start();
  Actor to_process;
  to_process.write_some(home_in.get(), 5000);
  home_in.reset();
  turn_times(3);
  replace_guest();
  ASSERT_TRUE(turn_until([&] {
    to_process.read_some(place.ends[kIn].get(), 100);
    return to_process.eof;
  }));
  EXPECT_EQ(to_process.read, 5000U);
  place.ends.clear();
  place.relay->report_exit(9, false, "lost");
  turn_times(1);
  replace_guest();
  replace_deputy();
  ASSERT_TRUE(turn_until([&] { return !exits.empty() && place.relay->exit_acknowledged(); }));
  EXPECT_EQ(exits, std::vector<int>{9});
}

}  // namespace
}  // namespace migrate::relay_testing
