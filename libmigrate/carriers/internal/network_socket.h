#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/unique_fd.h"
#include "libmigrate/carriers/carrier.h"
#include "libmigrate/links/tcp_socket.h"

namespace migrate::carriers {

/// Most connections, and most listeners, of one process.
inline constexpr int kMostNetworkSockets = 4096;

/// A socket option that is a number; -1 if there is none.
int number_of(int fd, int level, int name);

/// Why something is not carried.
struct Reason {
  std::string_view code;  ///< Empty: none.
  std::string detail;
};

/// Whether a socket listens for connections.
bool is_listening(const FindContext& context, const Sighting& seen);

/// Whether it is one of UDP, or one of TCP that is not connected, has not been, and does not
/// listen.
bool is_open_socket(const FindContext& context, const Sighting& seen);

/// Whether a socket is of a kind, and has settings, that can be carried; false after a refusal.
/// `fd` is a duplicate of it.
bool find_network_socket(FindContext& context, const Sighting& seen, const UniqueFd& fd);

/// What is to be known of a socket of TCP that can be carried whatever its state. Nothing after a
/// refusal. `fd` is a duplicate of it.
std::optional<TcpInfo> find_tcp_socket(FindContext& context, const Sighting& seen,
                                       const UniqueFd& fd);

}  // namespace migrate::carriers
