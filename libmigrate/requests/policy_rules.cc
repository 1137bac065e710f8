#include "libmigrate/requests/policy_rules.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#define TOML_EXCEPTIONS 0  // NOLINT(readability-identifier-naming): toml++ reads it.
#include <toml++/toml.h>

#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/words.h"

namespace migrate {
namespace {

constexpr std::size_t kMostRules = 256;
constexpr std::size_t kMostNameBytes = 1024;
// Each lets a pattern be tried at all places of a name, for each of those before it.
constexpr std::ptrdiff_t kMostStars = 4;

/// What is wrong with a rule as a whole; empty: nothing.
std::string fault_of(const PolicyRule& rule) {
  if (rule.name.size() > kMostNameBytes ||
      std::count(rule.name.begin(), rule.name.end(), '*') > kMostStars) {
    return "a pattern has at most 1024 bytes and four *";
  }
  // Both are shown to people, and written into logs.
  const auto steers = [](unsigned char byte) { return byte < ' ' || byte == 0x7f; };
  if (std::ranges::any_of(rule.name, steers) || std::ranges::any_of(rule.place, steers)) {
    return "a name has no control characters";
  }
  if (rule.min_bytes > rule.max_bytes) {
    return "min_bytes is more than max_bytes: it fits nothing";
  }
  if (rule.kind && is_of_file(*rule.kind) && !rule.name.empty() &&
      std::string_view("/*?[").find(rule.name.front()) == std::string_view::npos) {
    return "it fits nothing: paths of files begin with /, and so must their pattern, or with *";
  }
  const bool never_of_file = rule.kind && !is_of_file(*rule.kind);
  if (never_of_file && rule.travel == Travel::kLocal) {
    return "only files can be local; a heap, a stack and an arena are nowhere else";
  }
  if (never_of_file && rule.known) {
    return "only of files it is asked whether they are known";
  }
  return {};
}

/// Reads one file.
class PolicyReader {
 public:
  PolicyReader(const std::string& file, bool is_of_host) : file_(file), is_of_host_(is_of_host) {}

  Result<PolicyRules> read(const toml::table& table) const {
    PolicyRules rules;
    for (const auto& [key, node] : table) {
      const toml::array* list = node.as_array();
      if (key.str() == "link" && is_of_host_) {
        continue;
      }
      if (key.str() == "link") {
        return fail(wrong(key.source(),
                          "rules of links are the host's alone, in the policy of its migrated"));
      }
      if (key.str() != "rule" || list == nullptr) {
        return fail(wrong(key.source(), "here are only [[rule]] tables"));
      }
      for (const toml::node& element : *list) {
        const toml::table* rule = element.as_table();
        if (rule == nullptr) {
          return fail(
              wrong(element.source(), "write [[rule]], and its keys in lines of their own"));
        }
        rules.push_back(MIGRATE_TRY(read_rule(*rule)));
      }
    }
    if (rules.size() > kMostRules) {
      return fail(wrong(table.source(), "a policy has at most 256 rules"));
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
  Result<PolicyRule> read_rule(const toml::table& table) const {
    PolicyRule rule;
    rule.place = file_ + ":" + std::to_string(table.source().begin.line);
    for (const auto& [key, node] : table) {
      MIGRATE_TRY(read_key(key, node, rule));
    }
    if (!table.contains("action")) {
      return fail(wrong(table.source(), "the rule has no action: " + list_words(kTravels)));
    }
    if (const std::string fault = fault_of(rule); !fault.empty()) {
      return fail(wrong(table.source(), fault));
    }
    return rule;
  }

  Result<void> read_key(const toml::key& key, const toml::node& node, PolicyRule& rule) const {
    const std::string_view name = key.str();
    if (name == "kind") {
      rule.kind = MIGRATE_TRY(word_of(node, kMemoryKinds));
    } else if (name == "action") {
      rule.travel = MIGRATE_TRY(word_of(node, kTravels));
    } else if (name == "name") {
      const auto text = node.value_exact<std::string>();
      if (!text) {
        return fail(wrong(node.source(), "write name = \"PATTERN\""));
      }
      rule.name = *text;
    } else if (name == "min_bytes") {
      rule.min_bytes = MIGRATE_TRY(number_of(node));
    } else if (name == "max_bytes") {
      rule.max_bytes = MIGRATE_TRY(number_of(node));
    } else if (name == "known") {
      rule.known = node.value_exact<bool>();
      if (!rule.known) {
        return fail(wrong(node.source(), "write known = true or known = false"));
      }
    } else {
      return fail(wrong(key.source(),
                        "unknown key; a rule has kind, name, min_bytes, max_bytes, "
                        "known and action"));
    }
    return {};
  }

  template <typename Value, std::size_t count>
  Result<Value> word_of(const toml::node& node, const Words<Value, count>& words) const {
    const auto text = node.value_exact<std::string>();
    const auto value = text ? find_word(*text, words) : std::nullopt;
    if (!value) {
      return fail(wrong(node.source(), "write one of " + list_words(words)));
    }
    return *value;
  }

  Result<std::uint64_t> number_of(const toml::node& node) const {
    const auto number = node.value_exact<std::int64_t>();
    if (!number || *number < 0) {
      return fail(wrong(node.source(), "write a whole number from 0"));
    }
    return static_cast<std::uint64_t>(*number);
  }

  const std::string& file_;
  bool is_of_host_;
};

Error bad_rules(std::string remedy) {
  return make_error(ErrorCode::kInvalid, "read a request", "policy", std::move(remedy));
}

/// The name of a member that a rule may have, and is of another type; null: none is. Taken as
/// absent, it would make the rule fit more than whoever wrote it meant.
const char* misfit_of(const nlohmann::json& written) {
  const auto is_other = [&written](const char* name, auto fits) {
    const auto member = written.find(name);
    return member != written.end() && !fits(*member);
  };
  const auto is_text = [](const nlohmann::json& value) { return value.is_string(); };
  const auto is_number = [](const nlohmann::json& value) { return value.is_number_unsigned(); };
  for (const char* const name : {"place", "action", "kind", "name"}) {
    if (is_other(name, is_text)) {
      return name;
    }
  }
  for (const char* const name : {"min_bytes", "max_bytes"}) {
    if (is_other(name, is_number)) {
      return name;
    }
  }
  return is_other("known", [](const nlohmann::json& value) { return value.is_boolean(); })
             ? "known"
             : nullptr;
}

Result<PolicyRule> rule_from_json(const nlohmann::json& written) {
  if (const char* const misfit = misfit_of(written)) {
    return fail(bad_rules("the " + std::string(misfit) + " of a rule is of another type"));
  }
  PolicyRule rule;
  const auto travel = find_word(text_member(written, "action"), kTravels);
  rule.place = text_member(written, "place");
  rule.name = text_member(written, "name");
  rule.min_bytes = written.value("min_bytes", rule.min_bytes);
  rule.max_bytes = written.value("max_bytes", rule.max_bytes);
  if (const auto known = written.find("known"); known != written.end()) {
    rule.known = known->get<bool>();
  }
  if (written.contains("kind")) {
    rule.kind = find_word(text_member(written, "kind"), kMemoryKinds);
  }
  if (!travel || (written.contains("kind") && !rule.kind) || rule.place.size() > kMostNameBytes) {
    return fail(bad_rules("each rule has a place and an action, and perhaps a kind"));
  }
  rule.travel = *travel;
  if (std::string fault = fault_of(rule); !fault.empty()) {
    return fail(bad_rules(std::move(fault)));
  }
  return rule;
}

Result<PolicyRules> parse_text(std::string_view text, const PolicyReader& reader,
                               const std::string& file) {
  const toml::parse_result parsed = toml::parse(text, file);
  if (!parsed) {
    return fail(reader.wrong(parsed.error().source(), parsed.error().description()));
  }
  return reader.read(parsed.table());
}

}  // namespace

Result<PolicyRules> parse_policy(std::string_view text, const std::string& file) {
  return parse_text(text, PolicyReader(file, false), file);
}

Result<PolicyRules> parse_host_policy(std::string_view text, const std::string& file) {
  return parse_text(text, PolicyReader(file, true), file);
}

nlohmann::json to_json(const PolicyRules& rules) {
  nlohmann::json list = nlohmann::json::array();
  for (const PolicyRule& rule : rules) {
    nlohmann::json object = {{"place", rule.place},
                             {"action", word_for(rule.travel, kTravels)},
                             {"name", rule.name},
                             {"min_bytes", rule.min_bytes},
                             {"max_bytes", rule.max_bytes}};
    if (rule.kind) {
      object["kind"] = word_for(*rule.kind, kMemoryKinds);
    }
    if (rule.known) {
      object["known"] = *rule.known;
    }
    list.push_back(std::move(object));
  }
  return list;
}

Result<PolicyRules> policy_from_json(const nlohmann::json& rules) {
  if (!rules.is_array() || rules.size() > kMostRules) {
    return fail(bad_rules("write a list of at most 256 rules"));
  }
  PolicyRules read;
  for (const nlohmann::json& rule : rules) {
    if (!rule.is_object()) {
      return fail(bad_rules("each rule is an object"));
    }
    read.push_back(MIGRATE_TRY(rule_from_json(rule)));
  }
  return read;
}

}  // namespace migrate
