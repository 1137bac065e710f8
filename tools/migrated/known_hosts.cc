#include "tools/migrated/known_hosts.h"

#include <algorithm>
#include <set>
#include <utility>

#include "libmigrate/requests/json_member.h"
#include "libmigrate/state/registry.h"
#include "tools/migrated/peer_request.h"

namespace migrate {
namespace {

constexpr int kFactsTimeoutMs = 1000;

bool calls_itself(const LocalService& service, const Address& address, const std::string& name) {
  const auto facts = query_host(service.context.trust, address, kFactsTimeoutMs);
  return facts && text_member(*facts, "host") == name;
}

}  // namespace

Result<std::vector<std::string>> known_addresses(const LocalService& service) {
  std::set<std::string> texts(service.peers.begin(), service.peers.end());
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  for (const ProcessRecord& record : MIGRATE_TRY(registry.list())) {
    texts.insert(record.home);
    texts.insert(record.where);
  }
  std::vector<std::string> known;
  std::set<std::string> seen = {service.context.own_address.to_string()};
  for (const std::string& text : texts) {
    const Result<Address> address = Address::parse(text);
    if (!text.empty() && (!address || seen.insert(address->to_string()).second)) {
      known.push_back(text);
    }
  }
  return known;
}

Result<std::optional<Address>> find_host(const LocalService& service, const std::string& name) {
  const WorkerContext& context = service.context;
  if (name == context.host_name) {
    return std::optional<Address>();
  }
  std::vector<Address> known;
  for (const std::string& text : MIGRATE_TRY(known_addresses(service))) {
    if (const auto address = Address::parse(text)) {
      known.push_back(*address);
    }
  }
  // Whose address says so first: one that does not answer is waited for.
  std::stable_partition(known.begin(), known.end(),
                        [&](const Address& each) { return each.host == name; });
  const auto found = std::ranges::find_if(
      known, [&](const Address& each) { return calls_itself(service, each, name); });
  if (found != known.end()) {
    return std::optional(*found);
  }
  const auto address = Address::parse(name);
  if (address && query_host(context.trust, *address, kFactsTimeoutMs)) {
    return std::optional(*address);
  }
  return fail(make_error(ErrorCode::kPeerLost, "find the host", name,
                         "no host that is known here answers to this name; `migratectl hosts` "
                         "lists them, `peers` in migrated.toml adds to them"));
}

}  // namespace migrate
