#pragma once

#include <netinet/tcp.h>

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/links/tcp_socket.h"

namespace migrate {

/// A socket of TCP that is to be connected without a packet (TCP_REPAIR).
struct RepairedSocket {
  SocketName from;
  SocketName to;
  bool only_ipv6 = false;
  std::uint32_t sends_from = 0;  ///< The sequence number of the next byte that it sends.
  std::uint32_t receives_from = 0;
  struct Scales {
    std::uint8_t send = 0;
    std::uint8_t receive = 0;
  };
  std::optional<Scales> scales{};  ///< Of windows.
  std::uint16_t most_segment_bytes = 0;
  bool selective = true;
  int mark = 0;  ///< SO_MARK. If not 0, the name may be another host's wherever packets go.
};

/// The longest segments that TCP sends over the loopback device, and what it scales windows by.
inline constexpr std::uint16_t kMostSegmentBytes = 65'483;
inline constexpr std::uint8_t kWindowScale = 7;

/// In the network namespace of the calling thread. It is still in repair. Errors: kSystem.
Result<UniqueFd> connect_repaired(const RepairedSocket& wanted);
/// Errors: kSystem.
Result<tcp_repair_window> window_of(int fd);
/// The other end takes so many bytes. Errors: kSystem.
Result<void> open_window(int fd, std::uint32_t bytes);
/// Its end goes on as any other. Errors: kSystem.
Result<void> end_repair(int fd);

}  // namespace migrate
