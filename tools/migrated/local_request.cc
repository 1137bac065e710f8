#include "tools/migrated/local_request.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/host/mailbox_path.h"
#include "libmigrate/move/page_transport.h"
#include "libmigrate/move/this_host.h"
#include "libmigrate/rights/stand_in.h"
#include "libmigrate/state/registry.h"
#include "tools/migrated/peer_request.h"
#include "tools/migrated/record_json.h"
#include "tools/migrated/request.h"
#include "transport/handoff.h"
#include "transport/wait.h"

namespace migrate {
namespace {

using nlohmann::json;

constexpr int kRequestTimeoutMs = 5000;
constexpr int kQueryTimeoutMs = 1000;
constexpr std::size_t kMaxRequestBytes = std::size_t{64} << 10U;
constexpr int kShortestPollMs = 10;
constexpr int kLongestPollMs = 250;

void send_result(const UniqueFd& client, int exit_code, json members) {
  members["event"] = "result";
  members["exit"] = exit_code;
  const std::string line = members.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  (void)write_all(client.get(), std::as_bytes(std::span(line)));  // gone clients need no answer
}

void send_error(const UniqueFd& client, const Error& error) {
  const int exit_code = error.code == ErrorCode::kInvalid   ? MIGRATE_USAGE
                        : error.code == ErrorCode::kRefused ? MIGRATE_REFUSED
                                                            : MIGRATE_ERROR;
  send_result(client, exit_code,
              {{"error", {{"code", to_string(error.code)}, {"message", error.message()}}}});
}

/// Waits up to `deadline` for the client to close; what it still sends is thrown away.
void wait_for_end(const UniqueFd& client, const Deadline& deadline) {
  std::array<char, 512> ignored = {};
  for (;;) {
    const Result<short> ready = wait_for(client.get(), POLLIN, deadline);
    if (!ready || !*ready || read(client.get(), ignored.data(), ignored.size()) <= 0) {
      return;
    }
  }
}

/// Reads bytes and at most one descriptor. 0 bytes: the end.
Result<std::size_t> receive_some(int socket, std::span<char> buffer, UniqueFd& descriptor) {
  iovec part = {buffer.data(), buffer.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t count = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (count < 0) {
    return fail(system_error("read the request"));
  }
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
      header->cmsg_len == CMSG_LEN(sizeof(int))) {
    int number = -1;
    std::memcpy(&number, CMSG_DATA(header), sizeof number);
    descriptor.reset(number);
  }
  return static_cast<std::size_t>(count);
}

Result<Request> read_request(const UniqueFd& client) {
  const pid_t client_pid = MIGRATE_TRY(peer_credentials(client.get())).pid;
  Asker asker = MIGRATE_TRY(asker_of(client.get()));
  UniqueFd answer;
  const Deadline deadline(kRequestTimeoutMs);
  std::string line;
  std::array<char, 4096> buffer = {};
  while (line.find('\n') == std::string::npos) {
    if (!MIGRATE_TRY(wait_for(client.get(), POLLIN, deadline))) {
      return fail(make_error(ErrorCode::kRetry, "read the request", "no whole line within 5 s"));
    }
    const std::size_t count = MIGRATE_TRY(receive_some(client.get(), buffer, answer));
    line.append(buffer.data(), count);
    if (count == 0 || line.size() > kMaxRequestBytes) {
      return fail(make_error(ErrorCode::kCorrupt, "read the request",
                             count == 0 ? "ended before its end of line" : "too long"));
    }
  }
  Request request = MIGRATE_TRY(parse_request(std::string_view(line).substr(0, line.find('\n'))));
  request.client_pid = client_pid;
  request.asker = std::move(asker);
  request.answer = std::move(answer);
  return request;
}

/// The real user of a process.
Result<uid_t> owner_of(pid_t pid) {
  const std::string name = "process " + std::to_string(pid);
  Result<std::string> status = read_file("/proc/" + std::to_string(pid) + "/status");
  if (!status) {
    return fail(
        make_error(ErrorCode::kNotFound, "find", name, "no process of this host has this pid"));
  }
  const std::size_t at = status->find("\nUid:");
  uid_t user = 0;
  if (at == std::string::npos || std::sscanf(status->c_str() + at, "\nUid: %u", &user) != 1) {
    return fail(make_error(ErrorCode::kCorrupt, "read the owner of", name));
  }
  return user;
}

Error not_permitted(const std::string& object) {
  return make_error(ErrorCode::kRefused, "use", object,
                    "it belongs to another user; ask its owner or root");
}

/// What of processes users see: their own rows, as of when they were moved. That is no right to do
/// anything with the process, which is asked of the kernel where it is.
bool may_see(const Request& request, const ProcessRecord& record) {
  return request.asker.is_root() || record.uid == request.asker.user;
}

/// The rows of the process that the request names, the one to act on first; empty if the registry
/// does not know it. Errors: kRefused for processes of others.
Result<std::vector<ProcessRecord>> find_records(Registry& registry, const Request& request) {
  std::string id = request.process.id;
  const pid_t pid = request.pid();
  if (!request.process.given()) {
    return fail(usage_error("find the process", "none given", "give a pid or an id"));
  }
  if (id.empty()) {
    const std::optional<ProcessRecord> live = MIGRATE_TRY(registry.find_pid(pid));
    if (live) {
      id = live->process;
    } else {  // the last one that had this pid
      for (const ProcessRecord& record : MIGRATE_TRY(registry.list())) {
        id = record.pid == pid ? record.process : id;
      }
    }
    if (id.empty()) {
      return std::vector<ProcessRecord>();
    }
  }
  // Ids of others are not told, nor how they begin; pids everybody knows.
  const bool by_pid = request.process.id.empty();
  std::vector<ProcessRecord> records = MIGRATE_TRY(registry.find_process(
      id, [&](const ProcessRecord& record) { return by_pid || may_see(request, record); }));
  for (const ProcessRecord& record : records) {
    if (!may_see(request, record)) {
      return fail(not_permitted("process " + (by_pid ? std::to_string(pid) : id)));
    }
  }
  return records;
}

Error unknown_process(const Request& request) {
  const std::string& id = request.process.id;
  const pid_t pid = request.pid();
  const bool is_number = id.find_first_not_of("0123456789") == std::string::npos;
  const bool no_such_pid = id.empty() ? kill(pid, 0) != 0 && errno == ESRCH : is_number;
  return make_error(ErrorCode::kNotFound, "find the process",
                    id.empty() ? "with pid " + std::to_string(pid) : id,
                    std::string(no_such_pid ? "no process of this host has this pid, and " : "") +
                        "this host has not moved or received it; see `migratectl ps`, or ask its "
                        "home");
}

/// Who looks after the process that a move or check is about: a row, or nobody yet.
Result<std::optional<ProcessRecord>> find_keeper(Registry& registry, const Request& request) {
  if (request.process.id.empty()) {
    std::optional<ProcessRecord> live = MIGRATE_TRY(registry.find_pid(request.pid()));
    if (live && !may_see(request, *live)) {
      return fail(not_permitted("process " + std::to_string(request.pid())));
    }
    return live;
  }
  const std::vector<ProcessRecord> records = MIGRATE_TRY(find_records(registry, request));
  if (records.empty()) {
    return fail(unknown_process(request));
  }
  // Where it runs here, its own worker knows best; else the deputy, which knows where it is.
  std::optional<ProcessRecord> keeper;
  for (const ProcessRecord& record : records) {
    const bool runs_here = record.state == ProcessState::kRunningHere;
    if (is_live(record.state) && (!keeper || runs_here)) {
      keeper = record;
    }
  }
  if (!keeper) {
    return fail(make_error(ErrorCode::kNotFound, "find the process", records.front().process,
                           "it is over: " + std::string(to_string(records.front().state))));
  }
  return keeper;
}

/// Hands the request to the worker that looks after the process. False: nobody does.
Result<bool> hand_over(const LocalService& service, const Request& request,
                       const UniqueFd& client) {
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  const std::optional<ProcessRecord> keeper = MIGRATE_TRY(find_keeper(registry, request));
  if (!keeper) {
    return false;
  }
  json body = request.body;
  body["process"] = keeper->process;
  body["pid"] = keeper->pid;
  Asker asker = request.asker;
  asker.is_target =
      keeper->state == ProcessState::kRunningHere && keeper->pid == request.client_pid;
  body["asker"] = to_json(asker);
  const std::string message = body.dump(-1, ' ', false, json::error_handler_t::replace);
  if (MIGRATE_TRY(hand_to_worker(service.context.state_directory, keeper->mailbox_name(),
                                 client.get(), std::as_bytes(std::span(message))))) {
    return true;
  }
  const std::string worker = "worker " + std::to_string(keeper->worker);
  return fail(make_error(
      ErrorCode::kPeerLost, "reach the process's worker", worker + " of process " + keeper->process,
      keeper->has_worker() ? "it is busy; try again"
                           : "it has ended; the log of migrated says why. The process was left "
                             "as it was"));
}

/// The first process of a host, or one of ours: a daemon, a worker, the init of a cell.
bool is_ours(pid_t pid) {
  struct stat theirs = {};
  struct stat own = {};
  const std::string program = "/proc/" + std::to_string(pid) + "/exe";
  return pid == 1 || (stat(program.c_str(), &theirs) == 0 && stat("/proc/self/exe", &own) == 0 &&
                      theirs.st_dev == own.st_dev && theirs.st_ino == own.st_ino);
}

/// Tells the client of a check or move that it is refused before anybody has looked.
Result<void> refuse(const Request& request, UniqueFd& client, std::string_view code,
                    const Error& error) {
  log::warn("refused user {} (pid {}): {}", request.asker.user, request.client_pid,
            error.message());
  EventSink(std::move(client)).finish_refused(code, error);
  return {};
}

/// check and move.
Result<void> act(const LocalService& service, Request& request, UniqueFd& client) {
  const bool is_move = request.command == Command::kMove;
  MoveRequest move;
  CheckRequest check;
  if (is_move) {
    move = MIGRATE_TRY(parse_move(request.body));
    request.body = request_for(move);  // As settled here, where the worker is elsewhere.
  } else {
    check = MIGRATE_TRY(parse_check(request.body));
  }
  if (!request.process.given()) {
    return fail(usage_error(is_move ? "move" : "check", "no process", "give a pid or an id"));
  }
  if (MIGRATE_TRY(hand_over(service, request, client))) {
    return {};
  }
  if (is_ours(request.pid())) {
    return refuse(request, client, "SELF",
                  make_error(ErrorCode::kRefused, is_move ? "move" : "check",
                             "process " + std::to_string(request.pid())));
  }
  const uid_t owner = MIGRATE_TRY(owner_of(request.pid()));
  request.asker.is_target = request.pid() == request.client_pid;
  MIGRATE_TRY(may_attach(request.asker, request.pid()));
  const std::string& destination = is_move ? move.destination : check.destination;
  const bool is_here =
      !destination.empty() && MIGRATE_TRY(is_this_host(service.context, destination));
  if (is_move && is_here && move.wait != MoveWait::kExit) {
    EventSink(std::move(client)).finish(MIGRATE_DONE, already_there(request.pid(), destination));
    return {};
  }
  if (!is_move) {
    check.pid = request.pid();
    check.uid = owner;
    check.asker = request.asker;
    run_check(service.context, std::move(client), check);
    return {};
  }
  move.pid = request.pid();
  move.uid = owner;
  move.asker = request.asker;
  log::info("user {} moves process {} to {} ({})", request.asker.user, move.pid, move.destination,
            move.plan.word);
  service.become_worker(client.get());
  run_source_worker(service.context, std::move(client), move);
  return {};
}

/// An operator decides what the hosts cannot.
Result<void> resolve(const LocalService& service, const Request& request, const UniqueFd& client) {
  MIGRATE_TRY(parse_resolve(request.body));
  if (!MIGRATE_TRY(hand_over(service, request, client))) {
    return fail(unknown_process(request));
  }
  return {};
}

Result<json> list_processes(const LocalService& service, const Request& request) {
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  const bool wants_all = MIGRATE_TRY(parse_ps(request.body));
  json processes = json::array();
  for (const ProcessRecord& record : MIGRATE_TRY(registry.list())) {
    const bool shown = wants_all || is_live(record.state) || record.state == ProcessState::kLost;
    if (shown && may_see(request, record)) {
      processes.push_back(record_json(record, service.context.host_name));
    }
  }
  return json{{"processes", std::move(processes)}};
}

Result<json> show_process(const LocalService& service, const Request& request) {
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  const std::vector<ProcessRecord> records = MIGRATE_TRY(find_records(registry, request));
  if (records.empty()) {
    return fail(unknown_process(request));
  }
  json shown = record_json(records.front(), service.context.host_name);
  for (std::size_t i = 1; i < records.size(); ++i) {
    shown["other_roles"].push_back(record_json(records[i], service.context.host_name));
  }
  return shown;
}

Result<json> list_hosts(const LocalService& service) {
  json own = host_facts(service.context);
  own["state"] = "this host";
  json hosts = json::array({std::move(own)});
  std::set<std::string> addresses(service.peers.begin(), service.peers.end());
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  for (const ProcessRecord& record : MIGRATE_TRY(registry.list())) {
    addresses.insert(record.home);
    addresses.insert(record.where);
  }
  std::set<std::string> asked = {service.context.own_address.to_string()};
  for (const std::string& text : addresses) {
    const Result<Address> address = Address::parse(text);
    if (text.empty() || (address && !asked.insert(address->to_string()).second)) {
      continue;
    }
    const Result<json> facts = address
                                   ? query_host(service.context.trust, *address, kQueryTimeoutMs)
                                   : Result<json>(fail(address.error()));
    json host = facts ? *facts : json{{"error", {{"message", facts.error().message()}}}};
    host["address"] = text;
    host["state"] = facts ? "up" : "unreachable";
    hosts.push_back(std::move(host));
  }
  return json{{"hosts", std::move(hosts)}};
}

/// How a wait ends, if it does now: exit code and an error text.
struct WaitEnd {
  int exit_code = MIGRATE_DONE;
  std::string error;
};

std::optional<WaitEnd> wait_end(const ProcessRecord& record, bool for_exit) {
  if (const std::string reason = lost_reason(record); !reason.empty()) {
    return WaitEnd{MIGRATE_LOST, "the process was lost: " + reason};
  }
  switch (record.state) {
    case ProcessState::kExited:
      return WaitEnd{};
    case ProcessState::kChildrenLeft:
      if (for_exit) {
        return WaitEnd{};
      }
      break;
    case ProcessState::kFailed:
      return WaitEnd{MIGRATE_FAILED, "the move failed; the process runs on as if never moved"};
    default:
      break;
  }
  const bool is_owed_nothing =
      record.state == ProcessState::kDone ||
      (record.state == ProcessState::kRunningHere && record.owed_pages == 0);
  if (!for_exit && is_owed_nothing) {
    return WaitEnd{};
  }
  if (!record.has_worker()) {
    return WaitEnd{MIGRATE_ERROR, "its worker " + std::to_string(record.worker) +
                                      " has ended; the log of migrated says why"};
  }
  return std::nullopt;
}

/// The row that knows most of a process's fate: home's.
const ProcessRecord& fate_of(const std::vector<ProcessRecord>& records) {
  for (const ProcessRecord& record : records) {
    if (record.role == ProcessRole::kHome) {
      return record;
    }
  }
  return records.front();
}

Result<void> wait_process(const LocalService& service, Request& request, const UniqueFd& client) {
  const bool for_exit = MIGRATE_TRY(parse_wait(request.body)) == WaitFor::kExit;
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  for (int pause_ms = kShortestPollMs;; pause_ms = std::min(pause_ms * 2, kLongestPollMs)) {
    const std::vector<ProcessRecord> records = MIGRATE_TRY(find_records(registry, request));
    if (records.empty()) {
      return fail(unknown_process(request));
    }
    const ProcessRecord& record = fate_of(records);
    request.process = {.id = record.process};  // a pid may be someone else's by and by
    if (const auto end = wait_end(record, for_exit)) {
      json result = record_json(record, service.context.host_name);
      if (!end->error.empty()) {
        result["error"] = {{"code", "state"}, {"message", end->error}};
      }
      send_result(client, end->exit_code, std::move(result));
      return {};
    }
    if (MIGRATE_TRY(wait_for(client.get(), POLLIN | POLLRDHUP, Deadline(pause_ms)))) {
      return {};  // the client is gone
    }
  }
}

Result<json> answer_of(const LocalService& service, const Request& request) {
  switch (request.command) {
    case Command::kPs:
      return list_processes(service, request);
    case Command::kShow:
      return show_process(service, request);
    case Command::kHosts:
      return list_hosts(service);
    case Command::kPing:
      return json{{"pid", getppid()}, {"host", service.context.host_name}};
    default:
      return fail(usage_error("serve the request",
                              "command \"" + std::string(to_string(request.command)) + "\"",
                              "only the home of a process asks for that; kill the process"));
  }
}

Result<void> dispatch(const LocalService& service, Request& request, UniqueFd& client) {
  switch (request.command) {
    case Command::kCheck:
    case Command::kMove: {
      auto done = act(service, request, client);
      return !done && done.error().code == ErrorCode::kRefused && client.valid()
                 ? refuse(request, client, "NOT_PERMITTED", done.error())
                 : done;
    }
    case Command::kResolve:
      return resolve(service, request, client);
    case Command::kWait:
      return wait_process(service, request, client);
    default:
      send_result(client, MIGRATE_DONE, MIGRATE_TRY(answer_of(service, request)));
      return {};
  }
}

}  // namespace

void serve_local(const LocalService& service, UniqueFd client) {
  Result<Request> request = read_request(client);
  if (!request) {
    send_error(client, request.error());
    return;
  }
  if (request->answer.valid()) {
    // Root writes to it: a pipe asks for no rights at that moment, as some other files do.
    struct stat status = {};
    if (fstat(request->answer.get(), &status) != 0 || !S_ISFIFO(status.st_mode)) {
      send_error(client, usage_error("serve the request", "descriptor for the answer",
                                     "pass the writing end of a pipe"));
      return;
    }
    wait_for_end(client, Deadline(kRequestTimeoutMs));
    client = std::move(request->answer);
  }
  if (const Result<void> served = dispatch(service, *request, client); !served) {
    if (served.error().code == ErrorCode::kRefused) {
      log::warn("refused user {} (pid {}): {}", request->asker.user, request->client_pid,
                served.error().message());
    }
    send_error(client, served.error());
  }
}

}  // namespace migrate
