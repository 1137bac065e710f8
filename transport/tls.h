#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "transport/channel.h"
#include "transport/frame.h"
#include "transport/peer_identity.h"
#include "transport/tcp.h"
#include "transport/wait.h"

namespace migrate {

/// This host's certificate and key, and the authority that peers' certificates must come from.
/// TLS 1.3 only, and both sides must show a certificate. Copies share; const-thread-safe.
class TlsContext {
 public:
  /// Reads PEM files: `certificate` (with its chain, if any), its private `key`, and the
  /// certificate of the `authority`. Errors: kNotFound, kSystem (a file), kCorrupt (no such
  /// thing in a file, key and certificate do not match), kRefused (others may read the key, or a
  /// file or its directory is another user's than root or this process's, or others may write it).
  static Result<TlsContext> create(const std::string& certificate, const std::string& key,
                                   const std::string& authority);

  /// Whom this host's certificate names.
  PeerIdentity own_identity() const;

 private:
  friend class TlsChannel;
  struct State;
  explicit TlsContext(std::shared_ptr<const State> state) : state_(std::move(state)) {}

  std::shared_ptr<const State> state_;
};

struct TlsOptions {
  /// The host name or numeric address that the peer's certificate must be for; empty for any that
  /// the authority signed. A connecting side should always give the host it meant.
  std::string expected_host = {};
  /// What was exchanged in the clear before (the preamble), at most 255 bytes. Both sides must give
  /// the same, else someone on the way changed it.
  std::vector<std::byte> binding = {};
  int handshake_timeout_ms = 5000;
  TcpOptions tcp = {};
  /// Records of 16 KiB sent under one key; below what AES-GCM allows (RFC 8446, 5.5).
  std::uint64_t records_per_key = 1U << 23U;
};

/// A Channel over TLS 1.3, frames as in transport/frame.h. Sending and receiving threads share a
/// lock for the time that one record (16 KiB) is encrypted or decrypted, never while they wait.
class TlsChannel final : public Channel, private ByteSource {
 public:
  /// Takes over a connected socket and makes it a channel, as the client or the server of the
  /// handshake. When it returns, both sides have accepted each other. Blocks up to
  /// options.handshake_timeout_ms. Errors: kRefused (a certificate of either side, or the binding),
  /// kCorrupt (the peer does not speak TLS 1.3), kRetry (timeout), kPeerLost, kInvalid (options),
  /// kSystem.
  static Result<std::unique_ptr<TlsChannel>> connect(UniqueFd fd, const TlsContext& context,
                                                     const TlsOptions& options);
  static Result<std::unique_ptr<TlsChannel>> accept(UniqueFd fd, const TlsContext& context,
                                                    const TlsOptions& options);
  ~TlsChannel() override;

  Result<void> send(std::span<const std::span<const std::byte>> parts) override;
  Result<std::optional<std::span<const std::byte>>> try_receive() override;
  Result<std::span<const std::byte>> receive(std::uint32_t spin_us = 0,
                                             int timeout_ms = -1) override;
  int poll_fd() const override { return fd_.get(); }
  Result<bool> arm() override { return !drained_ || reader_.has_message(); }
  std::uint64_t bytes_sent() const override;
  std::uint64_t bytes_received() const override {
    return received_.load(std::memory_order_relaxed);
  }
  void shutdown() override;

  /// Constant after construction.
  const PeerIdentity& identity() const { return identity_; }

 private:
  enum class Role { kClient, kServer };
  struct Session;  // what OpenSSL works on
  static constexpr std::size_t kRecordBytes = 16384;

  TlsChannel(UniqueFd fd, TlsContext context, FrameReader reader);
  static Result<std::unique_ptr<TlsChannel>> make(UniqueFd fd, const TlsContext& context,
                                                  const TlsOptions& options, Role role);
  void part();
  Result<void> shake_hands(const TlsOptions& options, Role role);
  Result<void> exchange_binding(const TlsOptions& options, Role role, const Deadline& deadline);
  Result<void> await_readable(const Deadline& deadline);
  Result<std::size_t> fetch();
  Result<std::size_t> read_some(std::span<std::byte> buffer) override;
  Result<void> write_record(std::span<const std::byte> bytes);
  Error failed(const char* operation, int ssl_error);
  Error lost(const char* operation) const;

  const UniqueFd fd_;
  const TlsContext context_;
  const std::string peer_;
  PeerIdentity identity_;
  std::string expected_host_;
  std::uint64_t records_per_key_ = 0;
  bool established_ = false;

  Mutex mutex_;  // what session_ points to is used under it
  std::unique_ptr<Session> session_;

  // Receiving thread.
  FrameReader reader_;
  std::vector<std::byte> raw_;
  bool drained_ = true;  // all that was fetched is decrypted and handed on

  // Sending thread.
  std::vector<std::byte> record_;
  std::uint64_t records_ = 0;

  std::atomic<bool> broken_{false};
  std::atomic<std::uint64_t> received_{0};
};

}  // namespace migrate
