#include "tools/migrated/fork_requests.h"

#include <poll.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "libmigrate/capture/snapshot.h"
#include "libmigrate/image/address_space.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/inspect/process_inspector.h"
#include "libmigrate/move/not_moved.h"
#include "libmigrate/move/this_host.h"
#include "libmigrate/program/program.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/rights/stand_in.h"
#include "libmigrate/state/registry.h"
#include "pager/page_range.h"
#include "tools/migrated/asked_process.h"
#include "tools/migrated/find_process.h"
#include "tools/migrated/record_json.h"

namespace migrate {
namespace {

using nlohmann::json;

constexpr std::size_t kAtOnce = 8;     // Copies that are under way.
constexpr std::string_view kGo = "g";  // To a worker: its copy was let go.

std::string name_of(pid_t pid) {
  return "process " + std::to_string(pid);
}

/// What is against copying a process, or against moving any copy of it.
Result<Refusals> refusals_of(pid_t pid) {
  ProcessInspector inspector = MIGRATE_TRY(ProcessInspector::create(pid, {}));
  Refusals refusals = MIGRATE_TRY(inspector.inspect_running()).refusals;
  // A copy has none, and locks of its own.
  std::erase_if(refusals, [](const wire::Refusal& each) { return each.code() == "CHILDREN"; });
  if (inspector.threads().size() > 1) {
    refusals.push_back(make_refusal("COPY_THREADS", name_of(pid)));
  }
  if (holds_itself(pid)) {
    refusals.push_back(make_refusal("HELD", name_of(pid)));
  }
  return refusals;
}

Result<std::uint64_t> system_call_of(pid_t pid) {
  for (const NamedRange& range : MIGRATE_TRY(read_mappings(pid))) {
    if (range.name == "[vdso]") {
      return find_system_call_in(pid, range.start, range.end);
    }
  }
  return fail(make_error(ErrorCode::kRefused, "find the vDSO of", name_of(pid)));
}

/// All copies, and for how long the process stood still for them.
struct Copies {
  Snapshot snapshot;
  std::vector<pid_t> pids;
  std::int64_t stop_us = 0;
};

/// Who asks is judged by what is frozen: it may have become another's since.
Result<Copies> make_copies(const MoveRequest& move, std::uint32_t count) {
  StandIn asker = MIGRATE_TRY(StandIn::create(move.asker));
  const std::uint64_t system_call = MIGRATE_TRY(system_call_of(move.pid));
  const std::int64_t since_us = now_us();
  FrozenProcess frozen = MIGRATE_TRY(FrozenProcess::freeze(move.pid, system_call, {}));
  const std::array<pid_t, 1> asked = {move.pid};
  MIGRATE_TRY(asker.ask_attach(asked));
  MIGRATE_TRY(frozen.open_area(kPageBytes));
  auto snapshot = Snapshot::take(frozen);
  auto thawed = frozen.thaw();
  const std::int64_t stop_us = now_us() - since_us;
  MIGRATE_TRY(std::move(thawed));
  Copies copies{MIGRATE_TRY(std::move(snapshot)), {}, stop_us};
  MIGRATE_TRY(asker.answer());
  while (copies.pids.size() < count) {
    copies.pids.push_back(MIGRATE_TRY(copies.snapshot.copy()));
  }
  copies.snapshot.close();
  return copies;
}

/// One copy on its way, as its worker tells of it.
class Sending {
 public:
  /// Forks the worker. Errors: kNotFound (the copy was killed), kSystem; the copy has ended then,
  /// or ends with the snapshot.
  static Result<Sending> begin(const LocalService& service, Snapshot& snapshot, MoveRequest move) {
    Sending sending(move.pid, move.destination);
    const long process = ::syscall(SYS_pidfd_open, move.pid, 0);
    if (process < 0) {
      return fail(system_error("follow", name_of(move.pid)));
    }
    sending.process_.reset(static_cast<int>(process));
    std::array<int, 2> ends = {};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
      return fail(system_error("make a socket for a worker"));
    }
    sending.events_.reset(ends[0]);
    UniqueFd told(ends[1]);
    const pid_t worker = ::fork();
    if (worker < 0) {
      return fail(system_error("fork a worker"));
    }
    if (worker == 0) {
      work(service, move, std::move(told), std::move(sending.process_));
    }
    told.reset();
    MIGRATE_TRY(snapshot.let_go(move.pid));
    MIGRATE_TRY(write_all(ends[0], std::as_bytes(std::span(kGo))));
    return sending;
  }

  pid_t pid() const { return pid_; }
  const std::string& destination() const { return destination_; }
  int events() const { return events_.get(); }

  /// Reads what has come. The result, once it is known; a copy that does not run there has ended.
  std::optional<json> read() {
    std::array<char, 4096> buffer = {};
    const ssize_t count = ::read(events_.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) {
      return std::nullopt;
    }
    heard_.append(buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    for (std::size_t end = 0; (end = heard_.find('\n')) != std::string::npos;) {
      json event = parse_object(std::string_view(heard_).substr(0, end));
      heard_.erase(0, end + 1);
      is_sent_ = is_sent_ || text_member(event, "phase") == "run";
      if (text_member(event, "event") == "result") {
        return settle(std::move(event));
      }
    }
    return count > 0 ? std::nullopt : std::optional(settle(lost()));
  }

 private:
  Sending(pid_t pid, std::string destination) : pid_(pid), destination_(std::move(destination)) {}

  /// The worker, which waits for the copy to be let go. Whoever lets go of it may die: then nobody
  /// would see to it.
  [[noreturn]] static void work(const LocalService& service, const MoveRequest& move, UniqueFd told,
                                UniqueFd process) {
    service.become_worker({told.get(), process.get()});
    std::array<char, kGo.size()> go = {};
    if (::read(told.get(), go.data(), go.size()) != static_cast<ssize_t>(go.size())) {
      end_process(process.get());
      ::_exit(1);
    }
    process.reset();
    run_source_worker(service.context, EventSink(std::move(told)), move);
    (void)std::fflush(nullptr);
    ::_exit(0);
  }

  json lost() const {
    return {{"exit", is_sent_ ? MIGRATE_LOST : MIGRATE_FAILED},
            {"error",
             {{"code", to_string(ErrorCode::kPeerLost)},
              {"message", "the worker of " + name_of(pid_) + " has ended"}}}};
  }
  json settle(json result) {
    const int exit = integer_member(result, "exit", MIGRATE_ERROR);
    if (exit != MIGRATE_DONE && exit != MIGRATE_LOST) {
      end_process(process_.get());
    }
    return result;
  }
  // It runs at the destination or nowhere.
  static void end_process(int process) {
    ::syscall(SYS_pidfd_send_signal, process, SIGKILL, nullptr, 0);
  }

  pid_t pid_;
  std::string destination_;
  UniqueFd process_;  // a pidfd of the copy
  UniqueFd events_;
  std::string heard_;
  bool is_sent_ = false;  // It may run there.
};

/// Sends all copies, some at a time.
class Sender {
 public:
  Sender(const LocalService& service, const ForkRequest& fork, const MoveRequest& move,
         Copies copies, EventSink& client)
      : service_(service), fork_(fork), move_(move), copies_(std::move(copies)), client_(client) {}

  void run() {
    while (next_ < copies_.pids.size() || !under_way_.empty()) {
      while (next_ < copies_.pids.size() && under_way_.size() < kAtOnce) {
        begin();
      }
      hear();
      if (client_.has_left() || !client_.open()) {
        next_ = copies_.pids.size();  // The others end with the snapshot.
      }
    }
  }

  json result() const {
    json result = {{"pid", move_.pid},
                   {"stop_us", copies_.stop_us},
                   {"processes", processes_},
                   {"failed", failed_}};
    if (!failed_.empty()) {
      result["error"] = {{"code", "copies"},
                         {"message", std::to_string(failed_.size()) + " of " +
                                         std::to_string(copies_.pids.size()) +
                                         " copies do not run, and have ended"}};
    }
    return result;
  }
  int exit() const { return exit_; }

 private:
  void begin() {
    MoveRequest move = move_;
    move.pid = copies_.pids[next_];
    move.destination = fork_.destinations[next_ % fork_.destinations.size()];
    ++next_;
    auto begun = Sending::begin(service_, copies_.snapshot, move);
    if (begun) {
      under_way_.push_back(std::move(*begun));
    } else {
      note(move.pid, move.destination,
           {{"exit", MIGRATE_ERROR},
            {"error",
             {{"code", to_string(begun.error().code)}, {"message", begun.error().message()}}}});
    }
  }

  void hear() {
    std::vector<pollfd> polled;
    for (const Sending& each : under_way_) {
      polled.push_back({each.events(), POLLIN, 0});
    }
    constexpr int kLookForClientMs = 500;
    if (::poll(polled.data(), polled.size(), kLookForClientMs) <= 0) {
      return;
    }
    for (std::size_t i = under_way_.size(); i-- > 0;) {
      if (polled[i].revents == 0) {
        continue;
      }
      if (const std::optional<json> result = under_way_[i].read()) {
        note(under_way_[i].pid(), under_way_[i].destination(), *result);
        under_way_.erase(under_way_.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
  }

  void note(pid_t pid, const std::string& destination, const json& result) {
    const int exit = integer_member(result, "exit", MIGRATE_ERROR);
    client_.send({{"event", "copy"}, {"pid", pid}, {"destination", destination}, {"exit", exit}});
    if (exit == MIGRATE_DONE) {
      processes_.push_back(row_of(pid, result));
      return;
    }
    json failed = {{"pid", pid}, {"destination", destination}, {"exit", exit}};
    for (const char* const member : {"error", "refusals"}) {
      if (result.contains(member)) {
        failed[member] = result[member];
      }
    }
    failed_.push_back(std::move(failed));
    exit_ = exit_ == MIGRATE_DONE || exit_ == exit ? exit : MIGRATE_FAILED;
  }

  json row_of(pid_t pid, const json& result) const {
    const std::string id = text_member(result, "process");
    auto registry = Registry::open(service_.context.state_directory);
    const auto rows = registry ? registry->find_process(id) : fail(registry.error());
    const auto own = rows ? std::ranges::find(*rows, ProcessRole::kHome, &ProcessRecord::role)
                          : std::vector<ProcessRecord>::const_iterator();
    return rows && own != rows->end() ? record_json(*own, service_.context.host_name)
                                      : json{{"process", id}, {"pid", pid}};
  }

  const LocalService& service_;
  const ForkRequest& fork_;
  const MoveRequest& move_;
  Copies copies_;
  EventSink& client_;
  std::size_t next_ = 0;
  std::vector<Sending> under_way_;
  json processes_ = json::array();
  json failed_ = json::array();
  int exit_ = MIGRATE_DONE;
};

Result<bool> has_moved(const LocalService& service, const Request& request) {
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  return MIGRATE_TRY(find_keeper(registry, request)).has_value();
}

Result<void> refuse(EventSink& client, const Request& request, std::string_view code) {
  tell_refused(client, {make_refusal(code, name_of(request.pid()))}, request.pid());
  return {};
}

}  // namespace

Result<void> fork_process(const LocalService& service, const Request& request,
                          const ForkRequest& fork, EventSink& client) {
  if (!request.process.given() || request.token != 0) {
    return fail(usage_error("fork", "no process", "give a pid of this host"));
  }
  if (MIGRATE_TRY(has_moved(service, request))) {
    return refuse(client, request, "COPY_MOVED");
  }
  if (is_ours(request.pid())) {
    return refuse(client, request, "SELF");
  }
  MoveRequest move = fork.move;
  MIGRATE_TRY(prepare(request, move));
  for (const std::string& destination : fork.destinations) {
    if (MIGRATE_TRY(is_this_host(service.context, destination))) {
      return fail(usage_error("fork", destination, "name other hosts than this one"));
    }
  }
  const Refusals refusals = MIGRATE_TRY(refusals_of(move.pid));
  if (!refusals.empty()) {
    tell_refused(client, refusals, move.pid);
    return {};
  }
  log::info("user {} copies process {} {} times ({})", move.asker.user, move.pid, fork.count,
            move.plan.word);
  move.asker.is_target = false;
  move.starts = true;
  move.wait = MoveWait::kResumed;
  move.point_wait.reset();
  move.asked = 0;
  Sender sender(service, fork, move, MIGRATE_TRY(make_copies(move, fork.count)), client);
  sender.run();
  client.finish(sender.exit(), sender.result());
  return {};
}

}  // namespace migrate
