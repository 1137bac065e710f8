#include "transport/munge.h"

#ifdef MIGRATE_HAVE_MUNGE
#include <munge.h>
#endif
#include <openssl/rand.h>

#include <array>
#include <cstdlib>
#include <memory>

namespace migrate {
namespace {

constexpr std::size_t kNonceBytes = 32;
constexpr std::size_t kMaxCredentialBytes = std::size_t{64} * 1024;
// What each side's credential begins with, so that neither serves as the other's.
constexpr const char* kClientMark = "libmigrate client";
constexpr const char* kServerMark = "libmigrate server";

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Result<std::string> random_nonce() {
  std::array<unsigned char, kNonceBytes> bytes{};
  if (::RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
    return fail(make_error(ErrorCode::kSystem, "get random bytes"));
  }
  return text_of(std::as_bytes(std::span(bytes)));
}

Result<void> send_text(Channel& channel, const std::string& text) {
  return channel.send_one(std::as_bytes(std::span(text)));
}

Result<std::string> receive_text(Channel& channel, int timeout_ms) {
  const auto bytes = MIGRATE_TRY(channel.receive(0, timeout_ms));
  if (bytes.size() > kMaxCredentialBytes) {
    return fail(make_error(ErrorCode::kCorrupt, "read a MUNGE credential", "too long"));
  }
  return text_of(bytes);
}

#ifdef MIGRATE_HAVE_MUNGE

struct FreeContext {
  void operator()(munge_ctx_t context) const { ::munge_ctx_destroy(context); }
};
using UniqueContext = std::unique_ptr<munge_ctx, FreeContext>;

struct FreeBytes {
  void operator()(void* bytes) const { std::free(bytes); }  // libmunge allocates by malloc.
};

Result<UniqueContext> make_context(const std::string& socket) {
  UniqueContext context(::munge_ctx_create());
  if (!context || (!socket.empty() && ::munge_ctx_set(context.get(), MUNGE_OPT_SOCKET,
                                                      socket.c_str()) != EMUNGE_SUCCESS)) {
    return fail(make_error(ErrorCode::kSystem, "use MUNGE", socket, "no memory"));
  }
  return context;
}

Error munge_error(const char* operation, const UniqueContext& context, munge_err_t error) {
  const char* reason = ::munge_ctx_strerror(context.get());
  return make_error(ErrorCode::kRefused, operation, "of MUNGE",
                    reason != nullptr ? reason : ::munge_strerror(error));
}

#endif

}  // namespace

#ifdef MIGRATE_HAVE_MUNGE

Result<Munge> Munge::create(const std::string& socket) {
  Munge munge(socket);
  MIGRATE_TRY(munge.encode(std::string()));
  return munge;
}

Result<std::string> Munge::encode(const std::string& payload) const {
  const UniqueContext context = MIGRATE_TRY(make_context(socket_));
  char* text = nullptr;
  const munge_err_t error =
      ::munge_encode(&text, context.get(), payload.data(), static_cast<int>(payload.size()));
  const std::unique_ptr<char, FreeBytes> owned(text);
  if (error != EMUNGE_SUCCESS) {
    return fail(munge_error("make a credential", context, error));
  }
  return std::string(text);
}

Result<void> Munge::check(const std::string& credential, const std::string& payload) const {
  const UniqueContext context = MIGRATE_TRY(make_context(socket_));
  void* bytes = nullptr;
  int length = 0;
  uid_t user = static_cast<uid_t>(-1);
  gid_t group = static_cast<gid_t>(-1);
  const munge_err_t error =
      ::munge_decode(credential.c_str(), context.get(), &bytes, &length, &user, &group);
  const std::unique_ptr<void, FreeBytes> owned(bytes);
  if (error != EMUNGE_SUCCESS) {
    return fail(munge_error("check a credential", context, error));
  }
  if (user != 0) {
    return fail(make_error(ErrorCode::kRefused, "check a credential", "of MUNGE",
                           "it is user " + std::to_string(user) + "'s, not a daemon's"));
  }
  if (std::string(static_cast<const char*>(bytes), static_cast<std::size_t>(length)) != payload) {
    return fail(make_error(ErrorCode::kRefused, "check a credential", "of MUNGE",
                           "it was made for another connection"));
  }
  return {};
}

#else

Result<Munge> Munge::create(const std::string&) {
  return fail(make_error(ErrorCode::kUnsupported, "use MUNGE", {},
                         "this build is without it; install libmunge-dev and build again"));
}

Result<std::string> Munge::encode(const std::string&) const {
  return fail(make_error(ErrorCode::kUnsupported, "use MUNGE"));
}

Result<void> Munge::check(const std::string&, const std::string&) const {
  return fail(make_error(ErrorCode::kUnsupported, "use MUNGE"));
}

#endif

// The server's nonce makes the client's credential one for this connection only, and the client's
// the server's.
Result<void> Munge::prove_as_client(Channel& channel, const Preamble& preamble,
                                    int timeout_ms) const {
  const std::string bound = text_of(migrate::encode(preamble));
  const std::string theirs = MIGRATE_TRY(receive_text(channel, timeout_ms));
  const std::string ours = MIGRATE_TRY(random_nonce());
  MIGRATE_TRY(send_text(channel, ours));
  MIGRATE_TRY(send_text(channel, MIGRATE_TRY(encode(kClientMark + bound + theirs))));
  return check(MIGRATE_TRY(receive_text(channel, timeout_ms)), kServerMark + bound + ours);
}

Result<void> Munge::prove_as_server(Channel& channel, const Preamble& preamble,
                                    int timeout_ms) const {
  const std::string bound = text_of(migrate::encode(preamble));
  const std::string ours = MIGRATE_TRY(random_nonce());
  MIGRATE_TRY(send_text(channel, ours));
  const std::string theirs = MIGRATE_TRY(receive_text(channel, timeout_ms));
  MIGRATE_TRY(check(MIGRATE_TRY(receive_text(channel, timeout_ms)), kClientMark + bound + ours));
  return send_text(channel, MIGRATE_TRY(encode(kServerMark + bound + theirs)));
}

}  // namespace migrate
