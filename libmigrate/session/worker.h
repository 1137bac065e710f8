#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "libmigrate/rights/asker.h"
#include "libmigrate/rules/host_policy.h"
#include "libmigrate/session/stop_points.h"
#include "transport/address.h"
#include "transport/peer_trust.h"
#include "transport/preamble.h"

namespace migrate {

/// What the daemon tells each worker about its host.
struct WorkerContext {
  std::string state_directory;
  std::string socket_path;
  std::string host_name;
  Address own_address;    ///< As others reach us.
  std::string rdma_host;  ///< Where workers listen for pages over RDMA; empty: nowhere.
  PeerTrust trust;        ///< How hosts know each other.
  std::uint32_t spin_us = 0;
  std::uint32_t end_waiting_s = 0;  ///< After so long a process that waits for pages is ended.
  StopPoints stops;
  HostPolicy policy;                ///< Whose processes this host takes.
  std::uint32_t max_sessions = 0;   ///< Processes of other hosts that it takes at a time.
  std::uint64_t reserve_bytes = 0;  ///< Memory that they must leave free.
  /// Most that is pushed to each process that went away, 0: as fast as can be.
  std::uint64_t push_bytes_per_second = 0;
};

/// How fast the memory of a process follows it; see PageServerOptions.
struct PushLimits {
  std::uint64_t bytes_per_second = 0;
  std::chrono::milliseconds deadline{0};
};

/// A `move` as asked for over the local socket.
struct MoveRequest {
  pid_t pid = 0;
  std::string process;             ///< Id, if the process was named by id.
  std::string destination;         ///< HOST:PORT.
  std::string mode;                ///< lazy, demand or eager.
  std::string transport = "auto";  ///< Of the pages; see PageTransport.
  std::string wait;                ///< resumed, done or exit.
  uid_t uid = 0;                   ///< Whose process it is.
  Asker asker;                     ///< In whose name the kernel is asked once it is frozen.
  double retry_seconds = 0;
  PushLimits push;
};

/// The limits that a request for a move asks for ("bytes_per_second", "deadline_seconds"), else
/// those of the host.
PushLimits push_limits(const nlohmann::json& request, const WorkerContext& context);

/// A `check` as asked for over the local socket.
struct CheckRequest {
  pid_t pid = 0;
  std::string destination;  ///< HOST:PORT, or empty: the source's rules only.
  uid_t uid = 0;            ///< Whose process it is.
  Asker asker;
};

/// Source side of `move`: runs in a forked worker; writes JSON event lines to `client` (a stream
/// socket or a pipe: use write, not send), returns when the process has been moved and has ended
/// (worker lives as deputy), closing `client` by itself once the wanted wait state was reported.
void run_source_worker(const WorkerContext& context, UniqueFd client, const MoveRequest& request);

/// Destination side: `peer` has been let in by a preamble of purpose kOffer. `become_worker`
/// detaches this process from the daemon, all descriptors but the given one closed; it is called
/// when the offer is taken, before anything is made for it.
void run_destination_worker(const WorkerContext& context, PeerTrust::Peer peer,
                            const Preamble& preamble,
                            const std::function<void(int connection)>& become_worker);

/// Takes over what a dead worker left in the session file `name`, if anything: runs in a forked
/// worker like the above. Returns at once if its worker lives after all.
void run_adopted_worker(const WorkerContext& context, const std::string& name);

/// Names of session files of which no worker takes care and some should. `closed` keeps, from one
/// look to the next, those that are notes of what is over, so that they are not opened again.
std::vector<std::string> orphaned_sessions(const std::string& state_directory,
                                           std::set<std::string>& closed);

/// Answers a source that asks what became of `session` when there is no worker for it, if that is
/// certain; else closes the connection, so that it asks again. Blocks for at most a few seconds.
void answer_resume(const WorkerContext& context, UniqueFd connection, const Preamble& preamble);

/// Tells the place of a process whose end its home knows, and has no worker for any more, that it
/// need not tell of it again. Else closes the connection.
void answer_resident(const WorkerContext& context, UniqueFd connection, const Preamble& preamble);

/// Writes the verdict as JSON event lines to `client`, ending with a result line.
void run_check(const WorkerContext& context, UniqueFd client, const CheckRequest& request);

}  // namespace migrate
