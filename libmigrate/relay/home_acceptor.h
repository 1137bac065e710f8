#pragma once

#include <poll.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/proto/home.pb.h"

namespace migrate {

/// A connection that the deputy has accepted, or another socket, or a pipe, that it has made.
struct AcceptedSocket {
  UniqueFd real;
  std::uint32_t descriptor = 0;  ///< What the deputy has it as.
};

/// The listeners of a process that is away, at home, and what is to be known of the streams that
/// have come of them: those who connect wait in the kernel's queue until the process has taken
/// those before them. Part of HomeRelay; the owner's thread only; nothing blocks.
class HomeAcceptor {
 public:
  /// `descriptor`: of the deputy's, by which it has the listener; 0: as the process had it.
  using Accept =
      std::function<Result<AcceptedSocket>(std::uint32_t listener, std::uint32_t descriptor)>;
  /// Has the deputy make a listener. Errors: kRetry, kSystem (as bind(2) and listen(2) say).
  using Listen = std::function<Result<AcceptedSocket>(const wire::RelayListening& wanted)>;

  /// Streams that come have ids from `first` on. Before anything is accepted.
  void begin_at(std::uint32_t first);
  void add(std::uint32_t listener, UniqueFd real);
  /// The process has made one where it is: there is to be one here. Errors: kCorrupt.
  Result<void> want(const wire::RelayListening& wanted);
  /// What could not be made may be had by now.
  void try_again();
  /// Makes some of them, by this. Call when it has been noted that they are wanted: what a worker
  /// made that died is found by its name.
  void make_wanted(const Listen& by);

  void adopt(const wire::HomeRelayState& state);
  void note(wire::HomeRelayState& state) const;
  void note(std::uint32_t stream, wire::HomeRelayState::Stream& noted) const;

  /// Adds what to poll for accept(), unless `streams`, as many as there are, are all that may be.
  /// Gives the longest time to sleep in milliseconds; -1: no limit.
  int collect(std::vector<pollfd>& descriptors, std::size_t streams) const;
  /// Accepts one, by this, if one waits that may come. Its names are for the guest's side.
  struct New {
    std::uint32_t stream = 0;
    UniqueFd real;
  };
  std::optional<New> accept(const Accept& by, std::size_t streams);

  /// The deputy has made a connection for the `call` of the process, which is a stream as those.
  /// Its id; 0: there is no room for it.
  std::uint32_t add_called(std::uint64_t call, const AcceptedSocket& made, std::size_t streams);
  /// Whether it is one.
  bool is_called(std::uint32_t stream) const;

  /// Whether the stream is one that came, or has come and is forgotten.
  bool has(std::uint32_t stream) const { return accepted_.contains(stream); }
  bool had(std::uint32_t stream) const { return stream >= first_ && stream < next_; }
  bool may_resume_at(std::uint32_t next) const { return next <= next_; }
  /// What the other side is to be told of it, once on each link on which it does not know of it.
  const wire::RelayAccepted* news(std::uint32_t stream);
  /// Whether it knows of it.
  void set_told(std::uint32_t stream, bool is_told);
  void set_taken(std::uint32_t stream);
  bool is_taken(std::uint32_t stream) const;

  /// Of the deputy's: nothing once it has been closed there, or of a stream that did not come.
  std::optional<std::uint32_t> take_descriptor(std::uint32_t stream);
  std::set<std::uint32_t> descriptors() const;
  void forget(std::uint32_t stream) { accepted_.erase(stream); }

  /// The process has closed it, and so must the deputy: this descriptor, or with 0 those that the
  /// process had. Nothing: that has been done, or there is none.
  std::optional<std::uint32_t> close(std::uint32_t listener);
  std::vector<std::uint32_t> listeners() const;
  /// Whether there is one.
  bool is_open() const;

 private:
  struct Listener {
    UniqueFd real;                 // Not valid: it is wanted, or cannot be had.
    std::size_t most_waiting = 0;  // Accepted here, and not yet by the process.
    std::uint64_t accepted = 0;    // So many.
    std::optional<wire::RelayListening> made = std::nullopt;  // By the process where it is.
    std::uint32_t descriptor = 0;                             // The deputy's, of those.
    std::uint64_t cookie = 0;
    int error = 0;  // Why it cannot be had: errno.
  };
  struct Accepted {
    wire::RelayAccepted names;
    std::uint32_t descriptor = 0;  // 0: the deputy has closed it
    std::uint64_t cookie = 0;
    bool is_taken = false;
    bool is_told = false;
  };

  static void open(Listener& listener, UniqueFd real);
  static bool is_to_be_made(const Listener& listener);
  bool may_accept(std::uint32_t id, const Listener& listener, std::size_t streams) const;
  bool is_resting() const { return std::chrono::steady_clock::now() < rests_until_; }

  std::map<std::uint32_t, Listener> listeners_;
  std::map<std::uint32_t, Accepted> accepted_;
  std::set<std::uint32_t> closed_;
  std::uint32_t first_ = 1;
  std::uint32_t next_ = 1;
  std::chrono::steady_clock::time_point rests_until_;  // There was no room for another.
  int warnings_ = 0;  // Of listeners that cannot be had, which a place may cause without end.
};

}  // namespace migrate
