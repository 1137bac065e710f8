#include "tools/migrated/daemon_requests.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "libmigrate/state/global_name.h"
#include "libmigrate/state/registry.h"
#include "tools/migrated/drain_requests.h"
#include "tools/migrated/find_process.h"
#include "tools/migrated/fork_requests.h"
#include "tools/migrated/home_answers.h"
#include "tools/migrated/identity_requests.h"
#include "tools/migrated/known_hosts.h"
#include "tools/migrated/peer_request.h"
#include "tools/migrated/record_json.h"
#include "transport/wait.h"

namespace migrate {
namespace {

using nlohmann::json;

constexpr int kQueryTimeoutMs = 1000;
constexpr int kShortestPollMs = 10;
constexpr int kLongestPollMs = 250;

Result<json> list_processes(const LocalService& service, const Request& request, bool wants_all) {
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  json processes = json::array();
  for (const ProcessRecord& record : MIGRATE_TRY(registry.list())) {
    const bool shown = wants_all || is_live(record.state) || record.state == ProcessState::kLost;
    if (shown && may_see(request.asker, record)) {
      processes.push_back(record_json(record, service.context.host_name));
    }
  }
  return json{{"processes", std::move(processes)}};
}

Result<void> show_process(const LocalService& service, const Request& request, EventSink& client) {
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  const std::vector<ProcessRecord> records = MIGRATE_TRY(find_records(registry, request));
  if (records.empty() && is_global_name(request.process.id)) {
    return show_by_home(service, request, client);
  }
  if (records.empty()) {
    return fail(unknown_process(request));
  }
  client.finish(MIGRATE_DONE, shown(service.context, records));
  return {};
}

/// What the client is told of itself: where it is, and what names it everywhere. What was found by
/// its pid is of the client if that is there afterwards.
Result<json> where_it_is(const LocalService& service, const Request& request) {
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  const std::string own = service.context.own_address.to_string();
  json told = {
      {"host", service.context.host_name},
      {"address", own},
      {"home", own},
      {"moves", 0},
      {"identity", to_string(first_global_name(request.client.pid(), service.context.host_name))}};
  const std::optional<ProcessRecord> record = MIGRATE_TRY(registry.find_pid(request.client.pid()));
  MIGRATE_TRY(request.client.must_be_there());
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
  for (const std::string& text : MIGRATE_TRY(known_addresses(service))) {
    const Result<Address> address = Address::parse(text);
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

/// The row that knows most of a process's fate: home's.
const ProcessRecord& fate_of(const std::vector<ProcessRecord>& records) {
  for (const ProcessRecord& record : records) {
    if (record.role == ProcessRole::kHome) {
      return record;
    }
  }
  return records.front();
}

Result<void> wait_process(const LocalService& service, Request& request, const WaitRequest& wait,
                          EventSink& client) {
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  for (int pause_ms = kShortestPollMs;; pause_ms = std::min(pause_ms * 2, kLongestPollMs)) {
    const std::vector<ProcessRecord> records = MIGRATE_TRY(find_records(registry, request));
    if (records.empty()) {
      return fail(unknown_process(request));
    }
    const ProcessRecord& record = fate_of(records);
    request.process = {.id = record.process};  // a pid may be someone else's by and by
    auto end = wait_end(record, wait.wait_for == WaitFor::kExit, service.context.host_name);
    if (!end && wait.at_once) {
      end = Answer{MIGRATE_TIMEOUT, record_json(record, service.context.host_name)};
    }
    if (end) {
      client.finish(end->exit_code, std::move(end->result));
      return {};
    }
    if (MIGRATE_TRY(wait_for(client.descriptor(), POLLIN | POLLRDHUP, Deadline(pause_ms)))) {
      return {};  // the client is gone
    }
  }
}

/// A function for each kind of request, which answers it.
struct DaemonAnswers {
  const LocalService& service;
  Request& request;
  EventSink& client;

  Result<void> operator()(const PsRequest& ps) const {
    return answer(list_processes(service, request, ps.all));
  }
  Result<void> operator()(const ShowRequest& /*show*/) const {
    return show_process(service, request, client);
  }
  Result<void> operator()(const WaitRequest& wait) const {
    return is_global_name(request.process.id) ? wait_by_home(service, request, wait, client)
                                              : wait_process(service, request, wait, client);
  }
  Result<void> operator()(const ForkRequest& fork) const {
    return fork_process(service, request, fork, client);
  }
  Result<void> operator()(const HostsRequest& /*hosts*/) const {
    return answer(list_hosts(service));
  }
  Result<void> operator()(const PingRequest& /*ping*/) const {
    return answer(json{{"pid", getppid()}, {"host", service.context.host_name}});
  }
  Result<void> operator()(const HereRequest& /*here*/) const {
    return answer(where_it_is(service, request));
  }
  Result<void> operator()(const IdentityRequest& /*identity*/) const {
    return answer(tell_identity(service, request));
  }
  Result<void> operator()(const WatchRequest& /*watch*/) const {
    return watch_process(service, request, client);
  }
  Result<void> operator()(const KillRequest& kill) const {
    return kill_process(service, request, kill, client);
  }
  Result<void> operator()(const NameRequest& name) const {
    return use_name(service, request, name, client);
  }
  Result<void> operator()(const LinkRequest& link) const {
    return link_processes(service, request, link, client);
  }
  Result<void> operator()(const DrainRequest& drain) const {
    return answer(drain_host(service, request, drain));
  }

 private:
  Result<void> answer(Result<json> told) const {
    client.finish(MIGRATE_DONE, MIGRATE_TRY(std::move(told)));
    return {};
  }
};

}  // namespace

Result<void> carry_out(const LocalService& service, Request& request, const DaemonRequest& wanted,
                       EventSink& client) {
  return std::visit(DaemonAnswers{service, request, client}, wanted);
}

}  // namespace migrate
