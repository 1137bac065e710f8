#include "libmigrate/move/check.h"

#include <fmt/core.h>
#include <sys/mman.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "libmigrate/advisor/choice_json.h"
#include "libmigrate/host/event_sink.h"
#include "libmigrate/host/refusals_json.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/links/home_network.h"
#include "libmigrate/move/links_json.h"
#include "libmigrate/policy/travel.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

MoveRequest request_of(const CheckRequest& check) {
  MoveRequest request;
  request.plan = check_plan(check.plan);
  request.wish = check.wish;
  request.asker = check.asker;
  request.strict = check.strict;
  request.policy = check.policy;
  request.network = check.network;
  request.starts = check.starts;
  request.tells_files = check.detail == Detail::kFiles;
  return request;
}

namespace {

Result<SourceMoveOptions> options_of(const WorkerContext& context, const CheckRequest& request) {
  SourceMoveOptions options;
  options.pid = request.pid;
  options.destination.host.clear();
  if (!request.destination.empty()) {
    options.destination = MIGRATE_TRY(Address::parse(request.destination));
  }
  options.request = request_of(request);
  options.home = context.own_address;
  options.network = home_network();
  options.host_clocks = MIGRATE_TRY(clock_offsets(0));
  options.context = &context;
  return options;
}

std::string hex_of(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) {
    text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  }
  return text;
}

bool is_of_mapped_file(const wire::Mapping& mapping, std::uint32_t index) {
  return (mapping.kind() == wire::Mapping::FILE_LOCAL ||
          mapping.kind() == wire::Mapping::FILE_COPY ||
          mapping.kind() == wire::Mapping::SHARED_FILE) &&
         mapping.file() == index;
}

/// What the program has mapped of files, each once, its executable first.
nlohmann::json files_json(const SourceMove& move) {
  const wire::ProcessImage& process = only_process(move.seen());
  const auto& files = move.seen().objects().mapped_files();
  nlohmann::json list = nlohmann::json::array();
  const auto add = [&](const wire::FileIdentity& file, std::string_view role, bool known) {
    nlohmann::json object = {
        {"path", file.path()}, {"role", role}, {"size_bytes", file.size_bytes()}};
    if (!file.build_id().empty()) {
      object["build_id"] = hex_of(file.build_id());
    }
    if (move.destination_told_files()) {
      object["known"] = known;
    }
    list.push_back(std::move(object));
  };
  add(process.executable(), "executable", !move.not_there().executable);
  for (int i = 0; i < files.size(); ++i) {
    const auto index = static_cast<std::uint32_t>(i);
    const bool has_code = std::ranges::any_of(process.mappings(), [&](const auto& mapping) {
      return is_of_mapped_file(mapping, index) && (mapping.protection() & PROT_EXEC) != 0;
    });
    if (files[i].path() != process.executable().path()) {
      add(files[i], has_code ? "library" : "file", !move.not_there().mapped.contains(index));
    }
  }
  return list;
}

/// Of its home, about its links.
nlohmann::json rules_json(const SourceMove& move) {
  nlohmann::json list = nlohmann::json::array();
  const Firewall rules = move.link_rules();
  for (const Firewall::Counted& each : rules.rules()) {
    list.push_back({{"place", each.rule.place}, {"text", to_string(each.rule)}});
  }
  return list;
}

}  // namespace

void tell_verdict(EventSink& client, SourceMove& move, Detail detail) {
  const auto refusals = move.check();
  if (!refusals) {
    client.finish_failed(MIGRATE_ERROR, refusals.error());
    return;
  }
  nlohmann::json result = {{"pid", move.pid()},
                           {"movable", refusals->empty()},
                           {"refusals", to_json(*refusals)},
                           {"losses", to_json(move.losses().value_or(std::vector<Loss>()))}};
  if (move.has_hooks()) {
    result["hooks"] = true;
  }
  if (const std::vector<Loss> notes = move.notes(); !notes.empty()) {
    result["notes"] = to_json(notes);
  }
  if (move.choice()) {
    result["choice"] = to_json(*move.choice());
  }
  if (move.travels() && detail != Detail::kVerdict) {
    result["policy"] = to_json(move.travels()->rows, move.destination_told_files());
    result["shipped_bytes"] = move.travels()->shipped_bytes;
  }
  if (detail == Detail::kLinks) {
    result["links"] = links_json(move.seen(), *refusals);
    result["link_rules"] = rules_json(move);
  }
  if (move.travels() && detail == Detail::kFiles) {
    result["files"] = files_json(move);
  }
  client.finish(refusals->empty() ? MIGRATE_DONE : MIGRATE_REFUSED, std::move(result));
}

void run_check(const WorkerContext& context, EventSink client, const CheckRequest& request) {
  auto options = options_of(context, request);
  if (!options) {
    client.finish_failed(MIGRATE_ERROR, options.error());
    return;
  }
  EventSink nobody;
  SourceMove move(std::move(*options), {}, nobody);
  tell_verdict(client, move, request.detail);
}

}  // namespace migrate
