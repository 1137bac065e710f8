#include "tools/manual/describe.h"

#include <nlohmann/json.hpp>
#include <string>

namespace migrate {
namespace {

using nlohmann::json;

/// Options of this group are not in --help; CLI11 has it so.
constexpr const char* kHidden = "";

/// The words that an option may have: CLI11 writes them behind the type's name, as in TEXT:{a,b}.
json words_of(const std::string& type) {
  json words = json::array();
  const std::size_t begin = type.find(":{");
  if (begin == std::string::npos || type.back() != '}') {
    return words;
  }
  for (std::size_t at = begin + 2; at < type.size();) {
    const std::size_t end = type.find_first_of(",}", at);
    words.push_back(type.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

json described(const CLI::Option& option) {
  json names = json::array();
  for (const std::string& name : option.get_snames()) {
    names.push_back("-" + name);
  }
  for (const std::string& name : option.get_lnames()) {
    names.push_back("--" + name);
  }
  const std::string type = option.get_type_name();
  const bool is_flag = option.get_items_expected_max() == 0;
  return {{"names", names},
          {"positional", option.get_positional() ? option.get_name(true) : ""},
          {"help", option.get_description()},
          {"type", is_flag ? "" : type.substr(0, type.find(':'))},
          {"words", words_of(type)},
          {"default", option.get_default_str()},
          {"environment", option.get_envname()},
          {"required", option.get_required()},
          {"repeatable", option.get_items_expected_max() > 1}};
}

json described(const CLI::App& app) {
  json options = json::array();
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group() != kHidden) {
      options.push_back(described(*option));
    }
  }
  json commands = json::array();
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (command->get_group() != kHidden) {
      commands.push_back(described(*command));
    }
  }
  return {{"name", app.get_name()},
          {"help", app.get_description()},
          {"options", options},
          {"commands", commands}};
}

}  // namespace

void let_describe(CLI::App& app) {
  let_describe(app, json::object());
}

void let_describe(CLI::App& app, const json& more) {
  const auto describe = [&app, more] {
    json all = described(app);
    all.update(more);
    throw CLI::CallForVersion(all.dump(1), 0);
  };
  app.add_flag_callback("--describe", describe)->group(kHidden);
}

}  // namespace migrate
