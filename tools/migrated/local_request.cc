#include "tools/migrated/local_request.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <thread>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/host/letter_request.h"
#include "libmigrate/host/mailbox_path.h"
#include "libmigrate/move/not_moved.h"
#include "libmigrate/move/page_transport.h"
#include "libmigrate/move/point_wait.h"
#include "libmigrate/move/this_host.h"
#include "libmigrate/rights/stand_in.h"
#include "libmigrate/state/global_name.h"
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

Result<Request> read_request(int client) {
  const pid_t client_pid = MIGRATE_TRY(peer_credentials(client)).pid;
  Asker asker = MIGRATE_TRY(asker_of(client));
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
  request.client_pid = client_pid;
  request.asker = std::move(asker);
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
                       const EventSink& client) {
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
  mark_answer(body, client.is_program() ? request.token : 0);
  const std::string message = body.dump(-1, ' ', false, json::error_handler_t::replace);
  if (MIGRATE_TRY(hand_to_worker(service.context.state_directory, keeper->mailbox_name(),
                                 client.descriptor(), std::as_bytes(std::span(message))))) {
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
Result<void> refuse(const Request& request, EventSink& client, std::string_view code,
                    const Error& error) {
  log::warn("refused user {} (pid {}): {}", request.asker.user, request.client_pid,
            error.message());
  client.finish_refused(code, error);
  return {};
}

/// Waits until the program is at one of its points. False: it did not come there, which the client
/// was told, or has left before. Errors: as PointWait::begin.
Result<bool> wait_for_point(MoveRequest& move, EventSink& client) {
  auto begun = PointWait::begin(move.pid, move.asker, *move.point_wait);
  if (!begun && begun.error().code == ErrorCode::kNotFound) {
    tell_refused(client, {refusal_without_points(move.pid)}, move.pid);
    return false;
  }
  PointWait point = MIGRATE_TRY(std::move(begun));
  PointWait::State state = point.look();
  for (; state == PointWait::State::kWaiting; state = point.look()) {
    if (client.has_left()) {
      return false;
    }
    if (client.cancel_asked()) {
      tell_cancelled(client, std::to_string(move.pid));
      return false;
    }
    std::this_thread::sleep_for(kPointPause);
  }
  if (state != PointWait::State::kThere) {
    tell_refused(client, {refusal_of_point(point, state, move.pid)}, move.pid);
    return false;
  }
  move.at_point = point.request();
  client.also_tell(point.take_program(), move.at_point);
  return true;
}

/// Moves a process that nobody looks after yet, as its worker.
Result<void> move_from_home(const LocalService& service, MoveRequest& move, EventSink& client) {
  log::info("user {} moves process {} to {} ({})", move.asker.user, move.pid, move.destination,
            move.plan.word);
  service.become_worker(client.descriptor());  // Closes all others: the program's is opened later.
  if (move.asked == 0) {
    move.point_wait = longest_wait(move.pid, move.point_wait, move.hook_wait);
  }
  if (move.point_wait && !MIGRATE_TRY(wait_for_point(move, client))) {
    return {};
  }
  run_source_worker(service.context, std::move(client), move);
  return {};
}

/// check and move.
Result<void> act(const LocalService& service, Request& request, EventSink& client) {
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
    client.finish(MIGRATE_DONE, already_there(request.pid(), destination));
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
  return move_from_home(service, move, client);
}

/// An operator decides what the hosts cannot.
Result<void> resolve(const LocalService& service, const Request& request, const EventSink& client) {
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

/// What the client is told of itself: where it is, and what names it everywhere.
Result<json> where_it_is(const LocalService& service, const Request& request) {
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  const std::string own = service.context.own_address.to_string();
  json told = {
      {"host", service.context.host_name},
      {"address", own},
      {"home", own},
      {"moves", 0},
      {"identity", to_string(first_global_name(request.client_pid, service.context.host_name))}};
  const std::optional<ProcessRecord> record = MIGRATE_TRY(registry.find_pid(request.client_pid));
  if (!record) {
    return told;
  }
  if (record->role == ProcessRole::kGuest) {
    told["home"] = record->home;
    told["moves"] = record->moves;
    told["identity"] = record->identity;
    told["owed_pages"] = record->owed_pages;
  }
  told["process"] = record->process;
  told["state"] = to_string(record->state);
  if (record->has_worker()) {
    told["worker"] = record->worker;
  }
  return told;
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

Result<void> wait_process(const LocalService& service, Request& request, EventSink& client) {
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
      client.finish(end->exit_code, std::move(result));
      return {};
    }
    if (MIGRATE_TRY(wait_for(client.descriptor(), POLLIN | POLLRDHUP, Deadline(pause_ms)))) {
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
    case Command::kHere:
      return where_it_is(service, request);
    default:
      return fail(usage_error("serve the request",
                              "command \"" + std::string(to_string(request.command)) + "\"",
                              "only the home of a process asks for that; kill the process"));
  }
}

Result<void> dispatch(const LocalService& service, Request& request, EventSink& client) {
  switch (request.command) {
    case Command::kCheck:
    case Command::kMove: {
      auto done = act(service, request, client);
      return !done && done.error().code == ErrorCode::kRefused && client.open()
                 ? refuse(request, client, "NOT_PERMITTED", done.error())
                 : done;
    }
    case Command::kResolve:
      return resolve(service, request, client);
    case Command::kWait:
      return wait_process(service, request, client);
    default:
      client.finish(MIGRATE_DONE, MIGRATE_TRY(answer_of(service, request)));
      return {};
  }
}

/// A process that asks about itself can have no connection while it is looked at or moved: it is
/// told by whom it is done, hangs up, and finds the result in its memory. The token there shows
/// that the memory is that of the client, whatever became of its pid.
Result<void> hang_up(const LocalService& service, const Request& request, EventSink& client) {
  if (request.pid() != request.client_pid || !request.process.id.empty()) {
    return fail(usage_error("serve the request", "token", "only a process itself has one (pid 0)"));
  }
  Program program = MIGRATE_TRY(Program::open(request.client_pid));
  if (MIGRATE_TRY(program.read()).asked != request.token) {
    return fail(usage_error("serve the request", "token", "it is not what the process asks with"));
  }
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  const std::optional<ProcessRecord> keeper = MIGRATE_TRY(registry.find_pid(request.client_pid));
  client.send({{"event", "accepted"}, {"worker", keeper ? keeper->worker : getpid()}});
  wait_for_end(client.descriptor(), Deadline(kRequestTimeoutMs));
  client = EventSink(std::move(program), request.token);
  return {};
}

}  // namespace

void serve_local(const LocalService& service, UniqueFd fd) {
  EventSink client(std::move(fd));
  Result<Request> request = read_request(client.descriptor());
  if (!request) {
    send_error(client, request.error());
    return;
  }
  Result<void> served;
  if (request->token != 0) {
    served = hang_up(service, *request, client);
  }
  if (served) {
    served = dispatch(service, *request, client);
  }
  if (!served) {
    if (served.error().code == ErrorCode::kRefused) {
      log::warn("refused user {} (pid {}): {}", request->asker.user, request->client_pid,
                served.error().message());
    }
    send_error(client, served.error());
  }
}

}  // namespace migrate
