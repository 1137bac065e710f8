// The contract of channels over everything that needs no special hardware.
#include "tests/transport/channel_contract.h"
#include "tests/transport/tls_fixture.h"
#include "transport/memory_channel.h"
#include "transport/tcp.h"

namespace migrate::test {
namespace {

ChannelPair make_memory_pair() {
  return std::move(make_memory_channels()).value();
}

ChannelPair make_tcp_pair(bool bulk) {
  auto [left, right] = connected_tcp_sockets();
  return {TcpChannel::create(std::move(left), {.bulk = bulk}).value(),
          TcpChannel::create(std::move(right), {.bulk = bulk}).value()};
}

ChannelPair make_tls_pair() {
  const Cluster cluster;
  auto ends = shake_hands(connected_tcp_sockets(), cluster.host("a"), {}, cluster.host("b"), {});
  return {std::move(ends.client).value(), std::move(ends.server).value()};
}

INSTANTIATE_TEST_SUITE_P(Transport, ChannelContract,
                         testing::Values(ChannelKind{"memory", make_memory_pair},
                                         ChannelKind{"tcp", [] { return make_tcp_pair(false); }},
                                         ChannelKind{"tcp_bulk",
                                                     [] { return make_tcp_pair(true); }},
                                         ChannelKind{"tls", make_tls_pair}),
                         kind_name);

}  // namespace
}  // namespace migrate::test
