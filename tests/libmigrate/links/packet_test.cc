// Packets that are read and written for sockets of a cell.
#include "libmigrate/links/packet.h"

#include <gtest/gtest.h>
#include <netinet/in.h>

#include <array>
#include <cerrno>
#include <random>
#include <string>
#include <string_view>

namespace migrate {
namespace {

const SocketName kFour = SocketName::of_address("\x0A\x01\x01\x01", 4000);
const SocketName kOtherFour = SocketName::of_address("\x0A\x01\x01\x02", 80);
const SocketName kSix = SocketName::of_address("0123456789abcdef", 4000);
const SocketName kOtherSix = SocketName::of_address("0123456789abcdeg", 80);

// The sum of all words, as whoever receives it adds it up: 0xFFFF if the checksum is right.
unsigned folded_sum(std::string bytes, std::string_view pseudo_header) {
  bytes.append(bytes.size() % 2, '\0');
  bytes += pseudo_header;
  unsigned long sum = 0;
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) {
    sum += static_cast<unsigned char>(bytes[i]) * 256U + static_cast<unsigned char>(bytes[i + 1]);
  }
  while (sum > 0xFFFFU) {
    sum = (sum & 0xFFFFU) + (sum >> 16U);
  }
  return static_cast<unsigned>(sum);
}

std::string pseudo_header(const SocketName& from, const SocketName& to, unsigned protocol,
                          std::size_t size) {
  std::string header(from.address_bytes());
  header += to.address_bytes();
  header +=
      {static_cast<char>(size >> 8U), static_cast<char>(size), '\0', static_cast<char>(protocol)};
  return header;
}

std::string body_of(const std::string& packet) {
  return packet.substr((static_cast<unsigned char>(packet[0]) >> 4U) == 4 ? 20 : 40);
}

// An answer is a call to whom reads it as one: only the flags differ.
std::string bytes_of_call(const SocketName& from, const SocketName& to, const Handshake& says) {
  Packet asked;
  asked.from = to;
  asked.to = from;
  std::string bytes = accepting_packet(asked, says);
  bytes[bytes.size() - body_of(bytes).size() + 13] = 2;
  return bytes;
}

Packet call_from(const SocketName& from, const SocketName& to, const Handshake& says) {
  return read_packet(bytes_of_call(from, to, says));
}

TEST(Packets, ADatagramIsReadAsItWasWritten) {
  for (const auto& [from, to] : {std::pair(kFour, kOtherFour), std::pair(kSix, kOtherSix)}) {
    for (const std::string& text : {std::string("odd"), std::string("even"), std::string()}) {
      const std::string bytes = datagram_packet(from, to, text);
      const Packet packet = read_packet(bytes);
      EXPECT_EQ(packet.kind, Packet::Kind::kDatagram);
      EXPECT_EQ(packet.from, from);
      EXPECT_EQ(packet.to, to);
      EXPECT_EQ(packet.content, text);
      const std::string body = body_of(bytes);
      EXPECT_EQ(folded_sum(body, pseudo_header(from, to, IPPROTO_UDP, body.size())), 0xFFFFU);
    }
  }
}

TEST(Packets, ACallSaysWhatItOffers) {
  const Handshake says{.sequence = 0xFEDCBA98,
                       .window = 1234,
                       .most_segment_bytes = 1460,
                       .scale = std::uint8_t{9},
                       .selective = true};
  for (const auto& [from, to] : {std::pair(kFour, kOtherFour), std::pair(kSix, kOtherSix)}) {
    const Packet call = call_from(from, to, says);
    EXPECT_EQ(call.kind, Packet::Kind::kCall);
    EXPECT_EQ(call.from, from);
    EXPECT_EQ(call.to, to);
    EXPECT_EQ(call.call.sequence, says.sequence);
    EXPECT_EQ(call.call.window, says.window);
    EXPECT_EQ(call.call.most_segment_bytes, says.most_segment_bytes);
    EXPECT_EQ(call.call.scale, says.scale);
    EXPECT_TRUE(call.call.selective);
    const Packet other = call_from(from, to, Handshake{.sequence = 1, .most_segment_bytes = 0});
    EXPECT_FALSE(other.call.scale);
    EXPECT_EQ(other.call.most_segment_bytes, 536);  // As if nothing were said of it.
  }
}

TEST(Packets, AnswersToACallAreSegmentsForWhoCalls) {
  for (const auto& [from, to] : {std::pair(kFour, kOtherFour), std::pair(kSix, kOtherSix)}) {
    const Packet call = call_from(from, to, Handshake{.sequence = 0xFFFFFFFF});
    for (const std::string& answer :
         {refusing_packet(call), accepting_packet(call, Handshake{.scale = std::uint8_t{7}})}) {
      const Packet packet = read_packet(answer);
      EXPECT_EQ(packet.kind, Packet::Kind::kSegment);
      EXPECT_EQ(packet.from, to);
      EXPECT_EQ(packet.to, from);
      const std::string body = body_of(answer);
      EXPECT_EQ(body.substr(8, 4), std::string(4, '\0'));  // The number after the call's.
      EXPECT_EQ(folded_sum(body, pseudo_header(to, from, IPPROTO_TCP, body.size())), 0xFFFFU);
    }
  }
}

TEST(Packets, UnreachableHoldsWhatWasSent) {
  const std::string four = datagram_packet(kFour, kOtherFour, "x");
  const std::string body = body_of(unreachable_packet(kOtherFour, kFour, four, ECONNREFUSED));
  EXPECT_EQ(body.substr(0, 2), "\x03\x03");
  EXPECT_EQ(body.substr(8), four);
  EXPECT_EQ(folded_sum(body, {}), 0xFFFFU);
  const std::string six = datagram_packet(kSix, kOtherSix, "x");
  const std::string body_six = body_of(unreachable_packet(kOtherSix, kSix, six, ENETUNREACH));
  EXPECT_EQ(body_six.substr(0, 2), std::string("\x01\x00", 2));
  EXPECT_EQ(folded_sum(body_six, pseudo_header(kOtherSix, kSix, IPPROTO_ICMPV6, body_six.size())),
            0xFFFFU);
}

TEST(Packets, WhatIsCutOffIsNone) {
  for (const std::string& whole :
       {datagram_packet(kFour, kOtherFour, "text"), datagram_packet(kSix, kOtherSix, "text"),
        refusing_packet(call_from(kFour, kOtherFour, Handshake{.most_segment_bytes = 9}))}) {
    for (std::size_t size = 0; size < whole.size(); ++size) {
      EXPECT_EQ(read_packet(whole.substr(0, size)).kind, Packet::Kind::kOther) << size;
    }
  }
}

// What is read lies within them, and can be answered.
TEST(Packets, AnyBytesAreRead) {
  std::mt19937 random(1);
  const Handshake says{.scale = std::uint8_t{7}, .selective = true};
  const std::array<std::string, 4> packets{datagram_packet(kFour, kOtherFour, "some text"),
                                           datagram_packet(kSix, kOtherSix, "some text"),
                                           bytes_of_call(kFour, kOtherFour, says),
                                           bytes_of_call(kSix, kOtherSix, says)};
  for (int round = 0; round < 50'000; ++round) {
    for (const std::string& whole : packets) {
      std::string bytes = whole.substr(0, whole.size() - random() % 8);
      for (auto changes = random() % 4; changes > 0; --changes) {
        bytes[random() % bytes.size()] = static_cast<char>(random());
      }
      const Packet packet = read_packet(bytes);
      if (packet.kind == Packet::Kind::kDatagram) {
        ASSERT_GE(packet.content.data(), bytes.data());
        ASSERT_LE(packet.content.data() + packet.content.size(), bytes.data() + bytes.size());
      } else if (packet.kind == Packet::Kind::kCall) {
        ASSERT_EQ(read_packet(refusing_packet(packet)).to, packet.from);
      }
    }
  }
}

}  // namespace
}  // namespace migrate
