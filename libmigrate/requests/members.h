#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "libmigrate/requests/policy_rules.h"
#include "libmigrate/requests/words.h"

namespace migrate {

// The members of a request, each named once, in the each() of its struct (requests.h): one of these
// reads them there, the other writes them.

/// Reads members of a request that someone else wrote. One that is not there leaves its value as it
/// is; one of another type is an error, too. Errors name the member, what came, and what may come
/// (kInvalid); the first one counts. `request` is borrowed. Owned by one thread.
class MemberReader {
 public:
  explicit MemberReader(const nlohmann::json& request);

  void text(const char* name, std::string& value);
  /// A list of them.
  void texts(const char* name, std::vector<std::string>& value);
  void flag(const char* name, bool& value);
  /// A number from 0.
  void number(const char* name, double& value);
  void number(const char* name, std::optional<std::uint64_t>& value);
  /// A whole number from `least` to `most`.
  void whole(const char* name, std::uint32_t& value, std::uint32_t least, std::uint32_t most);
  void microseconds(const char* name, std::chrono::microseconds& value);
  /// A number of seconds.
  void seconds(const char* name, std::chrono::milliseconds& value);
  void seconds(const char* name, std::optional<std::chrono::milliseconds>& value);
  /// A whole number from 1, by which an answer is known; 0 if there is none.
  void token(const char* name, std::uint64_t& value);
  void rules(const char* name, PolicyRules& value);
  /// A word that `parse` knows; `to_word` is for the writer.
  template <typename Value, typename Parse, typename ToWord>
  void word(const char* name, Value& value, Parse parse, ToWord /*to_word*/) {
    if (const auto came = text_of(name)) {
      take(value, parse(*came));
    }
  }
  /// A word of a table.
  template <typename Value, std::size_t count>
  void word(const char* name, Value& value, const Words<Value, count>& words) {
    if (const auto came = text_of(name)) {
      take(value, value_of(*came, name, words));
    }
  }
  /// The same of one that must be there.
  template <typename Value, std::size_t count>
  void needed_word(const char* name, Value& value, const Words<Value, count>& words) {
    take(value, value_of(text_of(name).value_or(""), name, words));
  }

  /// What was wrong, if anything.
  Result<void> result() const;

 private:
  std::optional<std::string> text_of(const char* name);
  std::optional<double> number_of(const char* name);
  void note(Error error);
  template <typename Value>
  void take(Value& value, Result<Value> read) {
    if (read) {
      value = std::move(*read);
    } else {
      note(std::move(read).error());
    }
  }

  const nlohmann::json& request_;
  std::optional<Error> error_;
};

/// Writes members of a request. Those that say nothing are left away: a text without letters, the
/// number 0 that is no limit, false, and what is not given. `request` is borrowed.
class MemberWriter {
 public:
  explicit MemberWriter(nlohmann::json& request) : request_(request) {}

  void text(const char* name, const std::string& value);
  void texts(const char* name, const std::vector<std::string>& value);
  void flag(const char* name, bool value);
  void number(const char* name, double value);
  void number(const char* name, const std::optional<std::uint64_t>& value);
  void whole(const char* name, std::uint32_t value, std::uint32_t least, std::uint32_t most);
  void microseconds(const char* name, std::chrono::microseconds value);
  void seconds(const char* name, std::chrono::milliseconds value);
  void seconds(const char* name, const std::optional<std::chrono::milliseconds>& value);
  void token(const char* name, std::uint64_t value);
  void rules(const char* name, const PolicyRules& value);
  template <typename Value, typename Parse, typename ToWord>
  void word(const char* name, const Value& value, Parse /*parse*/, ToWord to_word) {
    write_word(name, to_word(value));
  }
  template <typename Value, std::size_t count>
  void word(const char* name, const Value& value, const Words<Value, count>& words) {
    write_word(name, word_for(value, words));
  }
  template <typename Value, std::size_t count>
  void needed_word(const char* name, const Value& value, const Words<Value, count>& words) {
    word(name, value, words);
  }

 private:
  void write_word(const char* name, std::string_view word);

  nlohmann::json& request_;
};

}  // namespace migrate
