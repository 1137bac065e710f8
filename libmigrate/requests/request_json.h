#pragma once

#include <sys/types.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

// Requests as JSON objects: {"command": WORD, ...}, the rest as the each() of its struct has it.

/// The line by which a client takes a move back that it asked for, while that can be.
inline constexpr std::string_view kCancel = R"({"command":"cancel"})";

template <class Type>
concept IsRequest = requires {
  Type::kWord;
};

/// What `request` says, taken as one of that type. Who asks, and of which process, is filled in by
/// the caller, who knows better. Errors: kInvalid, as MemberReader.
template <IsRequest Request>
Result<Request> request_as(const nlohmann::json& request) {
  Request asked;
  MemberReader members(request);
  Request::each(members, asked);
  MIGRATE_TRY(members.result());
  if constexpr (requires { asked.settle(); }) {
    MIGRATE_TRY(asked.settle());
  }
  return asked;
}

/// Its JSON, which request_as() reads back; without a process, and who asks.
template <IsRequest Request>
nlohmann::json request_for(const Request& asked) {
  nlohmann::json request = {{"command", Request::kWord}};
  MemberWriter members(request);
  Request::each(members, asked);
  return request;
}
template <class... Requests>
nlohmann::json request_for(const std::variant<Requests...>& asked) {
  return std::visit([](const auto& each) { return request_for(each); }, asked);
}

/// The word of a request.
template <class... Requests>
std::string_view word_of(const std::variant<Requests...>& asked) {
  return std::visit([]<class Request>(const Request&) { return Request::kWord; }, asked);
}

/// The command that `request` names, one of those in requests.h. Errors: kInvalid.
Result<std::string_view> command_of(const nlohmann::json& request);
/// What `request` asks for, with all its members. Errors: kInvalid.
Result<AnyRequest> parse_any(const nlohmann::json& request);
/// What whoever wrote `request` waits for: only a move has something to wait for.
MoveWait wait_of(const nlohmann::json& request);

/// Which process a request is about: by an id or the beginning of one, or by a pid.
struct ProcessName {
  std::string id;
  pid_t pid = -1;  ///< 0: the client itself. Counts where there is no id.
  bool given() const { return !id.empty() || pid >= 0; }
};
/// Which process it is about; none given is no error. Digits as a pid is written are a pid, also
/// where an id may be.
Result<ProcessName> parse_process(const nlohmann::json& request);
/// Adds the process that a request is about.
void name_process(nlohmann::json& request, const ProcessName& process);
/// What the process that asks will know the answer by (`token`); 0: it waits for it at the socket.
Result<std::uint64_t> parse_token(const nlohmann::json& request);

/// The words of members. Errors of parsing one: kInvalid.
std::string_view to_string(MoveWait wait);
std::string_view to_string(Resolution resolution);
Result<MoveWait> parse_move_wait(std::string_view word);
Result<WaitFor> parse_wait_for(std::string_view word);
std::vector<std::string> move_wait_words();
std::vector<std::string> wait_for_words();

}  // namespace migrate
