// The contract of channels over real verbs.
#include <future>

#include "tests/transport/channel_contract.h"
#include "tests/transport/rdma/device.h"

namespace migrate::test {

std::pair<std::unique_ptr<OneSidedChannel>, std::unique_ptr<OneSidedChannel>> connect_pair(
    Meeting& meeting, Purpose purpose, const RdmaOptions& options) {
  auto connecting = std::async(std::launch::async, [&] {
    return connect_rdma(address_of(*meeting.listener), meeting.greeting(purpose), options,
                        kConnectMs);
  });
  auto accepted = meeting.listener->accept(kConnectMs);
  auto connected = connecting.get();
  EXPECT_TRUE(connected) << connected.error().message();
  EXPECT_TRUE(accepted) << accepted.error().message();
  if (!connected || !accepted) {
    return {};
  }
  EXPECT_EQ(accepted->purpose, purpose);
  auto* const other = dynamic_cast<OneSidedChannel*>(accepted->channel.release());
  return {std::move(*connected), std::unique_ptr<OneSidedChannel>(other)};
}

namespace {

constexpr std::size_t kSmallLanding = std::size_t{64} << 10U;

// From a listener's side, whose peer has little room for messages.
ChannelPair make_pair_with_little_room() {
  Meeting meeting;
  auto [connected, accepted] =
      connect_pair(meeting, Purpose::kUrgent, {.landing_bytes = kSmallLanding});
  return {std::move(accepted), std::move(connected)};
}

ChannelPair make_pair_with_much_room() {
  Meeting meeting;
  return connect_pair(meeting, Purpose::kUrgent);
}

INSTANTIATE_TEST_SUITE_P(Rdma, ChannelContract,
                         testing::Values(ChannelKind{"urgent", make_pair_with_much_room},
                                         ChannelKind{"little_room", make_pair_with_little_room}),
                         kind_name);

}  // namespace
}  // namespace migrate::test
