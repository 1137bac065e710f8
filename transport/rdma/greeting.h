#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "transport/rdma.h"

namespace migrate::rdma {

/// Memory that the peer may write into.
struct Landing {
  std::uint64_t address = 0;
  std::uint32_t key = 0;
  std::uint32_t length_bytes = 0;
};

// The private data of the connection manager's messages, little endian. 56 bytes are all that a
// request may have.
//   request = "LMIG" version:u16 purpose:u8 0:u8 session:16*u8 token:16*u8 landing
//   reply   = "LMIG" version:u16 0:u16 landing
//   reject  = "LMIG" version:u16 reason:u16
//   landing = address:u64 key:u32 length:u32

inline constexpr std::size_t kRequestBytes = 56;
inline constexpr std::size_t kReplyBytes = 24;
inline constexpr std::size_t kRejectBytes = 8;

/// Why a listener does not want a connection.
enum class RejectReason : std::uint16_t { kVersion = 1, kSession, kPurpose, kResources };

struct Request {
  PageGreeting greeting;
  Landing landing;
};

std::array<std::byte, kRequestBytes> encode_request(const Request& request);
std::array<std::byte, kReplyBytes> encode_reply(const Landing& landing);
std::array<std::byte, kRejectBytes> encode_reject(RejectReason reason);

/// What follows the message may be padding. Errors: kCorrupt (no such message), kUnsupported
/// (another version).
Result<Request> decode_request(std::span<const std::byte> bytes);
Result<Landing> decode_reply(std::span<const std::byte> bytes);

/// The Error for a rejected connection to `object` with this private data, which may be anything.
Error rejection(std::span<const std::byte> bytes, const std::string& object);

}  // namespace migrate::rdma
