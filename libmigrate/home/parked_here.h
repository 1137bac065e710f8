#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <set>

#include "base/result.h"
#include "libmigrate/home/real_files.h"
#include "libmigrate/rights/asker.h"

namespace migrate {

/// What is parked at the home of a process that is away, as the worker there sees it: its deputy or
/// its keeper. Behind it is a ParkedProcess, whose tracer is the worker; tests have another. Owned
/// by the worker's one thread.
class ParkedHere {
 public:
  ParkedHere() = default;
  ParkedHere(const ParkedHere&) = delete;
  ParkedHere& operator=(const ParkedHere&) = delete;
  virtual ~ParkedHere() = default;

  virtual pid_t process() const = 0;
  /// The number of a signal that has stopped it, 0 if nothing did, -1 if it has ended. Errors: it
  /// is gone.
  virtual Result<int> check_state() = 0;
  /// Gives all memory back that the process left here.
  virtual Result<void> free_all() = 0;
  /// Closes its descriptors of the relayed stream `id`.
  virtual Result<void> close_stream(std::uint32_t id) = 0;
  /// Accepts a connection that waits at its listener `id`, which it has as `descriptor` or, with 0,
  /// as the process had it, above all descriptors that the process had; `accepted` are those that
  /// it has accepted or made, and not closed. Errors: kRetry (its limit of descriptors is reached),
  /// kSystem.
  virtual Result<AcceptedSocket> accept(std::uint32_t id, std::uint32_t descriptor,
                                        const std::set<std::uint32_t>& accepted) = 0;
  /// Makes a listener, as HomeAcceptor::Listen says, whose descriptor is as those.
  virtual Result<AcceptedSocket> listen(const wire::RelayListening& wanted,
                                        const std::set<std::uint32_t>& accepted) = 0;
  /// Makes a socket, as MakeSocket says, whose descriptor is as those.
  virtual Result<AcceptedSocket> make_socket(int type, const SocketName& local,
                                             const SocketName* peer,
                                             const std::set<std::uint32_t>& accepted) = 0;
  /// Makes a pipe, of which it keeps an end, as a descriptor that is as those.
  virtual Result<AcceptedSocket> make_journal(const std::set<std::uint32_t>& accepted) = 0;
  /// Closes one of those.
  virtual Result<void> close_accepted(std::uint32_t descriptor) = 0;
  /// Has `files` fetch the real ends of the streams that it still has, and of those that it has
  /// accepted, of which `noted` then tells.
  virtual void fetch_streams(RealFiles& files, wire::HomeRelayState& noted) const = 0;
};

/// What is left when the deputy had to end before the children of its process.
class ParkedKeeper : public ParkedHere {
 public:
  /// Kills it.
  virtual void end() = 0;
};

/// The parked process, which becomes the deputy by settle().
class ParkedDeputy : public ParkedHere {
 public:
  /// Where its leader writes the siginfo of each signal, 128 bytes each. Borrowed.
  virtual int signal_pipe() const = 0;
  /// Sends it a signal, as from kill(2), by which it stops or goes on.
  virtual void send(int signal) const = 0;
  /// It will never be brought back: ends its threads but the leader, which waits for signals from
  /// now on, and closes what no deputy needs. `accepted`: see accept().
  virtual Result<void> settle(const std::set<std::uint32_t>& accepted) = 0;
  /// Has `files` fetch the files that an ancestor of the process has open too.
  virtual void fetch_shared(RealFiles& files) const = 0;
  /// Makes the keeper, from which the pages are served from now on. The deputy is to be ended then.
  virtual Result<std::unique_ptr<ParkedKeeper>> make_keeper(
      const std::set<std::uint32_t>& accepted) = 0;
  /// Ends it the way that `wait_status` tells.
  virtual Result<void> end_as(int wait_status) = 0;
  /// Whether the kernel lets `asker` look into it, or signal it. Errors: kRefused, kSystem. Blocks
  /// for a millisecond or so.
  virtual Result<void> let_attach(const Asker& asker) const = 0;
  virtual Result<void> let_signal(const Asker& asker) const = 0;
};

}  // namespace migrate
