#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "libmigrate/links/tcp_socket.h"

namespace migrate {

/// What the packets say by which a connection of TCP begins (SYN, and the answer to it).
struct Handshake {
  std::uint32_t sequence = 0;  ///< Of the packet; data begins with the next number.
  std::uint16_t window = 0;    ///< Bytes, never scaled.
  std::uint16_t most_segment_bytes = 0;
  std::optional<std::uint8_t> scale{};  ///< Of later windows, if it is offered.
  bool selective = false;               ///< Selective acknowledgements are offered.
};

/// A packet of IP, version 4 or 6, as far as it is used here.
struct Packet {
  enum class Kind : std::uint8_t {
    kOther,
    kCall,      ///< Asks for a connection: SYN alone.
    kSegment,   ///< All else of TCP.
    kDatagram,  ///< Of UDP.
  };
  Kind kind = Kind::kOther;
  SocketName from;
  SocketName to;
  Handshake call;            ///< kCall
  std::string_view content;  ///< kDatagram; borrowed of the packet.
};

/// What a packet is; kOther where it is cut off, a fragment, or has headers in between.
Packet read_packet(std::string_view bytes);

// Answers to packets; the names are those of the packet, the other way round.
/// To a call: who was called is there.
std::string accepting_packet(const Packet& call, const Handshake& answer);
/// To a call: nobody listens there.
std::string refusing_packet(const Packet& call);
/// To any packet, which follows in part: it does not arrive, because of `error` of errno(3).
std::string unreachable_packet(const SocketName& from, const SocketName& to,
                               std::string_view packet, int error);

/// One of UDP, of at most 65,507 bytes.
std::string datagram_packet(const SocketName& from, const SocketName& to, std::string_view content);

}  // namespace migrate
