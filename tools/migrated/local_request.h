#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "libmigrate/guest/guest_worker.h"
#include "libmigrate/home/home_worker.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/move/check.h"
#include "libmigrate/requests/requests.h"
#include "libmigrate/takeover/adoption.h"

namespace migrate {

/// What a child of the daemon needs to serve the local socket. References outlive its work.
struct LocalService {
  const WorkerContext& context;
  const std::vector<std::string>& peers;
  /// Detaches this process from the daemon, as the worker that owns the given descriptors.
  std::function<void(const std::vector<int>& descriptors)> become_worker;
  std::int64_t taken_ns = 0;  ///< When the connection was taken, on CLOCK_BOOTTIME.
};

/// Serves one client of the local socket: reads one line, a JSON object with the "command" and the
/// members of one of the requests of libmigrate/requests/requests.h,
/// and answers with lines, the last of which is
///   {"event":"result","exit":N,...,"error":{"code","message"} if N is not 0}.
/// With "token" (check and move of the client itself) the only line is {"event":"accepted",
/// "worker":N}, nothing begins before the client has closed its socket, and the result comes into
/// its memory (libmigrate/program/layout.h): a process that is moved can have no socket open.
///
/// root may ask for anything, a user for own processes only. Requests about a process that a worker
/// looks after already go to that worker. Blocks: up to 5 s for the line, then as long as the
/// request takes; after `move`, as long as the source worker lives.
void serve_local(const LocalService& service, UniqueFd fd);

}  // namespace migrate
