#include "libmigrate/requests/request_json.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <type_traits>
#include <utility>

#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/words.h"

namespace migrate {
namespace {

using nlohmann::json;

/// Reads the requests of one list.
template <class List>
struct ListReader;
template <class... Requests>
struct ListReader<std::variant<Requests...>> {
  using Asked = std::variant<Requests...>;

  static void add_words(std::vector<std::string_view>& words) {
    (words.push_back(Requests::kWord), ...);
  }
  /// Nothing: `word` is not of this list.
  static std::optional<Result<AnyRequest>> read(std::string_view word, const json& request) {
    std::optional<Result<AnyRequest>> found;
    ((word == Requests::kWord ? void(found = read_one<Requests>(request)) : void()), ...);
    return found;
  }

 private:
  template <class Request>
  static Result<AnyRequest> read_one(const json& request) {
    return AnyRequest(Asked(MIGRATE_TRY(request_as<Request>(request))));
  }
};

/// In the order in which errors list them.
std::vector<std::string_view> all_words() {
  std::vector<std::string_view> words;
  ListReader<WorkerRequest>::add_words(words);
  ListReader<DaemonRequest>::add_words(words);
  return words;
}

}  // namespace

std::string_view to_string(MoveWait wait) {
  return word_for(wait, kMoveWaitWords);
}

std::string_view to_string(Resolution resolution) {
  return word_for(resolution, kResolutions);
}

Result<MoveWait> parse_move_wait(std::string_view word) {
  return value_of(word, "wait", kMoveWaitWords);
}

Result<WaitFor> parse_wait_for(std::string_view word) {
  return value_of(word, "for", kWaitWords);
}

std::vector<std::string> move_wait_words() {
  return words_in(kMoveWaitWords);
}

std::vector<std::string> wait_for_words() {
  return words_in(kWaitWords);
}

Result<std::string_view> command_of(const json& request) {
  std::string given;
  MemberReader members(request);
  members.text("command", given);
  MIGRATE_TRY(members.result());
  std::string list;
  for (const std::string_view word : all_words()) {
    if (word == given) {
      return word;
    }
    list += (list.empty() ? "" : ", ") + std::string(word);
  }
  return fail(make_error(ErrorCode::kInvalid, "read a request", "command \"" + given + "\"",
                         "use one of: " + list));
}

Result<AnyRequest> parse_any(const json& request) {
  const std::string_view word = MIGRATE_TRY(command_of(request));
  auto asked = ListReader<WorkerRequest>::read(word, request);
  return asked ? *std::move(asked) : *ListReader<DaemonRequest>::read(word, request);
}

MoveWait wait_of(const json& request) {
  MoveRequest move;
  MemberReader members(request);
  members.word("wait", move.wait, kMoveWaitWords);
  return move.wait;
}

Result<ProcessName> parse_process(const json& request) {
  // No pid has more digits (the kernel's pid_max is at most 4194304); the short ids that `ps` shows
  // have more.
  constexpr std::size_t kLongestPid = 7;
  ProcessName process;
  MemberReader members(request);
  members.text("process", process.id);
  MIGRATE_TRY(members.result());
  const bool is_number = process.id.find_first_not_of("0123456789") == std::string::npos;
  if (!process.id.empty() && process.id.size() <= kLongestPid && process.id.front() != '0' &&
      is_number) {
    process.pid = std::stoi(process.id);
    process.id.clear();
    return process;
  }
  const auto pid = request.find("pid");
  if (pid == request.end()) {
    return process;
  }
  process.pid = integer_member(request, "pid", -1);
  if (process.pid < 0 || process.pid >= (1 << 30)) {
    return fail(make_error(ErrorCode::kInvalid, "read a request", "pid " + json_text(*pid),
                           "write the number of a process, or 0 for your own"));
  }
  return process;
}

void name_process(json& request, const ProcessName& process) {
  if (!process.id.empty()) {
    request["process"] = process.id;
  }
  if (process.pid >= 0) {
    request["pid"] = process.pid;
  }
}

Result<std::uint64_t> parse_token(const json& request) {
  std::uint64_t token = 0;
  MemberReader members(request);
  members.token("token", token);
  MIGRATE_TRY(members.result());
  return token;
}

}  // namespace migrate
