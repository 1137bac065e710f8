#pragma once

#include <poll.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/relay/home_acceptor.h"
#include "libmigrate/relay/home_caller.h"
#include "libmigrate/relay/home_outgoing.h"
#include "libmigrate/relay/home_signals.h"
#include "libmigrate/relay/home_stream.h"
#include "libmigrate/relay/link.h"

namespace migrate {

/// Whether a process that reads from terminal `device` (st_rdev) now would get the input: it is in
/// the foreground, or that terminal is not its controlling one. False if the process is gone.
bool is_in_foreground(pid_t process, std::uint64_t device);

/// The home side of the link: moves bytes between the deputy's real descriptors and the place where
/// the process is, sends it signals, and learns how it ends.
///
/// Any number of links may be attached; a link counts once its side says that the process runs
/// there (a later place, or a newer link of the same place) and then replaces the older one.
/// Threads: one owner thread. Nothing blocks. SIGPIPE is set to be ignored.
class HomeRelay {
 public:
  /// A duplicate of one of the deputy's descriptors.
  struct Stream {
    std::uint32_t id = 0;
    UniqueFd real;
    wire::RelayDirection directions = wire::RELAY_NONE;
    std::optional<HomeTerminal::Found> terminal = std::nullopt;     ///< If it is one.
    std::optional<ConnectionEnd::Start> connection = std::nullopt;  ///< The same.
    bool is_listener = false;                                       ///< Of which streams come.
    UniqueFd journal = {};  ///< Of a Unix domain socket: an end of it, if another worker made one.
  };

  /// Called from handle(). They may call the relay, but not destroy it.
  struct Handlers {
    /// The process ended; all its output was written, and the real descriptors are closed unless
    /// descendants live, which may still use them.
    std::function<void(const wire::RelayExited& exited)> on_exit;
    /// Job control: stopped by a signal, going on.
    std::function<void(int signal)> on_stopped;
    std::function<void()> on_continued;
    /// The process is at this host now.
    std::function<void(const std::string& host, const std::string& session)> on_located;
    /// What owed() says has changed.
    std::function<void()> on_owed;
    /// The process closed its end of a stream (RELAY_IN or RELAY_OUT): so must the deputy.
    std::function<void(std::uint32_t id, wire::RelayDirection direction)> on_stream_closed;
    /// Has the deputy accept a connection that waits at the listener.
    HomeAcceptor::Accept on_accept;
    /// Has the deputy make a listener.
    HomeAcceptor::Listen on_listen = no_listener;
    /// Has the deputy make a socket.
    MakeSocket on_call = no_deputy;
    HomeDatagrams::LetsThrough on_datagram;  ///< None: all are let through.
    /// Has the deputy make a pipe and keep it, the journal of a Unix domain socket.
    std::function<Result<AcceptedSocket>()> on_journal = no_journal;
    /// The deputy is to close this descriptor, of those that it has accepted or made.
    std::function<void(std::uint32_t descriptor)> on_accepted_closed = [](std::uint32_t) {};
    /// The state may have changed: note() is to be kept now, before the other side is told of it.
    std::function<void()> on_change = [] {};
  };

  /// `deputy` is the process at home: from a terminal, input is taken only while the deputy is in
  /// the foreground; 0 for always.
  HomeRelay(std::vector<Stream> streams, pid_t deputy, Handlers handlers);
  /// Leaves terminals as the process would have.
  ~HomeRelay();
  HomeRelay(const HomeRelay&) = delete;
  HomeRelay& operator=(const HomeRelay&) = delete;

  /// Goes on where the relay of a worker that died ended, whose note() this is. Call first.
  void adopt(const wire::HomeRelayState& state);
  wire::HomeRelayState note() const;

  /// The sockets of UDP that the process had when it left, which the deputy has. Call first.
  void keep(std::vector<KeptDatagrams> kept) { outgoing_.datagrams().keep(std::move(kept)); }

  /// Takes a new link, which stays pending until its side activates it. At most 8 wait; an older
  /// one gives way. One that waits is told when a later place than its own has called.
  void attach(std::unique_ptr<Channel> channel);
  /// A link to the process's present place is up.
  bool connected() const { return active_ != nullptr; }
  /// For how long the other end's kernel has not said that it is there, in milliseconds; the most
  /// there is where that is not known. Only if connected().
  std::uint32_t silent_ms() const;
  /// The epoch of the present place; 0 before the first.
  std::uint64_t epoch() const { return epoch_; }

  /// What a host where the process was between home and its present place still owes to it.
  struct Owed {
    std::uint64_t pages = 0;
    std::string by;  ///< Address of that host; empty: the present place has not said it yet.
  };
  /// Nothing if the process is at the first place it went to, or is owed nothing.
  std::optional<Owed> owed() const;

  /// Adds what to poll; returns the longest time to sleep in milliseconds: 0 for not at all, -1
  /// for no limit.
  int collect_poll_fds(std::vector<pollfd>& descriptors);
  /// Does everything that can be done now. Call when poll returns for whatever reason. A lost link
  /// is no error. Errors: kCorrupt (a peer broke the protocol; its link was dropped, the relay
  /// itself is intact).
  Result<void> handle();

  /// Delivers a signal (siginfo_t, 128 bytes) to the process, once, wherever it is then. Errors:
  /// kInvalid (size), kRetry (65536 already wait).
  Result<void> send_signal(std::span<const std::byte> siginfo);

  /// on_exit was called, and its confirmation handed to the link. Keep the relay for a moment
  /// longer, until connected() is false, so that the other side gets it.
  bool finished() const { return exit_delivered_ && (!active_ || active_->link.idle()); }
  /// Of a process that has ended: so have all its descendants.
  bool all_ended() const { return all_ended_; }
  /// What the deputy has accepted or made, and not closed, of its descriptors.
  std::set<std::uint32_t> accepted_descriptors() const;
  /// Some real descriptor is still in use.
  bool streams_open() const;

 private:
  struct Peer {
    explicit Peer(std::unique_ptr<Channel> channel) : link(std::move(channel)) {}
    Link link;
    std::optional<wire::RelayResume> resume;
    bool told_newer = false;  // that there is a later place
  };

  void receive_active(Result<void>& outcome);
  void receive_pending(Result<void>& outcome);
  void tell_superseded();
  Result<bool> read_pending(Peer& peer);
  Result<void> check_resume(const Peer& peer, std::uint64_t activated_epoch) const;
  void activate(std::unique_ptr<Peer> peer);
  Result<void> dispatch(const wire::RelayMessage& message);
  void accept_job_state(const wire::RelayJobState& state);
  void stop_deputy();
  bool was_written(const google::protobuf::RepeatedPtrField<wire::RelayStreamEnd>& ends) const;
  bool may_take(const HomeStream& stream) const;
  void follow_terminals();
  void accept_exited(const wire::RelayExited& exited);
  Result<HomeStream*> find(std::uint32_t id);
  bool may_read(const HomeStream& stream) const;
  Result<void> check_streams(const wire::RelayResume& resume) const;
  void resume_streams(const wire::RelayResume& resume, wire::RelayResumed& resumed);
  bool may_accept() const { return active_ && (!exited_ || exited_->keep_streams()); }
  void accept_waiting();
  void tell_accepted();
  void pump_calls();
  void close_left();
  static Result<AcceptedSocket> no_listener(const wire::RelayListening& wanted);
  static Result<AcceptedSocket> no_journal();
  void make_journals();
  static Result<AcceptedSocket> no_deputy(int type, const SocketName& local,
                                          const SocketName* peer);
  void retire(std::uint32_t id);
  void close_listener(std::uint32_t id);
  void forget_retired();
  void pump_streams();
  void pump_link();
  void deliver_exit();
  void acknowledge_exit();
  void tell_closed();

  Handlers handlers_;
  const pid_t deputy_;
  std::map<std::uint32_t, HomeStream> streams_;
  HomeAcceptor acceptor_;
  HomeOutgoing outgoing_;
  std::set<std::uint32_t> retired_;                     // in this turn
  std::map<std::uint32_t, std::uint32_t> told_closed_;  // directions, by stream
  std::unique_ptr<Peer> active_;
  std::deque<std::unique_ptr<Peer>> pending_;
  std::uint64_t epoch_ = 0;
  std::uint64_t attempt_ = 0;
  HomeSignals signals_;
  int stopped_signal_ = 0;
  std::optional<wire::RelayJobState> stop_;  // not acted on yet
  std::optional<wire::RelayLocated> location_;
  std::optional<wire::RelayOwed> owed_;  // nothing: the present place has not told it
  std::optional<wire::RelayExited> exited_;
  bool exit_delivered_ = false;
  bool all_ended_ = false;
};

}  // namespace migrate
