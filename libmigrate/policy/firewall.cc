#include "libmigrate/policy/firewall.h"

#include <arpa/inet.h>
#include <fnmatch.h>

#include <algorithm>
#include <array>

namespace migrate {
namespace {

constexpr std::uint32_t kBitsOfByte = 8;

bool fits_pattern(const std::string& pattern, const std::string& text) {
  return pattern.empty() || ::fnmatch(pattern.c_str(), text.c_str(), 0) == 0;
}

bool is_about(const LinkRule& rule, const Firewall::Process& process) {
  return process.user >= rule.first_user && process.user <= rule.last_user &&
         fits_pattern(rule.program, process.program) &&
         fits_pattern(rule.identity, process.identity);
}

bool is_in_network(const LinkRule& rule, const SocketName& name) {
  if (rule.network.empty()) {
    return true;
  }
  const std::string_view address = name.address_bytes();
  if (address.size() != rule.network.size()) {
    return false;
  }
  for (std::uint32_t bit = 0; bit < rule.network_bits; bit += kBitsOfByte) {
    const std::uint32_t left = std::min(rule.network_bits - bit, kBitsOfByte);
    const auto mask = static_cast<unsigned char>(0xffU << (kBitsOfByte - left));
    const std::size_t byte = bit / kBitsOfByte;
    if (((static_cast<unsigned char>(address[byte]) ^
          static_cast<unsigned char>(rule.network[byte])) &
         mask) != 0) {
      return false;
    }
  }
  return true;
}

bool fits(const LinkRule& rule, const Firewall::Wanted& wanted) {
  const std::uint16_t port =
      wanted.direction == LinkDirection::kOut ? wanted.peer.port() : wanted.local.port();
  return (!rule.direction || *rule.direction == wanted.direction) &&
         (!rule.protocol || *rule.protocol == wanted.protocol) && port >= rule.first_port &&
         port <= rule.last_port && is_in_network(rule, wanted.peer.unmapped());
}

}  // namespace

Firewall::Firewall(const LinkRules& rules, const Process& process) {
  for (const LinkRule& rule : rules) {
    if (is_about(rule, process)) {
      rules_.push_back({rule, 0});
    }
  }
}

// Rules of action `place` say nothing of single links, which are made by way of home here.
const Firewall::Counted* Firewall::find(const Wanted& wanted) const {
  const auto found = std::ranges::find_if(rules_, [&](const Counted& each) {
    return each.rule.action != LinkAction::kPlace && fits(each.rule, wanted);
  });
  return found != rules_.end() ? &*found : nullptr;
}

bool Firewall::lets(const Wanted& wanted) {
  const Counted* const found = find(wanted);
  if (found == nullptr) {
    return true;
  }
  ++rules_[static_cast<std::size_t>(found - rules_.data())].count;
  ++applied_;
  return found->rule.action != LinkAction::kDeny;
}

const LinkRule* Firewall::denying(const Wanted& wanted) const {
  const Counted* const found = find(wanted);
  return found != nullptr && found->rule.action == LinkAction::kDeny ? &found->rule : nullptr;
}

bool Firewall::may_use_place() const {
  for (const Counted& each : rules_) {
    if (each.rule.action == LinkAction::kPlace) {
      return true;
    }
    if (each.rule.action == LinkAction::kDeny || each.rule.is_of_all_links()) {
      return false;
    }
  }
  return true;
}

void Firewall::adopt(const std::string& place, std::uint64_t count) {
  for (Counted& each : rules_) {
    if (each.rule.place == place) {
      each.count = count;
    }
  }
}

std::string to_string(const LinkRule& rule) {
  std::string text(word_for(rule.action, kLinkActions));
  text += rule.direction ? " " + std::string(word_for(*rule.direction, kLinkDirections)) : "";
  text += rule.protocol ? " " + std::string(word_for(*rule.protocol, kLinkProtocols)) : "";
  if (!rule.network.empty()) {
    std::array<char, INET6_ADDRSTRLEN> address{};
    ::inet_ntop(rule.network.size() == sizeof(in_addr) ? AF_INET : AF_INET6, rule.network.data(),
                address.data(), address.size());
    text += " " + std::string(address.data()) + "/" + std::to_string(rule.network_bits);
  }
  if (rule.first_port != 0 || rule.last_port != std::numeric_limits<std::uint16_t>::max()) {
    text += " port " + std::to_string(rule.first_port);
    text += rule.last_port != rule.first_port ? "-" + std::to_string(rule.last_port) : "";
  }
  return text;
}

}  // namespace migrate
