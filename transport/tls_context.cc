#include <fcntl.h>
#include <openssl/err.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "transport/internal/tls_identity.h"
#include "transport/internal/tls_wire.h"
#include "transport/tls.h"

namespace migrate {
namespace {

/// Whoever owns a file or its directory, or may write to them, chooses whom this host trusts.
Result<void> check_guarded(const char* operation, const std::string& path,
                           const struct stat& status) {
  if (status.st_uid != 0 && status.st_uid != ::geteuid()) {
    return fail(make_error(ErrorCode::kRefused, operation, path,
                           "it belongs to user " + std::to_string(status.st_uid) +
                               ", who may change it; chown it to root, and replace the keys if "
                               "that was not meant"));
  }
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return fail(make_error(ErrorCode::kRefused, operation, path,
                           "others may change it; chmod go-w it, and replace the keys if they "
                           "did"));
  }
  return {};
}

Result<void> check_directory(const char* operation, const std::filesystem::path& file) {
  const std::string directory = file.has_parent_path() ? file.parent_path().string() : ".";
  struct stat status {};
  if (::stat(directory.c_str(), &status) != 0) {
    return fail(system_error(operation, directory));
  }
  return check_guarded(operation, directory, status);
}

/// The file, the directory in which it is named, and that in which it is if it was a link.
Result<struct stat> check_file(const char* operation, const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return fail(system_error(operation, path, "make it with migratectl keys, or check the path"));
  }
  if (!S_ISREG(status.st_mode)) {
    return fail(make_error(ErrorCode::kRefused, operation, path,
                           "it is not a regular file; give a PEM file"));
  }
  MIGRATE_TRY(check_guarded(operation, path, status));
  MIGRATE_TRY(check_directory(operation, path));
  std::error_code error;
  const std::filesystem::path target = std::filesystem::canonical(path, error);
  if (error) {
    return fail(system_error_from(error.value(), operation, path));
  }
  MIGRATE_TRY(check_directory(operation, target));
  return status;
}

/// A private key that others can read is no secret.
Result<void> check_private(const char* operation, const std::string& path) {
  const struct stat status = MIGRATE_TRY(check_file(operation, path));
  if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return fail(make_error(ErrorCode::kRefused, operation, path,
                           "others may read it; chmod 600 it, and replace it if they did"));
  }
  return {};
}

Result<void> load(SSL_CTX* context, const std::string& certificate, const std::string& key,
                  const std::string& authority) {
  MIGRATE_TRY(check_file("read certificate", certificate));
  MIGRATE_TRY(check_file("read certificate of the authority", authority));
  MIGRATE_TRY(check_private("read private key", key));
  for (const std::string& path : {certificate, authority}) {
    MIGRATE_TRY(open_file(path, O_RDONLY));
  }
  ::ERR_clear_error();
  if (::SSL_CTX_use_certificate_chain_file(context, certificate.c_str()) != 1) {
    return fail(openssl_error(ErrorCode::kCorrupt, "read certificate", certificate));
  }
  if (::SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return fail(openssl_error(ErrorCode::kCorrupt, "read private key", key,
                              "it must be the key of " + certificate));
  }
  if (::SSL_CTX_load_verify_locations(context, authority.c_str(), nullptr) != 1) {
    return fail(openssl_error(ErrorCode::kCorrupt, "read certificate of the authority", authority));
  }
  return {};
}

}  // namespace

Result<TlsContext> TlsContext::create(const std::string& certificate, const std::string& key,
                                      const std::string& authority) {
  ::ERR_clear_error();
  auto state = std::make_shared<State>();
  state->wire_method = make_wire_method();
  state->context.reset(::SSL_CTX_new(::TLS_method()));
  SSL_CTX* context = state->context.get();
  // AES-128 first: as good as 256 here, and a third faster.
  if (context == nullptr || !state->wire_method ||
      SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
      ::SSL_CTX_set_ciphersuites(context,
                                 "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
                                 "TLS_CHACHA20_POLY1305_SHA256") != 1 ||
      ::SSL_CTX_set_num_tickets(context, 0) != 1) {
    return fail(openssl_error(ErrorCode::kSystem, "set up TLS", {}));
  }
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  ::SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  MIGRATE_TRY(load(context, certificate, key, authority));
  return TlsContext(std::move(state));
}

PeerIdentity TlsContext::own_identity() const {
  return identity_of(::SSL_CTX_get0_certificate(state_->context.get()));
}

}  // namespace migrate
