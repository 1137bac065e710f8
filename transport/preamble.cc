#include "transport/preamble.h"

#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <span>

#include "transport/address.h"
#include "transport/connection.h"
#include "transport/wait.h"

namespace migrate {
namespace {

constexpr std::array<std::byte, 4> kMagic{std::byte{'L'}, std::byte{'M'}, std::byte{'I'},
                                          std::byte{'G'}};
constexpr std::size_t kVersionOffset = 4;
constexpr std::size_t kPurposeOffset = 6;
constexpr std::size_t kReservedOffset = 7;
constexpr std::size_t kSessionOffset = 8;
constexpr std::size_t kTailOffset = 24;
static_assert(kSessionOffset + sizeof(SessionId) == kTailOffset);

constexpr std::string_view kDigits = "0123456789abcdef";

Result<unsigned> hex_digit(char c, std::string_view text) {
  const char lower = c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
  const auto value = kDigits.find(lower);
  if (value == std::string_view::npos) {
    return fail(make_error(ErrorCode::kInvalid, "parse session id", std::string(text),
                           "it has 32 hexadecimal digits"));
  }
  return static_cast<unsigned>(value);
}

Error other_version(unsigned version) {
  return make_error(ErrorCode::kUnsupported, "read preamble", {},
                    "the peer speaks version " + std::to_string(version) +
                        " of the protocol, this host only " + std::to_string(kProtocolVersion) +
                        "; install the same release on both hosts");
}

unsigned version_in(std::span<const std::byte> bytes) {
  return std::to_integer<unsigned>(bytes[kVersionOffset]) |
         (std::to_integer<unsigned>(bytes[kVersionOffset + 1]) << 8U);
}

/// A preamble without a purpose, and nothing after it. False if the connection is gone.
bool send_refusal(int fd) {
  auto bytes = encode({});
  bytes[kPurposeOffset] = std::byte{0};
  return ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) > 0 &&
         ::shutdown(fd, SHUT_WR) == 0;
}

Error malformed(std::string remedy) {
  return make_error(ErrorCode::kCorrupt, "read preamble", {}, std::move(remedy));
}

}  // namespace

std::string to_hex(const SessionId& id) {
  std::string text;
  for (const std::byte byte : id) {
    text += kDigits[std::to_integer<unsigned>(byte >> 4)];
    text += kDigits[std::to_integer<unsigned>(byte & std::byte{15})];
  }
  return text;
}

Result<SessionId> session_id_from_hex(std::string_view text) {
  SessionId id{};
  if (text.size() != 2 * id.size()) {
    return fail(make_error(ErrorCode::kInvalid, "parse session id", std::string(text),
                           "it has 32 hexadecimal digits"));
  }
  for (std::size_t i = 0; i < id.size(); ++i) {
    const unsigned high = MIGRATE_TRY(hex_digit(text[2 * i], text));
    const unsigned low = MIGRATE_TRY(hex_digit(text[2 * i + 1], text));
    id[i] = static_cast<std::byte>((high << 4U) | low);
  }
  return id;
}

Result<SessionId> random_session_id() {
  SessionId id;
  // Up to 256 bytes come whole.
  while (::getrandom(id.data(), id.size(), 0) != static_cast<ssize_t>(id.size())) {
    if (errno != EINTR) {
      return fail(system_error("get random bytes"));
    }
  }
  return id;
}

std::array<std::byte, kPreambleBytes> encode(const Preamble& preamble) {
  std::array<std::byte, kPreambleBytes> bytes{};
  std::copy(kMagic.begin(), kMagic.end(), bytes.begin());
  bytes[kVersionOffset] = static_cast<std::byte>(preamble.version & 0xffU);
  bytes[kVersionOffset + 1] = static_cast<std::byte>(preamble.version >> 8U);
  bytes[kPurposeOffset] = static_cast<std::byte>(preamble.purpose);
  std::copy(preamble.session.begin(), preamble.session.end(), bytes.begin() + kSessionOffset);
  return bytes;
}

Result<Preamble> decode_preamble(const std::array<std::byte, kPreambleBytes>& bytes) {
  if (!std::equal(kMagic.begin(), kMagic.end(), bytes.begin())) {
    return fail(malformed("the peer does not speak libmigrate's protocol"));
  }
  Preamble preamble;
  preamble.version = static_cast<std::uint16_t>(version_in(bytes));
  if (preamble.version != kProtocolVersion) {
    return fail(other_version(preamble.version));
  }
  const auto purpose = std::to_integer<unsigned>(bytes[kPurposeOffset]);
  if (purpose < static_cast<unsigned>(Purpose::kOffer) ||
      purpose > static_cast<unsigned>(Purpose::kAsk)) {
    return fail(malformed("unknown purpose " + std::to_string(purpose)));
  }
  preamble.purpose = static_cast<Purpose>(purpose);
  const bool tail_zero = std::all_of(bytes.begin() + kTailOffset, bytes.end(),
                                     [](std::byte byte) { return byte == std::byte{0}; });
  if (bytes[kReservedOffset] != std::byte{0} || !tail_zero) {
    return fail(malformed("reserved bytes are not zero"));
  }
  std::copy_n(bytes.begin() + kSessionOffset, preamble.session.size(), preamble.session.begin());
  return preamble;
}

Result<void> send_preamble(int fd, const Preamble& preamble) {
  const auto bytes = encode(preamble);
  std::span<const std::byte> left = bytes;
  while (!left.empty()) {
    const ssize_t count = ::send(fd, left.data(), left.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      left = left.subspan(static_cast<std::size_t>(count));
    } else if (errno == EAGAIN) {
      MIGRATE_TRY(wait_until_writable(fd, peer_name(fd)));
    } else if (errno != EINTR) {
      return fail(socket_error("send preamble to", peer_name(fd)));
    }
  }
  return {};
}

void refuse_version(int fd) {
  constexpr int kPartingMs = 500;
  if (!send_refusal(fd)) {
    return;
  }
  std::array<std::byte, kPreambleBytes> ignored{};
  const Deadline deadline(kPartingMs);
  while (wait_for(fd, POLLIN, deadline).value_or(0) != 0 &&
         ::recv(fd, ignored.data(), ignored.size(), MSG_DONTWAIT) > 0) {
  }
}

void refuse_for_now(int fd) {
  // What is unread when the connection is closed would make that a reset, which may overtake the
  // answer.
  std::array<std::byte, std::size_t{16} * 1024> ignored;
  static_cast<void>(::recv(fd, ignored.data(), ignored.size(), MSG_DONTWAIT));
  send_refusal(fd);
}

std::optional<Error> refusal_in(std::span<const std::byte> begin) {
  if (begin.size() <= kPurposeOffset || !std::equal(kMagic.begin(), kMagic.end(), begin.begin())) {
    return std::nullopt;
  }
  if (version_in(begin) != kProtocolVersion) {
    return other_version(version_in(begin));
  }
  if (begin[kPurposeOffset] == std::byte{0}) {
    return make_error(ErrorCode::kBusy, "connect", {},
                      "the daemon there serves as many connections as it may; try again, and see "
                      "its log");
  }
  return std::nullopt;
}

}  // namespace migrate
