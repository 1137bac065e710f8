#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "libmigrate/proto/home.pb.h"
#include "libmigrate/relay/guest_listener.h"
#include "libmigrate/relay/guest_stream.h"

namespace migrate {

/// One stream when a process leaves home for the first time.
struct RelayStreamSpec {
  std::uint32_t id = 0;
  wire::RelayDirection directions = wire::RELAY_NONE;
  bool is_terminal = false;
  bool is_connection = false;
  bool send_ended = false;   ///< The process has ended its output.
  bool is_listener = false;  ///< No stream, but it has the id of one.
};

/// A connection of the process, as it is to be made.
struct ConnectionParts {
  std::uint32_t stream = 0;
  TcpPair pair;
  bool is_over = false;  ///< No stream is behind it any more.
  bool has_error = false;
};

/// The same of Unix domain sockets.
struct UnixConnectionParts {
  std::uint32_t stream = 0;
  UnixPair pair;
};

/// Sockets of the process that lead outside, as they are to be made.
struct NetworkParts {
  std::vector<ConnectionParts> connections = {};
  std::vector<ListenerParts> listeners = {};
  std::vector<UnixConnectionParts> unix_connections = {};
};

/// A core dump in which pages are missing that had not come when it was written.
struct IncompleteCore {
  std::uint64_t lacks_pages = 0;  ///< 0: none are.
  std::string file;               ///< Its name; empty if it was not found.
};

/// The state for a process that leaves home: epoch 1, nothing sent yet.
wire::RelayState make_relay_state(std::span<const RelayStreamSpec> streams);

}  // namespace migrate
