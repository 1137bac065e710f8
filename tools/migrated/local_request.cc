#include "tools/migrated/local_request.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "libmigrate/program/program.h"
#include "libmigrate/state/registry.h"
#include "tools/migrated/daemon_requests.h"
#include "tools/migrated/request.h"
#include "tools/migrated/worker_requests.h"
#include "transport/wait.h"

namespace migrate {
namespace {

constexpr int kRequestTimeoutMs = 5000;
constexpr std::size_t kMaxRequestBytes = std::size_t{64} << 10U;

void send_error(EventSink& client, const Error& error) {
  client.finish_failed(error.code == ErrorCode::kInvalid   ? MIGRATE_USAGE
                       : error.code == ErrorCode::kRefused ? MIGRATE_REFUSED
                                                           : MIGRATE_ERROR,
                       error);
}

/// Waits up to `deadline` for the client to close; what it still sends is thrown away.
void wait_for_end(int client, const Deadline& deadline) {
  std::array<char, 512> ignored = {};
  for (;;) {
    const Result<short> ready = wait_for(client, POLLIN, deadline);
    if (!ready || !*ready || read(client, ignored.data(), ignored.size()) <= 0) {
      return;
    }
  }
}

Result<Request> read_request(int client, std::int64_t taken_ns) {
  PeerProcess process = MIGRATE_TRY(PeerProcess::of(client, taken_ns));
  Asker asker = MIGRATE_TRY(asker_of(client, process));
  const Deadline deadline(kRequestTimeoutMs);
  std::string line;
  std::array<char, 4096> buffer = {};
  while (line.find('\n') == std::string::npos) {
    if (!MIGRATE_TRY(wait_for(client, POLLIN, deadline))) {
      return fail(make_error(ErrorCode::kRetry, "read the request", "no whole line within 5 s"));
    }
    const ssize_t count = read(client, buffer.data(), buffer.size());
    if (count < 0) {
      return fail(system_error("read the request"));
    }
    line.append(buffer.data(), static_cast<std::size_t>(count));
    if (count == 0 || line.size() > kMaxRequestBytes) {
      return fail(make_error(ErrorCode::kCorrupt, "read the request",
                             count == 0 ? "ended before its end of line" : "too long"));
    }
  }
  Request request = MIGRATE_TRY(parse_request(std::string_view(line).substr(0, line.find('\n'))));
  request.client = std::move(process);
  request.asker = std::move(asker);
  return request;
}

/// A process that asks about itself can have no connection while it is looked at or moved: it is
/// told by whom it is done, hangs up, and finds the result in its memory. The token there shows
/// that the memory is that of the client, whatever became of its pid.
Result<void> hang_up(const LocalService& service, const Request& request, EventSink& client) {
  if (request.pid() != request.client.pid() || !request.process.id.empty()) {
    return fail(usage_error("serve the request", "token", "only a process itself has one (pid 0)"));
  }
  Program program = MIGRATE_TRY(Program::open(request.client.pid()));
  if (MIGRATE_TRY(program.read()).asked != request.token) {
    return fail(usage_error("serve the request", "token", "it is not what the process asks with"));
  }
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  const std::optional<ProcessRecord> keeper = MIGRATE_TRY(registry.find_pid(request.client.pid()));
  client.send({{"event", "accepted"}, {"worker", keeper ? keeper->worker : getpid()}});
  wait_for_end(client.descriptor(), Deadline(kRequestTimeoutMs));
  client = EventSink(std::move(program), request.token);
  return {};
}

}  // namespace

void serve_local(const LocalService& service, UniqueFd fd) {
  EventSink client(std::move(fd));
  Result<Request> request = read_request(client.descriptor(), service.taken_ns);
  if (!request) {
    send_error(client, request.error());
    return;
  }
  Result<void> served;
  if (request->token != 0) {
    served = hang_up(service, *request, client);
  }
  if (served) {
    const AnyRequest wanted = request->wanted;
    served = std::visit(
        [&](const auto& each) { return carry_out(service, *request, each, client); }, wanted);
  }
  if (!served) {
    if (served.error().code == ErrorCode::kRefused) {
      log::warn("refused user {} (pid {}): {}", request->asker.user, request->client.pid(),
                served.error().message());
    }
    send_error(client, served.error());
  }
}

}  // namespace migrate
