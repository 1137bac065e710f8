#include "libmigrate/api/result.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <limits>
#include <utility>

#include "libmigrate/api/json_text.h"

namespace {

using migrate::client::ObjectScanner;

thread_local std::string last_message;

/// A global name, ORIGIN/SERIAL/EPOCH. Without one, `origin` is empty.
void read_identity(const std::string& text, std::string& origin, migrate_identity& identity) {
  constexpr int kHexadecimal = 16;
  const std::size_t last = text.rfind('/');
  const std::size_t first =
      last == 0 || last == std::string::npos ? std::string::npos : text.rfind('/', last - 1);
  if (first == std::string::npos) {
    return;
  }
  origin = text.substr(0, first);
  std::from_chars(text.data() + first + 1, text.data() + last, identity.serial, kHexadecimal);
  std::from_chars(text.data() + last + 1, text.data() + text.size(), identity.epoch, kHexadecimal);
}

migrate_result::Process read_process(std::string_view object) {
  const ObjectScanner scanner(object);
  const auto text = [&scanner](const char* name) { return scanner.string(name).value_or(""); };
  migrate_result::Process process;
  process.id = text("process");
  process.role = text("role");
  process.state = text("state");
  process.where = text("where");
  process.home = text("home");
  process.command = text("command");
  read_identity(text("identity"), process.origin, process.values.identity);
  process.values.pid = static_cast<pid_t>(scanner.integer("pid").value_or(0));
  const auto owed = scanner.integer("owed_pages");
  process.values.owed_pages =
      owed ? static_cast<std::uint64_t>(*owed) : std::numeric_limits<std::uint64_t>::max();
  process.values.exit_status = static_cast<int>(scanner.integer("exit_status").value_or(-1));
  return process;
}

/// Fills in as much of the caller's struct as both sides know. `least`: its size in the first
/// version.
template <class Struct>
int fill(Struct* target, Struct known, std::size_t least) {
  if (target == nullptr || target->size < least) {
    return -1;
  }
  known.size = target->size;
  std::memcpy(target, &known, std::min(target->size, sizeof known));
  return 0;
}

constexpr std::size_t kLeastRefusal = offsetof(migrate_refusal, remedy) + sizeof(const char*);
constexpr std::size_t kLeastPlace = offsetof(migrate_place, owed_pages) + sizeof(std::uint64_t);
constexpr std::size_t kLeastProcess = offsetof(migrate_process, exit_status) + sizeof(int);

}  // namespace

migrate_result::migrate_result(migrate::client::Answer from) : answer(std::move(from)) {
  const ObjectScanner scanner(answer.json);
  read_identity(scanner.string("identity").value_or(""), origin, identity);
  for (const std::string_view each : scanner.elements("refusals")) {
    const ObjectScanner refusal(each);
    refusals.push_back({refusal.string("code").value_or(""), refusal.string("object").value_or(""),
                        refusal.string("reason").value_or(""),
                        refusal.string("remedy").value_or("")});
  }
  for (const std::string_view each : scanner.elements("processes")) {
    processes.push_back(read_process(each));
  }
  if (processes.empty() && scanner.string("process") && scanner.string("role")) {
    processes.push_back(read_process(answer.json));
  }
}

const std::string& migrate_result::member(const std::string& path, bool is_text) const {
  const std::lock_guard lock(mutex_);
  const auto [found, is_new] = members_.try_emplace((is_text ? "t" : "n") + path);
  if (!is_new) {
    return found->second;
  }
  std::string_view object = answer.json;
  std::string name = path;
  for (std::size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.')) {
    object = ObjectScanner(object).raw(name.substr(0, dot)).value_or("{}");
    name.erase(0, dot + 1);
  }
  const ObjectScanner scanner(object);
  found->second =
      is_text ? scanner.string(name).value_or("") : std::string(scanner.raw(name).value_or(""));
  return found->second;
}

namespace migrate::client {

void note_message(const std::string& message) noexcept {
  try {
    last_message = message;
  } catch (...) {
    last_message.clear();
  }
}

int give(migrate_result** result, Answer answer) {
  const int status = answer.status;
  note_message(answer.message);
  if (result != nullptr) {
    *result = new migrate_result(std::move(answer));
  }
  return status;
}

int guarded(migrate_result** result, const std::function<Answer()>& body) {
  if (result != nullptr) {
    *result = nullptr;
  }
  try {
    return give(result, body());
  } catch (const std::exception&) {
    note_message("no memory");
    return MIGRATE_ERROR;
  }
}

}  // namespace migrate::client

extern "C" void migrate_result_free(migrate_result* result) {
  delete result;
}

extern "C" int migrate_result_status(const migrate_result* result) {
  return result == nullptr ? static_cast<int>(MIGRATE_ERROR) : result->answer.status;
}

extern "C" const char* migrate_result_message(const migrate_result* result) {
  return result == nullptr ? "" : result->answer.message.c_str();
}

extern "C" const char* migrate_result_json(const migrate_result* result) {
  return result == nullptr ? "{}" : result->answer.json.c_str();
}

extern "C" const char* migrate_result_text(const migrate_result* result, const char* name) {
  try {
    return result == nullptr || name == nullptr ? "" : result->member(name, true).c_str();
  } catch (...) {
    return "";
  }
}

extern "C" int migrate_result_number(const migrate_result* result, const char* name,
                                     double* number) {
  try {
    if (result == nullptr || name == nullptr || number == nullptr) {
      return -1;
    }
    const std::string& text = result->member(name, false);
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), *number);
    return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() ? 0 : -1;
  } catch (...) {
    return -1;
  }
}

extern "C" size_t migrate_result_refusal_count(const migrate_result* result) {
  return result == nullptr ? 0 : result->refusals.size();
}

extern "C" int migrate_result_refusal(const migrate_result* result, size_t index,
                                      struct migrate_refusal* refusal) {
  if (result == nullptr || index >= result->refusals.size()) {
    return -1;
  }
  const auto& from = result->refusals[index];
  return fill(refusal,
              {0, from.code.c_str(), from.object.c_str(), from.reason.c_str(), from.remedy.c_str()},
              kLeastRefusal);
}

extern "C" int migrate_result_place(const migrate_result* result, struct migrate_place* place) {
  try {
    if (result == nullptr || result->member("host", true).empty()) {
      return -1;
    }
    migrate_place known = {};
    known.host = result->member("host", true).c_str();
    known.address = result->member("address", true).c_str();
    known.home = result->member("home", true).c_str();
    double number = 0;
    known.moves =
        migrate_result_number(result, "moves", &number) == 0 ? static_cast<unsigned>(number) : 0;
    known.owed_pages = migrate_result_number(result, "owed_pages", &number) == 0
                           ? static_cast<std::uint64_t>(number)
                           : 0;
    known.identity = result->identity;
    known.identity.origin = result->origin.c_str();
    return fill(place, known, kLeastPlace);
  } catch (...) {
    return -1;
  }
}

extern "C" size_t migrate_result_process_count(const migrate_result* result) {
  return result == nullptr ? 0 : result->processes.size();
}

extern "C" int migrate_result_process(const migrate_result* result, size_t index,
                                      struct migrate_process* process) {
  if (result == nullptr || index >= result->processes.size()) {
    return -1;
  }
  const auto& from = result->processes[index];
  migrate_process known = from.values;
  known.id = from.id.c_str();
  known.role = from.role.c_str();
  known.state = from.state.c_str();
  known.where = from.where.c_str();
  known.home = from.home.c_str();
  known.command = from.command.c_str();
  known.identity.origin = from.origin.c_str();
  return fill(process, known, kLeastProcess);
}

extern "C" const char* migrate_last_error(void) {
  return last_message.c_str();
}
