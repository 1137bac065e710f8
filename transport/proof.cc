#include "transport/proof.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>

namespace migrate {
namespace {

constexpr std::size_t kChallengeBytes = 32;
constexpr std::size_t kProofBytes = 32;  // of SHA-256
using Challenge = std::array<std::byte, kChallengeBytes>;
using Proof = std::array<std::byte, kProofBytes>;

unsigned char* raw(std::span<std::byte> bytes) {
  return reinterpret_cast<unsigned char*>(bytes.data());
}

Result<Proof> prove(const std::string& token, const Challenge& challenge,
                    const Preamble& preamble) {
  const auto bound = encode(preamble);
  std::array<std::byte, kChallengeBytes + kPreambleBytes> message;
  std::copy(bound.begin(), bound.end(),
            std::copy(challenge.begin(), challenge.end(), message.begin()));
  Proof proof{};
  unsigned length = 0;
  if (token.empty() ||
      ::HMAC(::EVP_sha256(), token.data(), static_cast<int>(token.size()), raw(message),
             message.size(), raw(proof), &length) == nullptr ||
      length != proof.size()) {
    return fail(make_error(ErrorCode::kSystem, "make the proof of a token"));
  }
  return proof;
}

}  // namespace

Result<void> ask_proof(Channel& channel, const std::string& token, const Preamble& preamble,
                       int timeout_ms) {
  Challenge challenge{};
  if (::RAND_bytes(raw(challenge), static_cast<int>(challenge.size())) != 1) {
    return fail(make_error(ErrorCode::kSystem, "get random bytes"));
  }
  MIGRATE_TRY(channel.send_one(challenge));
  const Proof expected = MIGRATE_TRY(prove(token, challenge, preamble));
  const std::span<const std::byte> answer = MIGRATE_TRY(channel.receive(0, timeout_ms));
  if (answer.size() != expected.size() ||
      ::CRYPTO_memcmp(answer.data(), expected.data(), expected.size()) != 0) {
    return fail(make_error(ErrorCode::kRefused, "let in a connection", "its proof is wrong",
                           "its token is another one's, or an old answer was replayed"));
  }
  return {};
}

Result<void> give_proof(Channel& channel, const std::string& token, const Preamble& preamble,
                        int timeout_ms) {
  const std::span<const std::byte> question = MIGRATE_TRY(channel.receive(0, timeout_ms));
  Challenge challenge{};
  if (question.size() != challenge.size()) {
    return fail(make_error(ErrorCode::kCorrupt, "read a peer's question for the token"));
  }
  std::copy(question.begin(), question.end(), challenge.begin());
  const Proof proof = MIGRATE_TRY(prove(token, challenge, preamble));
  return channel.send_one(proof);
}

}  // namespace migrate
