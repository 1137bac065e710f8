#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/guest/guest_worker.h"
#include "libmigrate/home/home_worker.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/move/check.h"
#include "libmigrate/requests/requests.h"
#include "libmigrate/takeover/adoption.h"
#include "tools/migrated/options.h"
#include "tools/migrated/peer_log.h"
#include "tools/migrated/peer_queue.h"
#include "transport/handoff.h"
#include "transport/peer_origin.h"
#include "transport/tcp.h"

namespace migrate {

/// The accepting part of `migrated`: one thread that forks a child for each connection and reads
/// nothing but the preambles of peers, so that no connection can harm another. Children that become
/// workers outlive it. Owned by the main thread.
class Daemon {
 public:
  /// Takes the state directory (one daemon each), the local socket and the listeners.
  /// Errors: kInvalid (options or configuration), kRefused (another daemon has it), kSystem and
  /// others from files and sockets.
  static Result<Daemon> create(const DaemonOptions& options);

  Daemon(Daemon&&) noexcept = default;
  Daemon& operator=(Daemon&&) noexcept = default;

  /// Serves until SIGTERM or SIGINT. Workers go on after it returns. Blocks.
  /// Errors: kSystem, for what cannot be served around.
  Result<void> run();

 private:
  Daemon() = default;

  Result<void> take_state(const DaemonOptions& options);
  Result<void> take_socket();
  Result<void> open_queue();
  Result<void> take_addresses(const DaemonOptions& options);
  Result<void> check_page_addresses() const;
  Result<void> check_certificate() const;
  /// False once told to end.
  bool handle_signals();
  void reap();
  void note_promoted();
  void adopt_orphans();
  void start_link_keeper();
  void turn_away(int listener, const Error& error, std::string_view reply);
  void open_spare();
  void accept_local();
  void accept_peers(TcpListener& listener);
  /// True if there may be more to be served now.
  bool serve_peers();
  /// Whom a child serves that is not (yet) a worker: a local client, a peer, or nobody.
  struct Client {
    std::optional<uid_t> user;
    std::optional<PeerQueue::Place> place;
  };
  /// Whether one more local client of this user would keep others from being served.
  bool is_full(uid_t user) const;
  /// Runs `serve`, which gives the exit status, in a child that has none of the daemon's own
  /// descriptors.
  void fork_child(const Client& client, const std::function<int()>& serve);
  /// That a child needs no place any more: it has ended, or is a worker.
  void release(pid_t child, bool has_proved);
  /// In a child: makes it a worker that owns `descriptors`, and no others, and tells the daemon.
  void become_worker(std::vector<int> descriptors);

  WorkerContext context_;
  std::vector<std::string> peers_;
  std::size_t max_connections_ = 0;
  UniqueFd lock_;
  std::optional<UnixListener> local_;
  std::vector<TcpListener> listeners_;
  UniqueFd signals_;
  std::shared_ptr<const PeerLog> peer_log_;
  std::optional<PeerQueue> queue_;
  std::optional<PeerOrigins> origins_;
  std::optional<LogQuota> full_log_;
  UniqueFd spare_;  ///< Closed to take, and refuse, a connection when descriptors have run out.
  UniqueFd promoted_read_;  ///< Children that became workers write their pid here.
  UniqueFd promoted_write_;
  /// Attempts to have a worker take over one session.
  struct Adoption {
    std::chrono::steady_clock::time_point next;  ///< Not to be tried again before.
    std::chrono::milliseconds pause{1000};
  };

  std::set<std::string> closed_sessions_;             ///< Seen to be closed.
  std::map<std::string, Adoption> adoptions_;         ///< By session, while it is without a worker.
  std::chrono::steady_clock::time_point next_look_;   ///< For orphaned sessions.
  std::chrono::steady_clock::time_point next_links_;  ///< For links without a keeper.
  std::unordered_map<pid_t, Client> connecting_;      ///< Children that are not (yet) workers.
};

}  // namespace migrate
