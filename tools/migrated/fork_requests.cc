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
#include "base/realtime_scope.h"
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

constexpr std::size_t kAtOnce = 16;      // Copies that are under way,
constexpr std::size_t kAtOnceThere = 4;  // and so many of them to one destination.
// One that failed so many times in turn gets no more: each may take half a minute.
constexpr std::size_t kMostFailures = 4;
constexpr std::string_view kGo = "g";  // To a worker: its copy was let go.

std::string name_of(pid_t pid) {
  return "process " + std::to_string(pid);
}

/// What is against copying a process, or against moving any copy of it. It is told to nobody who
/// may not look into what was looked at: that may run another program than when he was let in.
Result<Refusals> refusals_of(const MoveRequest& move) {
  ProcessInspector inspector = MIGRATE_TRY(ProcessInspector::create(move.pid, {}));
  Refusals refusals = MIGRATE_TRY(inspector.inspect_running()).refusals;
  // A copy has none, and locks of its own.
  std::erase_if(refusals, [](const wire::Refusal& each) { return each.code() == "CHILDREN"; });
  if (inspector.threads().size() > 1) {
    refusals.push_back(make_refusal("COPY_THREADS", name_of(move.pid)));
  }
  if (holds_itself(move.pid)) {
    refusals.push_back(make_refusal("HELD", name_of(move.pid)));
  }
  if (!refusals.empty()) {
    MIGRATE_TRY(may_attach(move.asker, move.pid));
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

/// What copies are made of, and for how long the process stood still for it.
struct Taken {
  Snapshot snapshot;
  std::int64_t stop_us = 0;
};

/// Who asks is judged by what is frozen: it may have become another's since.
Result<Taken> take_snapshot(const MoveRequest& move) {
  StandIn asker = MIGRATE_TRY(StandIn::create(move.asker));
  const std::uint64_t system_call = MIGRATE_TRY(system_call_of(move.pid));
  auto taken = [&]() -> Result<Taken> {
    const RealtimeScope realtime;
    const std::int64_t since_us = now_us();
    FrozenProcess frozen = MIGRATE_TRY(FrozenProcess::freeze(move.pid, system_call, {}));
    const std::array<pid_t, 1> asked = {move.pid};
    MIGRATE_TRY(asker.ask_attach(asked));
    MIGRATE_TRY(frozen.open_area(kPageBytes));
    const std::int64_t snapshot_us = now_us();
    auto snapshot = Snapshot::take(frozen);
    const std::int64_t thaw_us = now_us();
    auto thawed = frozen.thaw();
    const std::int64_t end_us = now_us();
    log::debug("{}: frozen in {} us, its snapshot took {} us, it was let go in {} us",
               name_of(move.pid), snapshot_us - since_us, thaw_us - snapshot_us, end_us - thaw_us);
    MIGRATE_TRY(std::move(thawed));
    return Taken{MIGRATE_TRY(std::move(snapshot)), end_us - since_us};
  }();
  if (taken) {
    MIGRATE_TRY(asker.answer());
  }
  return taken;
}

/// One copy on its way, as its worker tells of it.
class Sending {
 public:
  /// Forks the worker. Errors: kNotFound (the copy was killed), kSystem; the copy has ended then,
  /// or ends with the snapshot.
  static Result<Sending> begin(const LocalService& service, Snapshot& snapshot, MoveRequest move) {
    MIGRATE_TRY(Program::begin_anew(move.pid));
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
      is_noted_ = true;
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
    run_source_worker(service.context, EventSink(std::move(told)), move);
    end_process(process.get());  // It was not moved, and nobody else may be left to see to it.
    (void)std::fflush(nullptr);
    ::_exit(0);
  }

  // One of which there is a record has another worker soon, which knows what is to become of it; if
  // it was frozen, it has ended with the first.
  json lost() const {
    constexpr int kEndsWithinMs = 200;
    pollfd ended{process_.get(), POLLIN, 0};
    const bool is_left = is_noted_ && ::poll(&ended, 1, kEndsWithinMs) == 0;
    return {{"exit", is_left ? MIGRATE_LOST : MIGRATE_FAILED},
            {"error",
             {{"code", to_string(ErrorCode::kPeerLost)},
              {"message", "the worker of " + name_of(pid_) + " has ended" +
                              (is_left ? "; migratectl ps shows whether it runs there" : "")}}}};
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
  bool is_noted_ = false;  // In a record, which is written before a worker says anything.
};

/// Where copies go.
struct Destination {
  std::string address;
  std::size_t left = 0;  ///< Copies that were not made yet.
  std::size_t under_way = 0;
  std::size_t failures = 0;  ///< Since one was taken.
};

/// Makes and sends all copies, some at a time, so that few wait for a destination that is slow.
class Sender {
 public:
  Sender(const LocalService& service, const ForkRequest& fork, const MoveRequest& move, Taken taken,
         EventSink& client)
      : service_(service),
        count_(fork.count),
        move_(move),
        taken_(std::move(taken)),
        client_(client) {
    for (const std::string& address : fork.destinations) {
      destinations_.push_back({.address = address});
    }
    for (std::size_t i = 0; i < count_; ++i) {
      ++destinations_[i % destinations_.size()].left;
    }
  }

  void run() {
    while (begin_some() || !under_way_.empty()) {
      hear();
      if (client_.has_left() || !client_.open()) {
        for (Destination& destination : destinations_) {
          destination.left = 0;
        }
      }
    }
  }

  json result() const {
    json result = {{"pid", move_.pid},
                   {"stop_us", taken_.stop_us},
                   {"processes", processes_},
                   {"failed", failed_}};
    if (!failed_.empty()) {
      result["error"] = {
          {"code", "copies"},
          {"message", std::to_string(failed_.size()) + " of " + std::to_string(count_) +
                          " copies do not run, and have ended"}};
    }
    return result;
  }
  int exit() const { return exit_; }

 private:
  struct UnderWay {
    Sending sending;
    std::size_t destination;
  };

  /// As many as may be under way, one for each destination in turn. Whether any was begun, or could
  /// not be.
  bool begin_some() {
    bool did_some = false;
    for (bool does_more = true; does_more;) {
      does_more = false;
      for (std::size_t at = 0; at < destinations_.size(); ++at) {
        const Destination& to = destinations_[at];
        if (to.left > 0 && to.under_way < kAtOnceThere && under_way_.size() < kAtOnce) {
          begin(at);
          does_more = true;
        }
      }
      did_some = did_some || does_more;
    }
    return did_some;
  }

  void begin(std::size_t at) {
    Destination& to = destinations_[at];
    if (to.failures >= kMostFailures) {
      give_up(to, make_error(ErrorCode::kPeerLost, "copy to", to.address,
                             "it has not taken any of the last that were sent"));
      return;
    }
    auto copy = taken_.snapshot.copy();
    if (!copy) {  // Nor could any other be made.
      std::ranges::for_each(destinations_, [&](Destination& each) { give_up(each, copy.error()); });
      return;
    }
    --to.left;
    MoveRequest move = move_;
    move.pid = *copy;
    move.destination = to.address;
    auto begun = Sending::begin(service_, taken_.snapshot, move);
    if (begun) {
      ++to.under_way;
      under_way_.push_back({std::move(*begun), at});
    } else {
      note(*copy, to.address, failure_of(begun.error()));
    }
  }

  /// No more copies go there.
  void give_up(Destination& to, const Error& error) {
    for (; to.left > 0; --to.left) {
      note(0, to.address, failure_of(error));
    }
  }

  static json failure_of(const Error& error) {
    return {{"exit", MIGRATE_ERROR},
            {"error", {{"code", to_string(error.code)}, {"message", error.message()}}}};
  }

  void hear() {
    if (under_way_.empty()) {
      return;
    }
    std::vector<pollfd> polled;
    for (const UnderWay& each : under_way_) {
      polled.push_back({each.sending.events(), POLLIN, 0});
    }
    constexpr int kLookForClientMs = 500;
    if (::poll(polled.data(), polled.size(), kLookForClientMs) <= 0) {
      return;
    }
    for (std::size_t i = under_way_.size(); i-- > 0;) {
      if (polled[i].revents == 0) {
        continue;
      }
      if (const std::optional<json> result = under_way_[i].sending.read()) {
        Destination& to = destinations_[under_way_[i].destination];
        --to.under_way;
        const bool is_there = integer_member(*result, "exit", MIGRATE_ERROR) == MIGRATE_DONE;
        to.failures = is_there ? 0 : to.failures + 1;
        note(under_way_[i].sending.pid(), to.address, *result);
        under_way_.erase(under_way_.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
  }

  /// `pid`: 0 of one that was not made.
  void note(pid_t pid, const std::string& destination, const json& result) {
    const int exit = integer_member(result, "exit", MIGRATE_ERROR);
    json told = {{"destination", destination}, {"exit", exit}};
    if (pid != 0) {
      told["pid"] = pid;
      json event = told;
      event["event"] = "copy";
      client_.send(event);
    }
    if (exit == MIGRATE_DONE) {
      processes_.push_back(row_of(pid, result));
      return;
    }
    for (const char* const member : {"error", "refusals"}) {
      if (result.contains(member)) {
        told[member] = result[member];
      }
    }
    failed_.push_back(std::move(told));
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
  const std::size_t count_;
  const MoveRequest& move_;
  Taken taken_;
  EventSink& client_;
  std::vector<Destination> destinations_;
  std::vector<UnderWay> under_way_;
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
  const Refusals refusals = MIGRATE_TRY(refusals_of(move));
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
  Sender sender(service, fork, move, MIGRATE_TRY(take_snapshot(move)), client);
  sender.run();
  client.finish(sender.exit(), sender.result());
  return {};
}

}  // namespace migrate
