#include "libmigrate/links/packet.h"

#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <utility>

namespace migrate {
namespace {

constexpr std::size_t kFourHeaderBytes = 20;
constexpr std::size_t kSixHeaderBytes = 40;
constexpr std::size_t kSegmentHeaderBytes = 20;
constexpr std::size_t kDatagramHeaderBytes = 8;
constexpr unsigned kHops = 64;
// Flags of a segment.
constexpr unsigned kBegins = 0x02;
constexpr unsigned kResets = 0x04;
constexpr unsigned kAcknowledges = 0x10;
constexpr unsigned kSegmentFlags = 0x3F;

unsigned byte_at(std::string_view bytes, std::size_t place) {
  return static_cast<unsigned char>(bytes[place]);
}

unsigned word_at(std::string_view bytes, std::size_t place) {
  return byte_at(bytes, place) << 8U | byte_at(bytes, place + 1);
}

std::uint32_t long_at(std::string_view bytes, std::size_t place) {
  return static_cast<std::uint32_t>(word_at(bytes, place)) << 16U | word_at(bytes, place + 2);
}

void put_byte(std::string& to, unsigned value) {
  to.push_back(static_cast<char>(value & 0xFFU));
}

void put_word(std::string& to, std::size_t value) {
  put_byte(to, static_cast<unsigned>(value >> 8U));
  put_byte(to, static_cast<unsigned>(value));
}

void put_long(std::string& to, std::uint32_t value) {
  put_word(to, value >> 16U);
  put_word(to, value & 0xFFFFU);
}

// Words added up, without their carries.
std::uint64_t sum_of(std::string_view bytes) {
  std::uint64_t sum = 0;
  for (std::size_t place = 0; place + 1 < bytes.size(); place += 2) {
    sum += word_at(bytes, place);
  }
  return bytes.size() % 2 == 0 ? sum : sum + (byte_at(bytes, bytes.size() - 1) << 8U);
}

// The checksum of what stands behind the header of IP, with what that says of it.
unsigned checksum_of(const SocketName& from, const SocketName& to, unsigned protocol,
                     std::string_view body) {
  std::uint64_t sum = sum_of(body);
  if (protocol != IPPROTO_ICMP) {
    sum += sum_of(from.address_bytes()) + sum_of(to.address_bytes()) + protocol + body.size();
  }
  while (sum > 0xFFFFU) {
    sum = (sum & 0xFFFFU) + (sum >> 16U);
  }
  return static_cast<unsigned>(~sum & 0xFFFFU);
}

// Of version 4 the kernel adds the checksum of its header.
std::string whole_packet(const SocketName& from, const SocketName& to, unsigned protocol,
                         std::string body, std::size_t checksum_at) {
  unsigned checksum = checksum_of(from, to, protocol, body);
  if (protocol == IPPROTO_UDP && checksum == 0) {
    checksum = 0xFFFFU;  // 0 says that there is none.
  }
  body[checksum_at] = static_cast<char>(checksum >> 8U);
  body[checksum_at + 1] = static_cast<char>(checksum & 0xFFU);
  std::string packet;
  if (from.family() == AF_INET) {
    constexpr unsigned kVersionAndSize = 0x4500;
    constexpr unsigned kNoFragments = 0x4000;
    put_word(packet, kVersionAndSize);
    put_word(packet, kFourHeaderBytes + body.size());
    put_word(packet, 0);
    put_word(packet, kNoFragments);
    put_byte(packet, kHops);
    put_byte(packet, protocol);
    put_word(packet, 0);
  } else {
    constexpr std::uint32_t kVersion = 0x60000000;
    put_long(packet, kVersion);
    put_word(packet, body.size());
    put_byte(packet, protocol);
    put_byte(packet, kHops);
  }
  packet += from.address_bytes();
  packet += to.address_bytes();
  return packet + body;
}

// What IP says of a packet.
struct IpHeader {
  unsigned protocol = 0;
  std::string_view from;
  std::string_view to;
  std::string_view body;
};

std::optional<IpHeader> read_header(std::string_view bytes) {
  if (bytes.size() >= kFourHeaderBytes && byte_at(bytes, 0) >> 4U == 4) {
    constexpr unsigned kFragment = 0x3FFF;
    const std::size_t size = std::size_t{4} * (byte_at(bytes, 0) & 0xFU);
    const std::size_t total = word_at(bytes, 2);
    if (size < kFourHeaderBytes || total < size || total > bytes.size() ||
        (word_at(bytes, 6) & kFragment) != 0) {
      return std::nullopt;
    }
    return IpHeader{byte_at(bytes, 9), bytes.substr(12, 4), bytes.substr(16, 4),
                    bytes.substr(size, total - size)};
  }
  if (bytes.size() >= kSixHeaderBytes && byte_at(bytes, 0) >> 4U == 6) {
    const std::size_t size = word_at(bytes, 4);
    if (kSixHeaderBytes + size > bytes.size()) {
      return std::nullopt;
    }
    return IpHeader{byte_at(bytes, 6), bytes.substr(8, 16), bytes.substr(24, 16),
                    bytes.substr(kSixHeaderBytes, size)};
  }
  return std::nullopt;
}

Handshake read_call(std::string_view segment, std::size_t header_bytes) {
  constexpr unsigned kPadding = 1;
  Handshake call;
  call.sequence = long_at(segment, 4);
  call.window = static_cast<std::uint16_t>(word_at(segment, 14));
  call.most_segment_bytes = 536;  // Where nothing is said.
  for (std::size_t place = kSegmentHeaderBytes; place < header_bytes;) {
    const unsigned kind = byte_at(segment, place);
    if (kind == kPadding) {
      ++place;
      continue;
    }
    const std::size_t size = place + 1 < header_bytes ? byte_at(segment, place + 1) : 0;
    if (kind == TCPOPT_EOL || size < 2 || place + size > header_bytes) {
      break;
    }
    if (kind == TCPOPT_MAXSEG && size == TCPOLEN_MAXSEG) {
      const unsigned most = word_at(segment, place + 2);  // 0 says nothing.
      call.most_segment_bytes =
          most == 0 ? call.most_segment_bytes : static_cast<std::uint16_t>(most);
    } else if (kind == TCPOPT_WINDOW && size == TCPOLEN_WINDOW) {
      constexpr unsigned kMostScale = 14;
      call.scale = static_cast<std::uint8_t>(std::min(byte_at(segment, place + 2), kMostScale));
    } else if (kind == TCPOPT_SACK_PERMITTED) {
      call.selective = true;
    }
    place += size;
  }
  return call;
}

std::string answering_segment(const Packet& call, std::uint32_t sequence, unsigned flags,
                              unsigned window, const std::string& options) {
  std::string body;
  put_word(body, call.to.port());
  put_word(body, call.from.port());
  put_long(body, sequence);
  put_long(body, call.call.sequence + 1);
  const std::size_t words = (kSegmentHeaderBytes + options.size()) / 4;
  put_word(body, words << 12U | flags);
  put_word(body, window);
  put_long(body, 0);
  constexpr std::size_t kChecksumAt = 16;
  return whole_packet(call.to, call.from, IPPROTO_TCP, body + options, kChecksumAt);
}

unsigned code_of_four(int error) {
  switch (error) {
    case ENETUNREACH:
      return ICMP_NET_UNREACH;
    case ECONNREFUSED:
      return ICMP_PORT_UNREACH;
    default:
      return ICMP_HOST_UNREACH;
  }
}

unsigned code_of_six(int error) {
  switch (error) {
    case ENETUNREACH:
      return ICMP6_DST_UNREACH_NOROUTE;
    case ECONNREFUSED:
      return ICMP6_DST_UNREACH_NOPORT;
    case EACCES:
    case EPERM:
      return ICMP6_DST_UNREACH_ADMIN;
    default:
      return ICMP6_DST_UNREACH_ADDR;
  }
}

}  // namespace

Packet read_packet(std::string_view bytes) {
  Packet packet;
  const auto header = read_header(bytes);
  if (!header) {
    return packet;
  }
  const std::string_view body = header->body;
  const bool is_segment = header->protocol == IPPROTO_TCP && body.size() >= kSegmentHeaderBytes;
  const bool is_datagram = header->protocol == IPPROTO_UDP && body.size() >= kDatagramHeaderBytes;
  if (!is_segment && !is_datagram) {
    return packet;
  }
  packet.from = SocketName::of_address(header->from, static_cast<std::uint16_t>(word_at(body, 0)));
  packet.to = SocketName::of_address(header->to, static_cast<std::uint16_t>(word_at(body, 2)));
  if (is_datagram) {
    const std::size_t size = word_at(body, 4);
    if (size >= kDatagramHeaderBytes && size <= body.size()) {
      packet.kind = Packet::Kind::kDatagram;
      packet.content = body.substr(kDatagramHeaderBytes, size - kDatagramHeaderBytes);
    }
    return packet;
  }
  const std::size_t header_bytes = std::size_t{4} * (byte_at(body, 12) >> 4U);
  if (header_bytes < kSegmentHeaderBytes || header_bytes > body.size()) {
    return packet;
  }
  const bool is_call = (byte_at(body, 13) & kSegmentFlags) == kBegins;
  packet.kind = is_call ? Packet::Kind::kCall : Packet::Kind::kSegment;
  if (is_call) {
    packet.call = read_call(body, header_bytes);
  }
  return packet;
}

std::string accepting_packet(const Packet& call, const Handshake& answer) {
  std::string options;
  put_byte(options, TCPOPT_MAXSEG);
  put_byte(options, TCPOLEN_MAXSEG);
  put_word(options, answer.most_segment_bytes);
  if (answer.scale) {
    put_byte(options, TCPOPT_NOP);
    put_byte(options, TCPOPT_WINDOW);
    put_byte(options, TCPOLEN_WINDOW);
    put_byte(options, *answer.scale);
  }
  if (answer.selective) {
    put_byte(options, TCPOPT_NOP);
    put_byte(options, TCPOPT_NOP);
    put_byte(options, TCPOPT_SACK_PERMITTED);
    put_byte(options, TCPOLEN_SACK_PERMITTED);
  }
  return answering_segment(call, answer.sequence, kBegins | kAcknowledges, answer.window, options);
}

std::string refusing_packet(const Packet& call) {
  return answering_segment(call, 0, kResets | kAcknowledges, 0, {});
}

std::string unreachable_packet(const SocketName& from, const SocketName& to,
                               std::string_view packet, int error) {
  constexpr std::size_t kMostOfPacket = 512;
  constexpr std::size_t kChecksumAt = 2;
  const bool is_four = from.family() == AF_INET;
  std::string body;
  put_byte(body, is_four ? unsigned{ICMP_DEST_UNREACH} : unsigned{ICMP6_DST_UNREACH});
  put_byte(body, is_four ? code_of_four(error) : code_of_six(error));
  put_word(body, 0);
  put_long(body, 0);
  body += packet.substr(0, kMostOfPacket);
  return whole_packet(from, to, is_four ? unsigned{IPPROTO_ICMP} : unsigned{IPPROTO_ICMPV6},
                      std::move(body), kChecksumAt);
}

std::string datagram_packet(const SocketName& from, const SocketName& to,
                            std::string_view content) {
  constexpr std::size_t kChecksumAt = 6;
  std::string body;
  put_word(body, from.port());
  put_word(body, to.port());
  put_word(body, kDatagramHeaderBytes + content.size());
  put_word(body, 0);
  body += content;
  return whole_packet(from, to, IPPROTO_UDP, std::move(body), kChecksumAt);
}

}  // namespace migrate
