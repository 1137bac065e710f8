#include "tools/migrated/ask_home.h"

#include <optional>
#include <span>
#include <utility>

#include "base/log.h"
#include "libmigrate/host/event_sink.h"
#include "libmigrate/migrate.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/request_json.h"
#include "libmigrate/state/global_name.h"
#include "libmigrate/state/registry.h"
#include "tools/migrated/known_hosts.h"
#include "transport/preamble.h"

namespace migrate {
namespace {

using nlohmann::json;

constexpr int kConnectTimeoutMs = 2000;
constexpr int kAnswerTimeoutMs = 10'000;
constexpr int kQuestionTimeoutMs = 5000;

/// An object that came as a message.
json object_of(std::span<const std::byte> message) {
  return parse_object({reinterpret_cast<const char*>(message.data()),  // bytes that are to be JSON
                       message.size()});
}

/// Where the process's home is; nothing if it is this host.
Result<std::optional<Address>> home_of(const LocalService& service, const std::string& identity) {
  const wire::GlobalName name = MIGRATE_TRY(parse_global_name(identity));
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  for (const ProcessRecord& row : MIGRATE_TRY(registry.find_identity(to_string(name)))) {
    if (row.role == ProcessRole::kHome || row.home.empty()) {
      return std::optional<Address>();
    }
    return std::optional(MIGRATE_TRY(Address::parse(row.home)));
  }
  return find_host(service, name.origin());
}

/// What another host asks. Errors: kRefused, kInvalid.
Result<HomeQuestion> read_question(const WorkerContext& context, const PeerIdentity& peer,
                                   const json& asked) {
  HomeQuestion question;
  question.asker = MIGRATE_TRY(context.policy.believed(peer, MIGRATE_TRY(asker_from(asked))));
  AnyRequest wanted = MIGRATE_TRY(parse_any(asked));
  if (const auto* const daemons = std::get_if<DaemonRequest>(&wanted)) {
    std::visit(
        [&]<class Each>(const Each& each) {
          if constexpr (std::is_constructible_v<HomeRequest, Each>) {
            question.wanted = each;
            question.identity = text_member(asked, "process");
          }
        },
        *daemons);
  }
  const bool has_process = is_global_name(question.identity);
  if (!has_process && !std::holds_alternative<NameRequest>(question.wanted)) {
    return fail(make_error(ErrorCode::kInvalid, "answer another host",
                           "a request that is none for a home",
                           "do both hosts run the same version?"));
  }
  return question;
}

}  // namespace

Result<Answer> ask_host(const PeerTrust& trust, const Address& address,
                        const HomeQuestion& question) {
  Preamble preamble;
  preamble.purpose = Purpose::kAsk;
  const PeerTrust::Peer peer = MIGRATE_TRY(trust.connect(address, preamble, kConnectTimeoutMs));
  json asked = request_for(question.wanted);
  asked["asker"] = to_json(question.asker);
  if (!question.identity.empty()) {
    asked["process"] = question.identity;
  }
  const std::string text = json_text(asked);
  MIGRATE_TRY(peer.channel->send_one(std::as_bytes(std::span(text))));
  json result = object_of(MIGRATE_TRY(peer.channel->receive(0, kAnswerTimeoutMs)));
  if (!result.is_object() || text_member(result, "event") != "result") {
    return fail(make_error(ErrorCode::kCorrupt, "read a home's answer", address.to_string(),
                           "does it run the same version of migrated?"));
  }
  const int exit_code = integer_member(result, "exit", MIGRATE_ERROR);
  return Answer{exit_code, std::move(result)};
}

Result<Answer> ask_home(const LocalService& service, const HomeQuestion& question,
                        const std::string& host) {
  std::optional<Address> home;
  if (!question.identity.empty()) {
    home = MIGRATE_TRY(home_of(service, question.identity));
  } else if (!host.empty()) {
    home = MIGRATE_TRY(find_host(service, host));
  }
  return home ? ask_host(service.context.trust, *home, question)
              : Result<Answer>(answer_at_home(service.context, question));
}

void answer_host(const WorkerContext& context, PeerTrust::Peer peer) {
  const auto message = peer.channel->receive(0, kQuestionTimeoutMs);
  if (!message) {
    log::warn("{} asked nothing: {}", peer.identity.to_string(), message.error().message());
    return;
  }
  const auto question = read_question(context, peer.identity, object_of(*message));
  Answer answer = question ? answer_at_home(context, *question) : Answer::of(question.error());
  if (answer.exit_code == MIGRATE_REFUSED || answer.exit_code == MIGRATE_USAGE) {
    log::warn("refused {}: {}", peer.identity.to_string(),
              text_member(answer.result.value("error", json::object()), "message"));
  }
  EventSink(std::move(peer.channel)).finish(answer.exit_code, std::move(answer.result));
}

}  // namespace migrate
