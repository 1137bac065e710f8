#include "transport/rdma/greeting.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>

namespace migrate::rdma {
namespace {

constexpr std::array<char, 4> kMagic{'L', 'M', 'I', 'G'};
constexpr std::size_t kHeadBytes = kMagic.size() + sizeof(std::uint16_t);

/// Puts values one after the other into a message.
class Writer {
 public:
  explicit Writer(std::span<std::byte> bytes) : left_(bytes) {
    put_bytes(std::as_bytes(std::span(kMagic)));
    put(kProtocolVersion);
  }
  template <class T>
  void put(T value) {
    static_assert(std::is_unsigned_v<T>);
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      left_[i] = static_cast<std::byte>(static_cast<std::uint64_t>(value) >> (8 * i));
    }
    left_ = left_.subspan(sizeof(T));
  }
  void put_bytes(std::span<const std::byte> bytes) {
    std::copy(bytes.begin(), bytes.end(), left_.begin());
    left_ = left_.subspan(bytes.size());
  }
  void put_landing(const Landing& landing) {
    put(landing.address);
    put(landing.key);
    put(landing.length_bytes);
  }

 private:
  std::span<std::byte> left_;
};

/// Takes values from a message that is long enough.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : left_(bytes) {}

  template <class T>
  T get() {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      value |= std::to_integer<std::uint64_t>(left_[i]) << (8 * i);
    }
    left_ = left_.subspan(sizeof(T));
    return static_cast<T>(value);
  }
  template <std::size_t size>
  std::array<std::byte, size> get_bytes() {
    std::array<std::byte, size> bytes;
    std::copy_n(left_.begin(), size, bytes.begin());
    left_ = left_.subspan(size);
    return bytes;
  }
  Landing get_landing() {
    Landing landing;
    landing.address = get<std::uint64_t>();
    landing.key = get<std::uint32_t>();
    landing.length_bytes = get<std::uint32_t>();
    return landing;
  }

 private:
  std::span<const std::byte> left_;
};

tl::unexpected<Error> corrupt(const char* operation) {
  return fail(make_error(ErrorCode::kCorrupt, operation, {}, "the peer is no libmigrate"));
}

/// Checks head and length; what follows the head.
Result<Reader> open_message(std::span<const std::byte> bytes, std::size_t length,
                            const char* operation) {
  if (bytes.size() < length || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return corrupt(operation);
  }
  Reader reader(bytes.subspan(kMagic.size()));
  const auto version = reader.get<std::uint16_t>();
  if (version != kProtocolVersion) {
    return fail(make_error(ErrorCode::kUnsupported, operation, "version " + std::to_string(version),
                           "this side speaks version " + std::to_string(kProtocolVersion) +
                               "; run the same version on both hosts"));
  }
  return reader;
}

}  // namespace

std::array<std::byte, kRequestBytes> encode_request(const Request& request) {
  std::array<std::byte, kRequestBytes> bytes{};
  Writer writer(bytes);
  writer.put(static_cast<std::uint8_t>(request.greeting.purpose));
  writer.put(std::uint8_t{0});
  writer.put_bytes(request.greeting.session);
  writer.put_bytes(request.greeting.token);
  writer.put_landing(request.landing);
  return bytes;
}

std::array<std::byte, kReplyBytes> encode_reply(const Landing& landing) {
  std::array<std::byte, kReplyBytes> bytes{};
  Writer writer(bytes);
  writer.put(std::uint16_t{0});
  writer.put_landing(landing);
  return bytes;
}

std::array<std::byte, kRejectBytes> encode_reject(RejectReason reason) {
  std::array<std::byte, kRejectBytes> bytes{};
  Writer(bytes).put(static_cast<std::uint16_t>(reason));
  return bytes;
}

Result<Request> decode_request(std::span<const std::byte> bytes) {
  Reader reader = MIGRATE_TRY(open_message(bytes, kRequestBytes, "read an RDMA request"));
  Request request;
  request.greeting.purpose = static_cast<Purpose>(reader.get<std::uint8_t>());
  if (reader.get<std::uint8_t>() != 0) {
    return corrupt("read an RDMA request");
  }
  request.greeting.session = reader.get_bytes<sizeof(SessionId)>();
  request.greeting.token = reader.get_bytes<sizeof(PageToken)>();
  request.landing = reader.get_landing();
  return request;
}

Result<Landing> decode_reply(std::span<const std::byte> bytes) {
  Reader reader = MIGRATE_TRY(open_message(bytes, kReplyBytes, "read an RDMA reply"));
  if (reader.get<std::uint16_t>() != 0) {
    return corrupt("read an RDMA reply");
  }
  return reader.get_landing();
}

Error rejection(std::span<const std::byte> bytes, const std::string& object) {
  std::string why = "it was rejected";
  if (bytes.size() >= kRejectBytes &&
      std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0) {
    Reader reader(bytes.subspan(kHeadBytes));
    switch (static_cast<RejectReason>(reader.get<std::uint16_t>())) {
      case RejectReason::kVersion:
        why = "the listener speaks another version; run the same version on both hosts";
        break;
      case RejectReason::kSession:
        why = "the listener serves another session, or the token is wrong";
        break;
      case RejectReason::kPurpose:
        why = "the listener takes no connection for this purpose";
        break;
      case RejectReason::kResources:
        why =
            "the listener could not set it up; its log tells why. Most often it may not pin enough "
            "memory: raise RLIMIT_MEMLOCK there (ulimit -l, LimitMEMLOCK=)";
        break;
    }
  }
  return make_error(ErrorCode::kRefused, "connect to", object, std::move(why));
}

}  // namespace migrate::rdma
