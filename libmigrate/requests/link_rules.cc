#include "libmigrate/requests/link_rules.h"

#include <arpa/inet.h>
#include <pwd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#define TOML_EXCEPTIONS 0  // NOLINT(readability-identifier-naming): toml++ reads it.
#include <toml++/toml.h>

namespace migrate {
namespace {

constexpr std::size_t kMostLinkRules = 256;
constexpr std::size_t kMostPatternBytes = 1024;
// As of rules for memory (policy_rules.cc).
constexpr std::ptrdiff_t kMostPatternStars = 4;
constexpr std::size_t kBytesOfFour = 4;
constexpr std::size_t kBytesOfSix = 16;
constexpr std::uint32_t kBitsOfByte = 8;

template <class Number>
std::optional<Number> number_of(std::string_view text) {
  Number number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && !text.empty()
             ? std::optional(number)
             : std::nullopt;
}

/// A number, or two with a dash between.
template <class Number>
std::optional<std::pair<Number, Number>> range_of(std::string_view text) {
  const std::size_t dash = text.find('-');
  const auto first = number_of<Number>(text.substr(0, dash));
  const auto last = dash == text.npos ? first : number_of<Number>(text.substr(dash + 1));
  return first && last && *first <= *last ? std::optional(std::pair(*first, *last)) : std::nullopt;
}

std::optional<std::pair<uid_t, uid_t>> users_of(const std::string& word) {
  if (const auto range = range_of<uid_t>(word)) {
    return range;
  }
  const passwd* const entry = ::getpwnam(word.c_str());
  return entry != nullptr ? std::optional(std::pair(entry->pw_uid, entry->pw_uid)) : std::nullopt;
}

/// ADDRESS or ADDRESS/BITS.
bool set_network(const std::string& word, LinkRule& rule) {
  const std::size_t slash = word.find('/');
  const std::string address = word.substr(0, slash);
  std::array<char, kBytesOfSix> bytes{};
  const std::size_t size = ::inet_pton(AF_INET, address.c_str(), bytes.data()) == 1 ? kBytesOfFour
                           : ::inet_pton(AF_INET6, address.c_str(), bytes.data()) == 1 ? kBytesOfSix
                                                                                       : 0;
  const auto all = static_cast<std::uint32_t>(size) * kBitsOfByte;
  const auto bits = slash == word.npos
                        ? std::optional(all)
                        : number_of<std::uint32_t>(std::string_view(word).substr(slash + 1));
  if (size == 0 || !bits || *bits > all) {
    return false;
  }
  rule.network.assign(bytes.data(), size);
  rule.network_bits = *bits;
  return true;
}

bool is_pattern(const std::string& pattern) {
  return pattern.size() <= kMostPatternBytes &&
         std::count(pattern.begin(), pattern.end(), '*') <= kMostPatternStars &&
         std::ranges::none_of(pattern,
                              [](unsigned char byte) { return byte < ' ' || byte == 0x7f; });
}

/// Reads one file.
class LinkRuleReader {
 public:
  explicit LinkRuleReader(const std::string& file) : file_(file) {}

  Result<LinkRules> read(const toml::table& table) const {
    LinkRules rules;
    const toml::node* const node = table.get("link");
    const toml::array* const list = node != nullptr ? node->as_array() : nullptr;
    if (node != nullptr && list == nullptr) {
      return fail(wrong(node->source(), "write [[link]], and its keys in lines of their own"));
    }
    for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
      const toml::table* const rule = (*list)[i].as_table();
      if (rule == nullptr) {
        return fail(
            wrong((*list)[i].source(), "write [[link]], and its keys in lines of their own"));
      }
      rules.push_back(MIGRATE_TRY(read_rule(*rule)));
    }
    if (rules.size() > kMostLinkRules) {
      return fail(wrong(table.source(), "a policy has at most 256 rules of links"));
    }
    return rules;
  }

  Error wrong(const toml::source_region& at, std::string_view what) const {
    return make_error(
        ErrorCode::kInvalid, "read the policy",
        file_ + ":" + std::to_string(at.begin.line) + ":" + std::to_string(at.begin.column),
        std::string(what));
  }

 private:
  Result<LinkRule> read_rule(const toml::table& table) const {
    LinkRule rule;
    rule.place = file_ + ":" + std::to_string(table.source().begin.line);
    for (const auto& [key, node] : table) {
      const auto text = node.value_exact<std::string>();
      const auto port = node.value_exact<std::int64_t>();
      if (!text && !(key.str() == "port" && port)) {
        return fail(wrong(node.source(), "write " + std::string(key.str()) + " = \"...\""));
      }
      const std::string value = text ? *text : std::to_string(*port);
      MIGRATE_TRY(read_key(key, node, value, rule));
    }
    if (!table.contains("action")) {
      return fail(wrong(table.source(), "the rule has no action: " + list_words(kLinkActions)));
    }
    if (rule.action == LinkAction::kPlace && !rule.is_of_all_links()) {
      return fail(wrong(table.source(),
                        "a process uses the network of the place for all its links or for none: "
                        "with action = \"place\" a rule has only user, program and identity"));
    }
    return rule;
  }

  Result<void> read_key(const toml::key& key, const toml::node& node, const std::string& value,
                        LinkRule& rule) const {
    const std::string_view name = key.str();
    if (name == "user") {
      return take(
          node, users_of(value),
          [&](const auto& users) { std::tie(rule.first_user, rule.last_user) = users; },
          "write a user of this host, a number, or a range of numbers (1000-1999)");
    }
    if (name == "program" || name == "identity") {
      return take(
          node, is_pattern(value) ? std::optional(value) : std::nullopt,
          [&](const auto& pattern) {
            (name == "program" ? rule.program : rule.identity) = pattern;
          },
          "a pattern has at most 1024 bytes and four *, and no control characters");
    }
    if (name == "direction") {
      return take(
          node, find_word(value, kLinkDirections),
          [&](auto direction) { rule.direction = direction; },
          "write one of " + list_words(kLinkDirections));
    }
    if (name == "protocol") {
      return take(
          node, find_word(value, kLinkProtocols), [&](auto protocol) { rule.protocol = protocol; },
          "write one of " + list_words(kLinkProtocols));
    }
    if (name == "peer") {
      return set_network(value, rule)
                 ? Result<void>()
                 : fail(wrong(node.source(), "write ADDRESS or ADDRESS/BITS (10.0.0.0/8, ::1)"));
    }
    if (name == "port") {
      return take(
          node, range_of<std::uint16_t>(value),
          [&](const auto& ports) { std::tie(rule.first_port, rule.last_port) = ports; },
          "write a port, or a range of ports (\"8000-8099\")");
    }
    if (name == "action") {
      return take(
          node, find_word(value, kLinkActions), [&](auto action) { rule.action = action; },
          "write one of " + list_words(kLinkActions));
    }
    return fail(wrong(key.source(),
                      "unknown key; a link has user, program, identity, direction, protocol, peer, "
                      "port and action"));
  }

  template <class Value, class Put>
  Result<void> take(const toml::node& node, const std::optional<Value>& value, Put put,
                    std::string_view what) const {
    if (!value) {
      return fail(wrong(node.source(), what));
    }
    put(*value);
    return {};
  }

  const std::string& file_;
};

}  // namespace

Result<LinkRules> parse_link_rules(std::string_view text, const std::string& file) {
  const LinkRuleReader reader(file);
  const toml::parse_result parsed = toml::parse(text, file);
  if (!parsed) {
    return fail(reader.wrong(parsed.error().source(), parsed.error().description()));
  }
  return reader.read(parsed.table());
}

}  // namespace migrate
