#include "transport/tls.h"

#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <tuple>

#include "transport/connection.h"
#include "transport/internal/openssl.h"
#include "transport/internal/tls_identity.h"
#include "transport/internal/tls_wire.h"
#include "transport/preamble.h"

namespace migrate {
namespace {

constexpr std::size_t kFetchBytes = std::size_t{64} * 1024;  // four records
constexpr std::size_t kMaxBindingBytes = 255;
constexpr int kPartingMs = 500;
constexpr std::size_t kMaxPartingBytes = std::size_t{256} * 1024;

}  // namespace

struct TlsChannel::Session {
  TlsWire wire;
  UniqueSsl ssl;  // uses wire, so it goes first
};

TlsChannel::TlsChannel(UniqueFd fd, TlsContext context, FrameReader reader)
    : fd_(std::move(fd)),
      context_(std::move(context)),
      peer_(peer_name(fd_.get())),
      session_(std::make_unique<Session>()),
      reader_(std::move(reader)),
      raw_(kFetchBytes) {
  record_.reserve(kRecordBytes);
}

TlsChannel::~TlsChannel() = default;

Result<std::unique_ptr<TlsChannel>> TlsChannel::connect(UniqueFd fd, const TlsContext& context,
                                                        const TlsOptions& options) {
  return make(std::move(fd), context, options, Role::kClient);
}

Result<std::unique_ptr<TlsChannel>> TlsChannel::accept(UniqueFd fd, const TlsContext& context,
                                                       const TlsOptions& options) {
  return make(std::move(fd), context, options, Role::kServer);
}

Result<std::unique_ptr<TlsChannel>> TlsChannel::make(UniqueFd fd, const TlsContext& context,
                                                     const TlsOptions& options, Role role) {
  if (options.binding.size() > kMaxBindingBytes || options.records_per_key == 0) {
    return fail(make_error(ErrorCode::kInvalid, "start TLS", "options"));
  }
  MIGRATE_TRY(prepare_tcp(fd.get(), options.tcp));
  FrameReader reader = MIGRATE_TRY(FrameReader::create());
  std::unique_ptr<TlsChannel> channel(new TlsChannel(std::move(fd), context, std::move(reader)));
  auto shaken = channel->shake_hands(options, role);
  if (!shaken) {
    channel->part();
    return fail(std::move(shaken).error());
  }
  channel->established_ = true;
  return channel;
}

/// Ends a failed handshake. Closing with unread bytes would reset the connection, and the peer
/// might never see the alert that says why; so what it still sends is read first, for a while.
void TlsChannel::part() {
  std::ignore = ::shutdown(fd_.get(), SHUT_WR);
  const Deadline deadline(kPartingMs);
  for (std::size_t taken = 0; taken < kMaxPartingBytes;) {
    const auto events = wait_for(fd_.get(), POLLIN, deadline);
    const ssize_t count =
        events.value_or(0) == 0 ? 0 : ::recv(fd_.get(), raw_.data(), raw_.size(), MSG_DONTWAIT);
    if (count <= 0) {
      return;
    }
    taken += static_cast<std::size_t>(count);
  }
}

Result<void> TlsChannel::shake_hands(const TlsOptions& options, Role role) {
  const Deadline deadline(options.handshake_timeout_ms);
  records_per_key_ = options.records_per_key;
  expected_host_ = options.expected_host;
  session_->wire.fd = fd_.get();
  session_->ssl.reset(::SSL_new(context_.state_->context.get()));
  UniqueBio bio = make_wire_bio(context_.state_->wire_method.get(), session_->wire);
  SSL* ssl = session_->ssl.get();
  if (ssl == nullptr || !bio || !expect_host(ssl, options.expected_host)) {
    return fail(openssl_error(ErrorCode::kSystem, "start TLS with", peer_));
  }
  BIO* both = bio.release();
  ::SSL_set_bio(ssl, both, both);
  (role == Role::kClient ? ::SSL_set_connect_state : ::SSL_set_accept_state)(ssl);
  for (;;) {
    ::ERR_clear_error();
    const int status = ::SSL_do_handshake(ssl);
    if (status == 1) {
      break;
    }
    const int reason = ::SSL_get_error(ssl, status);
    if (reason == SSL_ERROR_WANT_WRITE) {
      MIGRATE_TRY(wait_until_writable(fd_.get(), peer_));
    } else if (reason == SSL_ERROR_WANT_READ) {
      if (MIGRATE_TRY(fetch()) == 0) {
        MIGRATE_TRY(await_readable(deadline));
      }
    } else {
      // A daemon of another version, or without a place, says so in the clear.
      const std::size_t answered = received_.load(std::memory_order_relaxed);
      if (auto refused = refusal_in(std::span(raw_).first(std::min(answered, raw_.size())));
          refused && answered == kPreambleBytes) {
        return fail(std::move(*refused));
      }
      return fail(failed("shake hands with", reason));
    }
  }
  identity_ = identity_of(::SSL_get0_peer_certificate(ssl));
  drained_ = false;  // the peer's first record may have come along with its last of the handshake
  MIGRATE_TRY(exchange_binding(options, role, deadline));
  return {};
}

// The client's certificate is checked by the server after the client's handshake is done: only the
// server's answer tells the client that it was accepted. The answer repeats what was bound.
Result<void> TlsChannel::exchange_binding(const TlsOptions& options, Role role,
                                          const Deadline& deadline) {
  std::vector<std::byte> own{static_cast<std::byte>(options.binding.size())};
  own.insert(own.end(), options.binding.begin(), options.binding.end());
  if (role == Role::kClient) {
    MIGRATE_TRY(write_record(own));
  }
  std::vector<std::byte> theirs(own.size());
  for (std::size_t filled = 0; filled < theirs.size();) {
    const std::size_t count = MIGRATE_TRY(read_some(std::span(theirs).subspan(filled)));
    filled += count;
    if (filled > 0 && theirs[0] != own[0]) {
      break;
    }
    if (count == 0) {
      MIGRATE_TRY(await_readable(deadline));
    }
  }
  if (theirs != own) {
    return fail(make_error(ErrorCode::kRefused, "shake hands with", peer_,
                           "what it sent in the clear before TLS was changed on the way"));
  }
  if (role == Role::kServer) {
    MIGRATE_TRY(write_record(own));
  }
  return {};
}

Error TlsChannel::lost(const char* operation) const {
  return make_error(ErrorCode::kPeerLost, operation, peer_);
}

/// The Error of a call that OpenSSL gave up; the connection is of no further use.
Error TlsChannel::failed(const char* operation, int ssl_error) {
  const int number = errno;
  const unsigned long code = ::ERR_peek_error();
  const int reason = ERR_GET_REASON(code);
  if (established_) {
    shutdown();
  }
  if (ssl_error == SSL_ERROR_ZERO_RETURN) {
    return lost(operation);
  }
  if (ssl_error == SSL_ERROR_SYSCALL && code == 0) {
    errno = number;
    return socket_error(operation, peer_);
  }
  if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
    ::ERR_clear_error();
    return make_error(ErrorCode::kRefused, operation, peer_,
                      why_not_trusted(session_->ssl.get(), expected_host_));
  }
  if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
    return openssl_error(ErrorCode::kRefused, operation, peer_);
  }
  if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET) {
    return openssl_error(ErrorCode::kRefused, operation, peer_,
                         "the peer refused this host; check that both certificates are of the "
                         "same authority and for the names used");
  }
  return openssl_error(ErrorCode::kCorrupt, operation, peer_);
}

Result<void> TlsChannel::await_readable(const Deadline& deadline) {
  if (MIGRATE_TRY(wait_for(fd_.get(), POLLIN, deadline)) == 0) {
    return fail(make_error(ErrorCode::kRetry, "shake hands with", peer_,
                           "it did not answer in the time given"));
  }
  return {};
}

/// Takes encrypted bytes from the socket for OpenSSL to read; 0 if there are none. Only when what
/// was fetched before is used up. Outside the lock, so that polling does not disturb the sender.
Result<std::size_t> TlsChannel::fetch() {
  for (;;) {
    const ssize_t count = ::recv(fd_.get(), raw_.data(), raw_.size(), MSG_DONTWAIT);
    if (count > 0) {
      const auto size = static_cast<std::size_t>(count);
      received_.fetch_add(size, std::memory_order_relaxed);
      const MutexLock lock(mutex_);
      session_->wire.incoming = std::span(raw_).first(size);
      return size;
    }
    if (count == 0) {
      return fail(lost("receive from"));
    }
    if (errno == EAGAIN) {
      return 0;
    }
    if (errno != EINTR) {
      return fail(socket_error("receive from", peer_));
    }
  }
}

Result<std::size_t> TlsChannel::read_some(std::span<std::byte> buffer) {
  for (;;) {
    if (drained_) {
      if (MIGRATE_TRY(fetch()) == 0) {
        return 0;
      }
      drained_ = false;
    }
    const MutexLock lock(mutex_);
    ::ERR_clear_error();
    std::size_t count = 0;
    const int status = ::SSL_read_ex(session_->ssl.get(), buffer.data(), buffer.size(), &count);
    if (status == 1) {
      return count;
    }
    const int reason = ::SSL_get_error(session_->ssl.get(), status);
    if (reason == SSL_ERROR_WANT_WRITE) {
      return 0;  // the sender is in the middle of a change of keys
    }
    if (reason != SSL_ERROR_WANT_READ) {
      return fail(failed("receive from", reason));
    }
    drained_ = true;
  }
}

Result<void> TlsChannel::write_record(std::span<const std::byte> bytes) {
  bool change_key = ++records_ % records_per_key_ == 0;
  while (!bytes.empty()) {
    if (broken_.load(std::memory_order_relaxed)) {
      return fail(lost("send to"));
    }
    {
      const MutexLock lock(mutex_);
      SSL* ssl = session_->ssl.get();
      ::ERR_clear_error();
      if (std::exchange(change_key, false) &&
          ::SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED) != 1) {
        return fail(failed("send to", SSL_ERROR_SSL));
      }
      std::size_t count = 0;
      const int status = ::SSL_write_ex(ssl, bytes.data(), bytes.size(), &count);
      if (status == 1) {
        bytes = bytes.subspan(count);
        continue;
      }
      const int reason = ::SSL_get_error(ssl, status);
      if (reason != SSL_ERROR_WANT_WRITE) {
        return fail(failed("send to", reason));
      }
    }
    MIGRATE_TRY(wait_until_writable(fd_.get(), peer_));
  }
  return {};
}

Result<void> TlsChannel::send(std::span<const std::span<const std::byte>> parts) {
  const auto header = MIGRATE_TRY(frame_header(parts));
  record_.assign(header.begin(), header.end());
  for (std::span<const std::byte> part : parts) {
    while (!part.empty()) {
      if (record_.empty() && part.size() >= kRecordBytes) {
        MIGRATE_TRY(write_record(part.first(kRecordBytes)));
        part = part.subspan(kRecordBytes);
        continue;
      }
      const std::size_t count = std::min(part.size(), kRecordBytes - record_.size());
      record_.insert(record_.end(), part.begin(),
                     part.begin() + static_cast<std::ptrdiff_t>(count));
      part = part.subspan(count);
      if (record_.size() == kRecordBytes) {
        MIGRATE_TRY(write_record(record_));
        record_.clear();
      }
    }
  }
  return write_record(record_);
}

Result<std::optional<std::span<const std::byte>>> TlsChannel::try_receive() {
  if (broken_.load(std::memory_order_relaxed)) {
    return fail(lost("receive from"));
  }
  return reader_.next(*this);
}

Result<std::span<const std::byte>> TlsChannel::receive(std::uint32_t spin_us, int timeout_ms) {
  return receive_by_polling(*this, spin_us, timeout_ms);
}

std::uint64_t TlsChannel::bytes_sent() const {
  return session_->wire.sent.load(std::memory_order_relaxed);
}

void TlsChannel::shutdown() {
  broken_.store(true, std::memory_order_relaxed);
  // Wakes whoever polls; an error means that the connection is gone already.
  std::ignore = ::shutdown(fd_.get(), SHUT_RDWR);
}

}  // namespace migrate
