#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "transport/channel.h"
#include "transport/handoff.h"
#include "transport/peer_trust.h"
#include "transport/preamble.h"

namespace migrate {

/// What the daemon passed on to a worker: a peer's connection, which has been let in, or a request
/// of the local socket with the client to answer.
struct Letter {
  std::optional<Preamble> preamble;  ///< Of a peer's connection.
  std::unique_ptr<Channel> channel;  ///< That connection.
  PeerIdentity peer;                 ///< Who is at its other end.
  UniqueFd fd;                       ///< Else a client,
  std::string request;               ///< and what it asks for, JSON.
};

/// Whom a mailbox lets in.
struct Admission {
  PeerTrust trust;
  std::string token;  ///< What every peer must prove to know.
  /// For each purpose that is let in, why a peer that has proved who it is may not; empty: it may.
  std::map<Purpose, std::function<std::string(const PeerIdentity&)>> rules;
};

/// A worker's own socket, by which the daemon reaches it. Peers are let in by threads of its own,
/// so that the worker waits for no stranger. Owned by one thread.
class Mailbox {
 public:
  /// `name`: hexadecimal id of a session or process. Letters wait until open(). Errors: kSystem.
  static Result<Mailbox> create(const std::string& state_directory, const std::string& name);
  Mailbox(Mailbox&&) noexcept;
  Mailbox& operator=(Mailbox&&) noexcept;
  /// close(), and refuses letters that were not received.
  ~Mailbox();

  /// Begins to take letters; called once. From here on this process has more than one thread. If
  /// too many wait for receive(), one more is refused: a client is told to try again, and a peer
  /// that has come to stay is hung up on, which it takes for a lost connection.
  /// Errors: kSystem.
  Result<void> open(Admission admission);

  /// Takes no more: who comes from now on finds no worker. What was on its way is received like the
  /// rest; peers who have not proved who they are yet are turned away, and try again. Blocks while
  /// the last handoffs come in, a second at most for each. Ends the threads.
  void close();

  /// Polls readable when receive() has something.
  int fd() const;
  /// The next letter. Blocks up to `timeout_ms`. Errors: kRetry (timeout), kSystem; the mailbox
  /// stays usable. Who was not let in is logged, and is no error.
  Result<Letter> receive(int timeout_ms);

 private:
  class Door;
  explicit Mailbox(std::unique_ptr<Door> door);

  std::unique_ptr<Door> door_;
};

}  // namespace migrate
