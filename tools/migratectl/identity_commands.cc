#include "tools/migratectl/identity_commands.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>
#include <cstring>
#include <string_view>

#include "libmigrate/requests/request_json.h"
#include "libmigrate/requests/words.h"
#include "tools/migratectl/print.h"

namespace migrate {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 5> kCommands = {"identity", "kill", "watch", "name", "link"};

/// TERM, SIGTERM or 15.
Result<std::uint32_t> parse_signal(const std::string& word) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (error == std::errc() && end == word.data() + word.size() &&
      number <= KillRequest::kMostSignal) {
    return number;
  }
  const std::string name = word.starts_with("SIG") ? word.substr(3) : word;
  for (int each = 1; each < NSIG; ++each) {
    const char* const known = ::sigabbrev_np(each);
    if (known != nullptr && name == known) {
      return static_cast<std::uint32_t>(each);
    }
  }
  return fail(make_error(ErrorCode::kInvalid, "read the signal", "\"" + word + "\"",
                         "write its name or number, as kill -l lists them"));
}

/// NAME or NAME@HOST.
Result<void> set_name(NameRequest& request, const std::string& text) {
  const std::size_t at = text.find('@');
  request.name = text.substr(0, at);
  request.host = at == std::string::npos ? "" : text.substr(at + 1);
  if (at != std::string::npos && request.host.empty()) {
    return fail(make_error(ErrorCode::kInvalid, "name", text, "no host follows the @"));
  }
  return request.settle();
}

Result<json> name_request_of(const CLI::App& command, const IdentityOptions& options) {
  NameRequest request;
  const std::string word = command.get_subcommands().front()->get_name();
  request.action = MIGRATE_TRY(value_of(word, "name", kNameActions));
  if (request.action == NameAction::kList) {
    request.host = options.name;
  } else {
    MIGRATE_TRY(set_name(request, options.name));
  }
  if (request.action == NameAction::kSet && !request.host.empty()) {
    return fail(make_error(ErrorCode::kInvalid, "name", options.name,
                           "the home of the process keeps its name: leave @HOST away"));
  }
  return request_for(request);
}

void add_name(CLI::App& app, IdentityOptions& options, std::string& target) {
  CLI::App* name = app.add_subcommand("name", "Give names to processes, and find them by these");
  name->require_subcommand(1);
  const char* const held = "NAME, or NAME@HOST if several hosts have it";
  CLI::App* set = name->add_subcommand("set", "Give a process a name, which its home keeps");
  set->add_option("NAME", options.name, "Letters, digits, \".\", \"_\", \"-\"")->required();
  set->add_option("ID", target, "Global name, id or its beginning, or a pid")->required();
  CLI::App* get = name->add_subcommand("get", "Print the global name of the process that has it");
  get->add_option("NAME", options.name, held)->required();
  CLI::App* unset = name->add_subcommand("unset", "Take a name away");
  unset->add_option("NAME", options.name, "NAME of this host, or NAME@HOST")->required();
  CLI::App* list = name->add_subcommand("list", "List the names that a host keeps");
  list->add_option("HOST", options.name, "The host (default: this one)");
}

}  // namespace

void add_identity_commands(CLI::App& app, IdentityOptions& options, std::string& target) {
  const char* const which = "Global name, id or its beginning, or a pid";
  app.add_subcommand("identity", "Print the global name of a process, which is its own everywhere")
      ->add_option("ID", target, "Id or its beginning, or a pid")
      ->required();
  CLI::App* kill = app.add_subcommand("kill", "Send a signal to a process, wherever it is");
  kill->add_option("ID", target, which)->required();
  kill->add_option("-s,--signal", options.signal,
                   "Name or number; 0: only whether it may be sent (default: TERM)")
      ->type_name("SIGNAL");
  CLI::App* watch = app.add_subcommand(
      "watch", "Tell where a process is, whenever that changes, and how it ends");
  watch->add_option("ID", target, which)->required();
  add_name(app, options, target);
  CLI::App* link = app.add_subcommand("link", "Let two processes end together, wherever they are");
  link->add_option("ID", target, which)->required();
  link->add_option("OTHER", options.other, "The other process, as ID")->required();
  link->add_option("-s,--signal", options.link_signal,
                   "What is sent to one when the other has ended (default: KILL)")
      ->type_name("SIGNAL");
  link->add_flag("--one-way", options.link.one_way, "OTHER is signalled when ID has ended, only");
  link->add_flag("--remove", options.link.ends, "There is to be no such link any more");
}

bool is_identity_command(const std::string& command) {
  return std::ranges::find(kCommands, command) != kCommands.end();
}

Result<json> identity_request_of(const CLI::App& app, const IdentityOptions& options) {
  const CLI::App& command = *app.get_subcommands().front();
  const std::string word = command.get_name();
  if (word == "kill") {
    return request_for(KillRequest{MIGRATE_TRY(parse_signal(options.signal))});
  }
  if (word == "name") {
    return name_request_of(command, options);
  }
  if (word == "link") {
    LinkRequest link = options.link;
    link.other = options.other;
    link.signal = MIGRATE_TRY(parse_signal(options.link_signal));
    return request_for(link);
  }
  return json{{"command", word}};
}

std::string identity_text(const std::string& command, const json& result) {
  if (command == "name" && result.contains("names")) {
    std::string lines;
    for (const json& each : result["names"]) {
      lines += fmt::format("{} {}\n", text_of(each, "name"), text_of(each, "identity"));
    }
    return lines;
  }
  if (command == "name" || command == "identity") {
    return text_of(result, "identity") + "\n";
  }
  if (command == "watch") {
    const std::string how = text_of(result, "exit_text");
    return fmt::format("{}\n", how.empty() ? text_of(result, "state") : how);
  }
  if (command == "kill") {
    return fmt::format("signal {} sent to {}, which is at {}\n", text_of(result, "signal"),
                       text_of(result, "identity"), text_of(result, "where"));
  }
  return "done\n";
}

std::string watch_text(const json& event) {
  const std::string kind = text_of(event, "event");
  if (kind == "process") {
    const std::string state = text_of(event, "state");
    return fmt::format("{} {} ({})\n", state == "moving" ? "is being moved from" : "runs at",
                       text_of(event, "where"), state);
  }
  return kind == "unreachable"
             ? fmt::format("its home does not answer: {}\n", text_of(event, "message"))
             : std::string();
}

}  // namespace migrate
