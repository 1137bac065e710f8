// rdma_peer PORT PURPOSE: connects to a Meeting of this machine, says "up" over RDMA and how it
// went on standard output, and stays until it is killed.
#include <unistd.h>

#include <cstdlib>
#include <iostream>

#include "tests/transport/rdma/device.h"

using migrate::test::Meeting;

int main(int argc, char** argv) {
  if (argc != 3) {
    return 2;
  }
  const migrate::Address address{.scheme = "rdma",
                                 .host = migrate::test::rdma_address(),
                                 .port = static_cast<std::uint16_t>(std::atoi(argv[1]))};
  const auto channel =
      migrate::connect_rdma(address,
                            {.purpose = static_cast<migrate::Purpose>(std::atoi(argv[2])),
                             .session = Meeting::session(),
                             .token = Meeting::token()},
                            {}, migrate::test::kConnectMs);
  if (!channel) {
    std::cout << channel.error().message() << std::flush;
    return 1;
  }
  std::cout << "connected" << std::flush;
  static_cast<void>((*channel)->send_one(std::as_bytes(std::span("up", 2))));
  ::pause();
  return 0;
}
