#include "libmigrate/requests/members.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "libmigrate/requests/json_member.h"

namespace migrate {
namespace {

using nlohmann::json;

constexpr double kMillisecondsPerSecond = 1000;
constexpr double kMostSeconds = 1e9;  // A clock's nanoseconds hold that, added to now.
constexpr double kMostNumber = 1e15;  // What an integer holds, and nobody reaches.

Error bad_member(const char* name, const std::string& came, const std::string& remedy) {
  return make_error(ErrorCode::kInvalid, "read a request", std::string(name) + " " + came, remedy);
}

std::chrono::milliseconds to_milliseconds(double seconds) {
  return std::chrono::milliseconds(
      std::llround(std::min(seconds, kMostSeconds) * kMillisecondsPerSecond));
}

double to_seconds(std::chrono::milliseconds time) {
  return static_cast<double>(time.count()) / kMillisecondsPerSecond;
}

}  // namespace

MemberReader::MemberReader(const json& request) : request_(request) {
  if (!request_.is_object()) {
    note(make_error(ErrorCode::kInvalid, "read a request", "that is no JSON object",
                    "send one object in a line"));
  }
}

void MemberReader::note(Error error) {
  if (!error_) {
    error_ = std::move(error);
  }
}

Result<void> MemberReader::result() const {
  return error_ ? Result<void>(fail(*error_)) : Result<void>();
}

std::optional<std::string> MemberReader::text_of(const char* name) {
  const auto member = request_.find(name);
  if (member == request_.end()) {
    return std::nullopt;
  }
  if (!member->is_string()) {
    note(bad_member(name, "of type " + std::string(member->type_name()), "write a string"));
    return std::nullopt;
  }
  return member->get<std::string>();
}

std::optional<double> MemberReader::number_of(const char* name) {
  const auto member = request_.find(name);
  if (member == request_.end()) {
    return std::nullopt;
  }
  const double number = member->is_number() ? member->get<double>() : std::nan("");
  if (!(number >= 0)) {
    note(bad_member(name, json_text(*member), "write a number from 0"));
    return std::nullopt;
  }
  return std::min(number, kMostNumber);
}

void MemberReader::text(const char* name, std::string& value) {
  value = text_of(name).value_or(value);
}

void MemberReader::texts(const char* name, std::vector<std::string>& value) {
  const auto member = request_.find(name);
  if (member == request_.end()) {
    return;
  }
  const bool is_list = member->is_array() && std::ranges::all_of(*member, [](const json& each) {
                         return each.is_string();
                       });
  if (!is_list) {
    note(
        bad_member(name, "of type " + std::string(member->type_name()), "write a list of strings"));
    return;
  }
  value = member->get<std::vector<std::string>>();
}

void MemberReader::flag(const char* name, bool& value) {
  const auto member = request_.find(name);
  if (member == request_.end()) {
    return;
  }
  if (!member->is_boolean()) {
    note(bad_member(name, "of type " + std::string(member->type_name()), "write true or false"));
    return;
  }
  value = member->get<bool>();
}

void MemberReader::number(const char* name, double& value) {
  value = number_of(name).value_or(value);
}

void MemberReader::number(const char* name, std::optional<std::uint64_t>& value) {
  if (const auto number = number_of(name)) {
    value = static_cast<std::uint64_t>(*number);
  }
}

void MemberReader::whole(const char* name, std::uint32_t& value, std::uint32_t least,
                         std::uint32_t most) {
  const auto number = number_of(name);
  if (!number) {
    return;
  }
  if (*number < least || *number > most || *number != std::floor(*number)) {
    note(bad_member(
        name, json_text(request_[name]),
        "write a whole number from " + std::to_string(least) + " to " + std::to_string(most)));
    return;
  }
  value = static_cast<std::uint32_t>(*number);
}

void MemberReader::microseconds(const char* name, std::chrono::microseconds& value) {
  if (const auto number = number_of(name)) {
    value = std::chrono::microseconds(std::llround(std::min(*number, kMostSeconds * 1e6)));
  }
}

void MemberReader::seconds(const char* name, std::chrono::milliseconds& value) {
  if (const auto number = number_of(name)) {
    value = to_milliseconds(*number);
  }
}

void MemberReader::seconds(const char* name, std::optional<std::chrono::milliseconds>& value) {
  if (const auto number = number_of(name)) {
    value = to_milliseconds(*number);
  }
}

void MemberReader::token(const char* name, std::uint64_t& value) {
  const auto member = request_.find(name);
  if (member == request_.end()) {
    return;
  }
  if (!member->is_number_unsigned() || member->get<std::uint64_t>() == 0) {
    note(bad_member(name, json_text(*member), "write a whole number from 1"));
    return;
  }
  value = member->get<std::uint64_t>();
}

void MemberReader::rules(const char* name, PolicyRules& value) {
  if (const auto member = request_.find(name); member != request_.end()) {
    take(value, policy_from_json(*member));
  }
}

void MemberWriter::text(const char* name, const std::string& value) {
  if (!value.empty()) {
    request_[name] = value;
  }
}

void MemberWriter::texts(const char* name, const std::vector<std::string>& value) {
  if (!value.empty()) {
    request_[name] = value;
  }
}

void MemberWriter::flag(const char* name, bool value) {
  if (value) {
    request_[name] = true;
  }
}

void MemberWriter::number(const char* name, double value) {
  if (value != 0) {
    request_[name] = value;
  }
}

void MemberWriter::number(const char* name, const std::optional<std::uint64_t>& value) {
  if (value) {
    request_[name] = *value;
  }
}

void MemberWriter::whole(const char* name, std::uint32_t value, std::uint32_t /*least*/,
                         std::uint32_t /*most*/) {
  request_[name] = value;
}

void MemberWriter::microseconds(const char* name, std::chrono::microseconds value) {
  request_[name] = value.count();
}

void MemberWriter::seconds(const char* name, std::chrono::milliseconds value) {
  if (value.count() != 0) {
    request_[name] = to_seconds(value);
  }
}

void MemberWriter::seconds(const char* name,
                           const std::optional<std::chrono::milliseconds>& value) {
  if (value) {
    request_[name] = to_seconds(*value);
  }
}

void MemberWriter::token(const char* name, std::uint64_t value) {
  if (value != 0) {
    request_[name] = value;
  }
}

void MemberWriter::rules(const char* name, const PolicyRules& value) {
  if (!value.empty()) {
    request_[name] = to_json(value);
  }
}

void MemberWriter::write_word(const char* name, std::string_view word) {
  request_[name] = word;
}

}  // namespace migrate
