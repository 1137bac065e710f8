#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/unique_fd.h"
#include "transport/channel.h"

namespace migrate::test {

using ChannelPair = std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>>;

/// One kind of channel that the contract is tested over.
struct ChannelKind {
  std::string name;
  std::function<ChannelPair()> make;
  /// Why there can be none here; empty: there can.
  std::function<std::string()> why_skipped = [] { return std::string(); };
};

/// Two ends of a TCP connection over loopback.
std::pair<UniqueFd, UniqueFd> connected_tcp_sockets();

}  // namespace migrate::test
