#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "base/unique_fd.h"
#include "transport/address.h"
#include "transport/preamble.h"

namespace migrate {

/// What the daemon tells each worker about its host.
struct WorkerContext {
  std::string state_directory;
  std::string socket_path;
  std::string host_name;
  Address own_address;  ///< As others reach us.
  std::uint32_t spin_us = 0;
};

/// A `move` as asked for over the local socket.
struct MoveRequest {
  pid_t pid = 0;
  std::string process;      ///< Id, if the process was named by id.
  std::string destination;  ///< HOST:PORT.
  std::string mode;         ///< lazy, demand or eager.
  std::string wait;         ///< resumed, done or exit.
  uid_t uid = 0;            ///< Who asks; already checked against the process's owner.
  double retry_seconds = 0;
};

/// A `check` as asked for over the local socket.
struct CheckRequest {
  pid_t pid = 0;
  std::string destination;  ///< HOST:PORT, or empty: the source's rules only.
  uid_t uid = 0;
};

/// Source side of `move`: runs in a forked worker; writes JSON event lines to `client` (a stream
/// socket or a pipe: use write, not send), returns when the process has been moved and has ended
/// (worker lives as deputy), closing `client` by itself once the wanted wait state was reported.
void run_source_worker(const WorkerContext& context, UniqueFd client, const MoveRequest& request);

/// Destination side: `connection` has had its preamble (purpose kOffer) read.
void run_destination_worker(const WorkerContext& context, UniqueFd connection,
                            const Preamble& preamble);

/// Writes the verdict as JSON event lines to `client`, ending with a result line.
void run_check(const WorkerContext& context, UniqueFd client, const CheckRequest& request);

}  // namespace migrate
