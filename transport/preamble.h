#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace migrate {

/// Names one move on both hosts. It is no secret: what authenticates is the session's token.
using SessionId = std::array<std::byte, 16>;

/// 32 lower-case hexadecimal digits.
std::string to_hex(const SessionId& id);
/// Errors: kInvalid (not 32 hexadecimal digits; either case is read).
Result<SessionId> session_id_from_hex(std::string_view text);
/// An id that no one else has. Kernel: getrandom. Errors: kSystem.
Result<SessionId> random_session_id();

/// What a connection is for.
enum class Purpose : std::uint8_t {
  kOffer = 1,    ///< Control messages of a move.
  kUrgent = 2,   ///< Page faults and their answers.
  kBulk = 3,     ///< Pushed pages.
  kHome = 4,     ///< Between deputy and cell.
  kQuery = 5,    ///< From daemon to daemon: state and verdicts, no session.
  kCommand = 6,  ///< From a deputy to the worker where its process lives: a request, JSON.
  kResume = 7,   ///< Control messages of a move again, after the connection broke.
  kAsk = 8,      ///< From any daemon to the home of a process: a request, JSON.
};

/// The version of all that is spoken after the preamble.
inline constexpr std::uint16_t kProtocolVersion = 16;
inline constexpr std::size_t kPreambleBytes = 32;

/// The first bytes on every connection, before encryption and framing, so that a daemon can hand
/// the connection to the right worker without reading further. It must not be believed before the
/// peer is authenticated. Layout, little endian:
///   0 "LMIG" | 4 version u16 | 6 purpose u8 | 7 zero | 8 session id | 24 zero x 8
struct Preamble {
  std::uint16_t version = kProtocolVersion;
  Purpose purpose = Purpose::kOffer;
  SessionId session{};

  bool operator==(const Preamble&) const = default;
};

std::array<std::byte, kPreambleBytes> encode(const Preamble& preamble);
/// Errors: kCorrupt (no libmigrate, unknown purpose), kUnsupported (another version).
Result<Preamble> decode_preamble(const std::array<std::byte, kPreambleBytes>& bytes);

/// Sends the preamble; `fd` is borrowed, blocking or not. Blocks hardly ever (32 bytes on a new
/// connection). Errors: kPeerLost, kSystem.
Result<void> send_preamble(int fd, const Preamble& preamble);

/// Tells a peer of another version which one is spoken here: a preamble without a purpose. Blocks
/// for up to half a second, until the peer hangs up, so that no reset overtakes the answer.
void refuse_version(int fd);

/// Tells a peer that there is no place for its connection now: the same, of the version that both
/// speak. Never blocks, so a peer that still sends may miss it.
void refuse_for_now(int fd);

/// If the peer's first bytes are those that refuse_version() or refuse_for_now() sends, what is to
/// be said of that: an Error of code kUnsupported or kBusy. Else nothing.
std::optional<Error> refusal_in(std::span<const std::byte> begin);

}  // namespace migrate
