#pragma once

#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/links/stream_ids.h"
#include "libmigrate/relay/guest_exit.h"
#include "libmigrate/relay/guest_gateway.h"
#include "libmigrate/relay/guest_listener.h"
#include "libmigrate/relay/guest_stream.h"
#include "libmigrate/relay/link.h"
#include "libmigrate/relay/relay_parts.h"

namespace migrate {

/// The guest side of the link to home: stands for the outside world towards a moved process.
///
/// Life: create, create_endpoints, attach (home learns of us but stays with the older place),
/// activate (the process runs here), then poll: collect_poll_fds, poll, handle. A link that breaks
/// is dropped: connected() is false until the owner attaches another. A further move: freeze_state,
/// then thaw, or destroy the relay when the process runs elsewhere.
/// Threads: one owner thread. Nothing blocks. SIGPIPE is set to be ignored.
class GuestRelay {
 public:
  /// Called from handle(). They may call the relay, but not destroy it.
  struct Handlers {
    /// Deliver this signal (siginfo_t, 128 bytes); called once for each, in order.
    std::function<void(std::span<const std::byte> siginfo)> on_signal;
    /// The state may have changed: note() and ends() are to be kept now, before home is told of it.
    std::function<void()> on_change = [] {};
    /// Home's shell has given its terminal to the process's group, or taken it back.
    std::function<void(bool in_foreground)> on_foreground = [](bool) {};
  };

  /// From fresh state or from that of freeze_state() at another host. Errors: kCorrupt.
  static Result<std::unique_ptr<GuestRelay>> create(const wire::RelayState& state,
                                                    Handlers handlers);

  /// From what note() gave to a worker that is dead, with the ends that ends() told of.
  struct Adopted {
    std::uint32_t id = 0;
    RelayEnd::Kind kind = RelayEnd::Kind::kIn;
    UniqueFd fd;
  };
  static Result<std::unique_ptr<GuestRelay>> adopt(const wire::GuestRelayState& state,
                                                   std::vector<Adopted> ends, Handlers handlers);
  wire::GuestRelayState note() const;
  std::vector<RelayEnd> ends() const;

  /// Makes the process's ends, which are its user's: he may open them again by their names in
  /// /proc. Call once; install them in the process before closing them, as the last close is the
  /// end of file. Streams of both directions are socket pairs, others pipes; terminals are made of
  /// `terminals`, connections and listeners of `network`; if there is none for one, the process has
  /// closed it, or not accepted it yet. Errors: kSystem.
  Result<std::vector<StreamEndpoint>> create_endpoints(uid_t owner, gid_t group,
                                                       std::vector<TerminalParts> terminals = {},
                                                       NetworkParts network = {});

  /// What sockets send that no stream is for goes to home by this. Call before activate(), if at
  /// all.
  void set_gateway(Gateway gateway) { gateway_.emplace(std::move(gateway)); }

  /// Brings a datagram to a socket in the cell, as what has come to it before it was moved. Errors:
  /// kCorrupt.
  Result<void> bring(const wire::RelayDatagram& datagram) {
    return gateway_ ? gateway_->accept_datagram(datagram) : Result<void>();
  }

  /// Takes a new link to home in place of any older one.
  void attach(std::unique_ptr<Channel> channel);
  /// The stream of the connection that the process has as a socket with this inode, of those that
  /// home has accepted, or the listener, of those that it has made here.
  std::optional<std::uint64_t> accepted_stream(std::uint64_t inode);

  /// The process runs here: home shall use this link from now on. Call once.
  void activate();
  bool connected() const { return link_ != nullptr; }
  /// Home has accepted this link as the present one.
  bool established() const { return established_; }
  std::uint64_t epoch() const { return state_epoch_; }

  /// Adds what to poll; returns the longest time to sleep in milliseconds: 0 for not at all, -1
  /// for no limit.
  int collect_poll_fds(std::vector<pollfd>& descriptors);
  /// Does everything that can be done now. Call when poll returns for whatever reason. A lost link
  /// is no error. Errors: kCorrupt (home broke the protocol; that link was dropped, the relay
  /// itself is intact).
  Result<void> handle();

  /// Stops all relaying and takes out what the process has written. Call when every thread of the
  /// process is stopped. The state is for the next place: its epoch is one more.
  wire::RelayState freeze_state();
  /// The move came to nothing: goes on as before freeze_state().
  void thaw() { place_ = Place::kHere; }

  /// Tells home that the process was stopped by `signal`, or with 0 that it goes on. Once it has
  /// stopped, its terminals are home's again.
  void report_job_state(int stopped_signal);
  /// Tells home where the process is now.
  void report_location(const std::string& host, const std::string& session);
  /// Tells home how many pages the host at `by`, which is not home, owes to the process.
  void report_owed(std::uint64_t pages, const std::string& by);
  /// The process has ended: takes out the rest of its output, then tells home, again on every
  /// link until home has confirmed it. `keep_streams`: descendants live, and may use them.
  /// `lost`: for people, why it did not end by itself.
  /// `positions`: of shared files, by their id. `core`: of its core dump.
  void report_exit(int wait_status, bool keep_streams = false, const std::string& lost = {},
                   const std::map<std::uint64_t, std::uint64_t>& positions = {},
                   const IncompleteCore& core = {});
  /// After report_exit(): so have its descendants, if any were left.
  void report_descendants_ended();

  /// Home has everything: all output, and the exit if it was reported.
  bool flushed() const;
  bool exit_acknowledged() const { return exit_.is_acknowledged(); }
  /// Home has said that the process is over for it, and nobody there hears of it any more.
  bool home_over() const { return exit_.is_home_over(); }

 private:
  /// Where the process runs, as far as this relay is asked to know.
  enum class Place : std::uint8_t {
    kElsewhere,  // or nowhere yet: not activated
    kHere,
    kFrozen,  // here, between freeze_state() and thaw(): nothing is relayed
  };

  explicit GuestRelay(Handlers handlers) : handlers_(std::move(handlers)) {}

  void receive_all(Result<void>& outcome);
  Result<void> dispatch(const wire::RelayMessage& message);
  Result<void> accept_resumed(const wire::RelayResumed& resumed);
  Result<void> accept_signal(const wire::RelaySignal& signal);
  Result<void> accept_accepted(const wire::RelayAccepted& accepted);
  Result<void> dispatch_to_gateway(const wire::RelayMessage& message);
  void adopt_gateway(UniqueFd device);
  Result<void> dispatch_to_stream(const wire::RelayMessage& message);
  Result<void> create_connection(std::uint32_t id, GuestStream& stream, NetworkParts& network,
                                 std::vector<StreamEndpoint>& endpoints);
  Result<void> create_listeners(std::vector<ListenerParts> parts,
                                std::vector<StreamEndpoint>& endpoints);
  void adopt_listeners(const wire::GuestRelayState& state, std::vector<Adopted>& ends);
  void note_listeners(wire::GuestRelayState& state) const;
  Result<void> load_listeners(const wire::RelayState& state);
  void save_listeners(wire::RelayState& state) const;
  static Result<StreamEndpoint> end_of_nothing(ConnectionParts parts);
  void begin_call(GuestStream& stream);
  void pump_calls();
  void pump_listeners();
  void find_listeners(const std::vector<TcpWatch::Listener>& seen);
  bool add_listener(const TcpWatch::Listener& seen);
  void follow_calls();
  void send_unlistened(std::uint32_t listener);
  void retire_streams();
  Result<GuestStream*> find(std::uint32_t id);
  Result<void> pump_stream(GuestStream& stream);
  void drain_all();
  void pump_link();
  void drop_link();
  bool is_linked() const { return link_ != nullptr && established_; }
  bool runs_here() const { return place_ != Place::kElsewhere; }
  void send_activate();
  void send_exit();
  void note_ends(bool over);
  void send_job_state();
  void send_location();
  void send_owed();

  Handlers handlers_;
  std::map<std::uint32_t, GuestStream> streams_;
  std::map<std::uint32_t, GuestListener> listeners_;
  std::optional<GuestGateway> gateway_;  // if the cell has a network of its own
  std::uint32_t next_accepted_ = 0;  // the least id of a connection that home has yet to tell of
  std::uint32_t next_listener_ = kFirstMadeListener;
  std::unique_ptr<Link> link_;
  std::uint64_t state_epoch_ = 1;
  std::uint64_t attempt_ = 0;
  std::uint64_t next_signal_ = 1;
  std::uint64_t acked_signal_ = 0;
  std::uint32_t stopped_signal_ = 0;
  std::optional<wire::RelayLocated> location_;
  std::optional<wire::RelayOwed> owed_;
  GuestExit exit_;
  Place place_ = Place::kElsewhere;
  bool established_ = false;  // home has accepted link_ as the present one
};

}  // namespace migrate
