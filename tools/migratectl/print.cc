#include "tools/migratectl/print.h"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/printable.h"
#include "libmigrate/requests/status_words.h"
#include "pager/page_range.h"
#include "transport/page_transport.h"

namespace migrate {
namespace {

constexpr std::size_t kShortIdLength = 8;

using Row = std::vector<std::string>;

/// Columns padded to their widest cell; the last is left as it is.
std::string table(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string out;
  for (const Row& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += i + 1 == row.size() ? row[i] : fmt::format("{:<{}}  ", row[i], widths[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string count_of(const nlohmann::json& object, const char* name) {
  return fmt::format("{:.0f}", number_of(object, name));
}

std::string state_text(const nlohmann::json& record) {
  std::string state = text_of(record, "state");
  if (state == "away" || state == "done" || state == "running-here") {
    state = "running";  // The next column says where, and what is owed to it.
  }
  const auto exit = record.find("exit_text");
  if (exit != record.end() && exit->is_string()) {
    state += " (" + printable(exit->get<std::string>()) + ")";
  }
  constexpr std::size_t kShortReason = 40;
  if (const std::string lost = text_of(record, "lost"); !lost.empty()) {
    state += lost.size() <= kShortReason ? " [lost: " + lost + "]" : " [lost]";
  }
  const auto alive = record.find("worker_alive");
  if (alive != record.end() && alive->is_boolean() && !alive->get<bool>()) {
    state += " [worker gone]";
  }
  if (!text_of(record, "waits_for").empty()) {
    state += " [waits]";
  }
  return state;
}

/// Adds the objects of the next refusals of the same kind; how many of them are left out.
double add_others(const nlohmann::json& refusal, std::vector<Row>& rows) {
  constexpr std::size_t kMostShown = 3;
  const nlohmann::json others = refusal.value("others", nlohmann::json::array());
  std::size_t shown = 0;
  for (; others.is_array() && shown < std::min(others.size(), kMostShown); ++shown) {
    const nlohmann::json& other = others[shown];
    rows.push_back({"", other.is_string() ? printable(other.get<std::string>()) : ""});
  }
  return number_of(refusal, "count") - 1 - static_cast<double>(shown);
}

/// The address of a host, without what is the same in all of them.
std::string host_text(const nlohmann::json& record, const char* name) {
  constexpr std::string_view kScheme = "tcp://";
  const std::string address = text_of(record, name);
  return address.starts_with(kScheme) ? address.substr(kScheme.size()) : address;
}

bool has_ended(const nlohmann::json& record) {
  const std::string state = text_of(record, "state");
  return state == "exited" || state == "lost";
}

/// What is still owed, and how long that is expected to last.
std::string owed_text(const nlohmann::json& record) {
  const double owed = number_of(record, "owed_pages");
  if (has_ended(record)) {
    return "-";
  }
  if (owed <= 0) {
    return record.value("owed_pages", nlohmann::json(0)).is_null() ? "not known yet" : "-";
  }
  const double expected = number_of(record, "expected_independence_us");
  return bytes_text(owed * kPageBytes) + " by " + host_text(record, "owed_by") +
         (expected > 0 ? " (" + duration_text(expected) + ")" : std::string());
}

/// What a host says of a transport of pages; null: nothing.
nlohmann::json transport_of(const nlohmann::json& host, const PageTransport& transport) {
  const auto found = host.find(transport.word);
  return found != host.end() && found->is_object() ? *found : nlohmann::json();
}

/// "tcp" or "tcp, rdma", and the ports of its devices: "tcp, rdma (mlx5_0/1)".
std::string transports_text(const nlohmann::json& host) {
  std::string text = "tcp";
  std::string ports;
  for (const PageTransport* const each : page_transports()) {
    const nlohmann::json facts = transport_of(host, *each);
    if (!facts.is_object()) {
      continue;
    }
    if (!text_of(facts, "listen").empty() && text_of(facts, "problem").empty()) {
      text += std::string(", ") + each->word;
    }
    for (const nlohmann::json& port : facts.value("ports", nlohmann::json::array())) {
      ports += (ports.empty() ? "" : " ") + text_of(port, "device") + "/" + count_of(port, "port");
      if (const std::string state = text_of(port, "state"); state != "active") {
        ports += "=" + state;
      }
    }
  }
  return ports.empty() ? text : text + " (" + ports + ")";
}

/// What was sent while the process ran, and why that ended: "2 rounds, 153 MiB, until ...".
std::string rounds_text(const nlohmann::json& rounds) {
  const std::string end = text_of(rounds, "ended_by");
  const std::string why = end == "downtime"     ? "what was left was little enough"
                          : end == "dirty_rate" ? "it wrote as fast as could be sent"
                          : end == "rounds"     ? "there had been as many as were wanted"
                                                : "it was over";
  return fmt::format("{} round{}, {} in all at {}/s, until {}; {} of {} pages were used",
                     count_of(rounds, "count"), number_of(rounds, "count") == 1 ? "" : "s",
                     bytes_text(number_of(rounds, "bytes")),
                     bytes_text(number_of(rounds, "bytes_per_second")), why,
                     count_of(rounds, "used_pages"), count_of(rounds, "staged_pages"));
}

/// "1.25 times what was foretold": of each figure that is known.
std::string prediction_text(const nlohmann::json& choice) {
  const nlohmann::json ratios = choice.value("to_prediction", nlohmann::json::object());
  std::string text;
  for (const char* name : {"stop", "bytes", "independence"}) {
    if (number_of(ratios, name) > 0) {
      text += fmt::format("{}{} {:.2f}", text.empty() ? "" : ", ", name, number_of(ratios, name));
    }
  }
  return text.empty() ? text : "; measured to foretold: " + text;
}

std::string wish_text(const nlohmann::json& choice) {
  const std::string wish = text_of(choice, "wish");
  return wish == "exposure" ? "the shortest time in which it needs both hosts"
         : wish == "bytes"  ? "the fewest bytes"
                            : "the shortest stop";
}

std::string rules_text(const nlohmann::json& result) {
  std::vector<Row> rows = {{"RULE", "ABOUT ITS LINKS", "APPLIED"}};
  for (const nlohmann::json& rule : result.value("link_rules", nlohmann::json::array())) {
    rows.push_back({text_of(rule, "place"), text_of(rule, "text"),
                    rule.contains("count") ? count_of(rule, "count") : std::string()});
  }
  return rows.size() == 1 ? "" : table(rows);
}

std::string traffic_text(const nlohmann::json& record) {
  std::vector<Row> rows = {{"  STREAM", "KIND", "LOCAL", "PEER", "IN", "OUT", "ACCEPTED"}};
  for (const nlohmann::json& link : record.value("links", nlohmann::json::array())) {
    const auto bytes = [&](const char* name) {
      return link.contains(name) ? bytes_text(number_of(link, name)) : std::string();
    };
    rows.push_back({"  " + count_of(link, "stream"), text_of(link, "kind"), text_of(link, "local"),
                    text_of(link, "peer"), bytes("in_bytes"), bytes("out_bytes"),
                    link.contains("error")      ? text_of(link, "error")
                    : link.contains("accepted") ? count_of(link, "accepted")
                                                : std::string()});
  }
  return rows.size() == 1 ? "" : "links:\n" + table(rows);
}

}  // namespace

std::string text_of(const nlohmann::json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) {
    return {};
  }
  return found->is_string() ? printable(found->get<std::string>())
                            : found->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

double number_of(const nlohmann::json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number() ? found->get<double>() : 0;
}

std::string bytes_text(double bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", bytes, unit == 0 || bytes >= 100 ? 0 : 1, kUnits[unit]);
}

std::string duration_text(double microseconds) {
  if (microseconds < 1000) {
    return fmt::format("{:.0f} us", microseconds);
  }
  if (microseconds < 1e6) {
    return fmt::format("{:.2f} ms", microseconds / 1e3);
  }
  if (microseconds < 120e6) {
    return fmt::format("{:.2f} s", microseconds / 1e6);
  }
  if (microseconds < 7200e6) {
    return fmt::format("{:.0f} min", microseconds / 60e6);
  }
  return fmt::format("{:.1f} h", microseconds / 3600e6);
}

std::string refusals_text(const nlohmann::json& refusals) {
  std::vector<Row> rows = {{"CODE", "OBJECT", "REASON AND REMEDY"}};
  for (const nlohmann::json& refusal : refusals) {
    if (!refusal.is_object()) {
      continue;
    }
    rows.push_back(
        {text_of(refusal, "code"), text_of(refusal, "object"), text_of(refusal, "reason")});
    if (const std::string remedy = text_of(refusal, "remedy"); !remedy.empty()) {
      rows.push_back({"", "", "-> " + remedy});
    }
    const double more = add_others(refusal, rows);
    if (more > 0) {
      rows.push_back({"", fmt::format("and {:.0f} more", more)});
    }
  }
  return table(rows);
}

std::string not_movable_text(const nlohmann::json& refusals) {
  const std::string list = refusals_text(refusals);
  if (refusals.size() == 1) {
    const std::string remedy = text_of(refusals.front(), "remedy");
    return fmt::format("not movable, for one reason ({}): {}\n{}",
                       text_of(refusals.front(), "code"),
                       remedy.empty() ? text_of(refusals.front(), "reason") : remedy, list);
  }
  return fmt::format("not movable, for {} reasons; nothing was stopped\n{}", refusals.size(), list);
}

std::string hooks_text(const nlohmann::json& result) {
  const bool has_hooks = result.contains("hooks");
  return has_hooks ? "the program has hooks, which it calls before a move: they may change that\n"
                   : "";
}

std::string losses_text(const nlohmann::json& result) {
  const nlohmann::json losses = result.value("losses", nlohmann::json());
  const bool none = !losses.is_array() || losses.empty();
  return none ? "" : "what it loses (--strict refuses that):\n" + refusals_text(losses);
}

std::string notes_text(const nlohmann::json& result) {
  const nlohmann::json notes = result.value("notes", nlohmann::json::array());
  return notes.empty() ? "" : "what makes its move longer:\n" + refusals_text(notes);
}

std::string choice_text(const nlohmann::json& result) {
  const auto choice = result.find("choice");
  if (choice == result.end() || !choice->is_object()) {
    return "";
  }
  std::string why_not;
  std::vector<Row> rows = {{"", "MODE", "STANDS STILL", "SENDS", "NEEDS BOTH HOSTS FOR"}};
  for (const nlohmann::json& mode : choice->value("modes", nlohmann::json::array())) {
    const std::string word = text_of(mode, "mode");
    const char* mark = word == text_of(*choice, "mode") ? "->" : "";
    if (mode.contains("why_not")) {
      rows.push_back({mark, word, "-", "-", "-"});
      why_not += word + " is out of the question: " + text_of(mode, "why_not") + "\n";
      continue;
    }
    const bool depends = number_of(mode, "least_bytes") < number_of(mode, "bytes");
    rows.push_back({mark, word, duration_text(number_of(mode, "stop_us")),
                    (depends ? "at most " : "") + bytes_text(number_of(mode, "bytes")),
                    mode.value("independence_us", nlohmann::json()).is_null()
                        ? "as long as it lacks pages"
                        : duration_text(number_of(mode, "independence_us"))});
  }
  return fmt::format("mode auto takes {}, for {}:\n{}{}", text_of(*choice, "mode"),
                     wish_text(*choice), table(rows), why_not);
}

std::string policy_text(const nlohmann::json& result) {
  std::vector<Row> rows = {{"KIND", "NAME", "SIZE", "ACTION", "RULE"}};
  for (const nlohmann::json& row : result.value("policy", nlohmann::json::array())) {
    const bool is_sent = row.value("known", true) == false;
    if (text_of(row, "rule") != "default" || is_sent) {
      rows.push_back({text_of(row, "kind"), text_of(row, "name"),
                      bytes_text(number_of(row, "bytes")), text_of(row, "action"),
                      text_of(row, "rule")});
    }
  }
  const double sent = number_of(result, "shipped_bytes");
  return (rows.size() == 1 ? "" : table(rows)) +
         (sent > 0 ? "of files at most " + bytes_text(sent) + " would be sent\n" : "");
}

std::string links_text(const nlohmann::json& result) {
  std::vector<Row> rows = {{"DESCRIPTOR", "KIND", "LOCAL", "PEER", "WAY"}};
  for (const nlohmann::json& link : result.value("links", nlohmann::json::array())) {
    const std::string code = text_of(link, "code");
    rows.push_back({fmt::format("{}", number_of(link, "descriptor")), text_of(link, "kind"),
                    text_of(link, "local"), text_of(link, "peer"),
                    text_of(link, "way") + (code.empty() ? "" : ": " + code)});
  }
  return (rows.size() == 1 ? "" : table(rows)) + rules_text(result);
}

std::string files_text(const nlohmann::json& result) {
  std::vector<Row> rows = {{"ROLE", "FILE", "SIZE", "BUILD-ID", "DESTINATION"}};
  for (const nlohmann::json& file : result.value("files", nlohmann::json::array())) {
    const char* known = !file.contains("known")      ? "not told"
                        : file.value("known", false) ? "has it"
                                                     : "has it not";
    rows.push_back({text_of(file, "role"), text_of(file, "path"),
                    bytes_text(number_of(file, "size_bytes")), text_of(file, "build_id"), known});
  }
  return table(rows);
}

std::string processes_text(const nlohmann::json& processes) {
  std::vector<Row> rows = {
      {"ID", "PID", "ROLE", "STATE", "WHERE", "OWED", "MODE", "AGE", "COMMAND"}};
  for (const nlohmann::json& record : processes) {
    rows.push_back({text_of(record, "process").substr(0, kShortIdLength), count_of(record, "pid"),
                    text_of(record, "role"), state_text(record), host_text(record, "where"),
                    owed_text(record), text_of(record, "mode"),
                    duration_text(number_of(record, "age_us")), text_of(record, "command")});
  }
  return table(rows);
}

std::string copies_text(const nlohmann::json& result) {
  std::string text = processes_text(result["processes"]);
  for (const nlohmann::json& failed : result.value("failed", nlohmann::json::array())) {
    const nlohmann::json refusals = failed.value("refusals", nlohmann::json::array());
    text += fmt::format("not at {}: {}\n", text_of(failed, "destination"),
                        refusals.empty() ? error_text(failed) : refusals_text(refusals));
  }
  return text + fmt::format("it stood still for {}\n", duration_text(number_of(result, "stop_us")));
}

std::string fit_to_terminal(const std::string& text) {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) {
    return text;
  }
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    out += text.substr(at, std::min<std::size_t>(end - at, size.ws_col)) + "\n";
    at = end + 1;
  }
  return out;
}

std::string process_text(const nlohmann::json& record) {
  std::vector<Row> rows;
  for (const auto& [name, value] : record.items()) {
    if (name == "owed_pages" && has_ended(record)) {
      continue;
    }
    if (name == "waits_us") {
      rows.push_back({"waits since", duration_text(number_of(record, "waits_us")) + " ago"});
    } else if (name == "age_us" || name == "updated_us_ago") {
      rows.push_back({name == "age_us" ? "age" : "last change",
                      duration_text(number_of(record, name.c_str()))});
    } else if (name == "expected_independence_us") {
      rows.push_back({"independent in", value.is_number() ? duration_text(value.get<double>())
                                                          : "not known: nothing arrives"});
    } else if (!value.is_structured() && name != "event" && name != "exit") {
      rows.push_back({name, text_of(record, name.c_str())});
    }
  }
  std::string out = table(rows);
  const auto last = record.find("last_move");
  if (last != record.end() && last->is_object()) {
    nlohmann::json move = *last;
    move.erase("lost");  // said above
    out += move.empty() ? "" : "last move:\n" + move_text(move);
  }
  out += traffic_text(record) + rules_text(record);
  const auto others = record.find("other_roles");
  if (others != record.end() && others->is_array()) {
    for (const nlohmann::json& other : *others) {
      out += "\n" + process_text(other);
    }
  }
  return out;
}

std::string hosts_text(const nlohmann::json& hosts) {
  std::vector<Row> rows = {
      {"HOST", "ADDRESS", "STATE", "PROCESSES", "CPUS", "MEMORY FREE", "PAGES OVER", "KERNEL"}};
  std::string notes;
  for (const nlohmann::json& host : hosts) {
    for (const PageTransport* const each : page_transports()) {
      const nlohmann::json facts = transport_of(host, *each);
      if (const std::string problem = facts.is_object() ? text_of(facts, "problem") : "";
          !problem.empty()) {
        notes += text_of(host, "host") + ": no pages over " + each->word + ": " + problem + "\n";
      }
    }
    const std::string error = error_text(host);
    if (!error.empty()) {
      rows.push_back({text_of(host, "host"), text_of(host, "address"), text_of(host, "state"), "",
                      "", "", "", error});
      continue;
    }
    const bool drained = host.contains("drained") && host["drained"] == true;
    rows.push_back({text_of(host, "host"), text_of(host, "address"),
                    text_of(host, "state") + (drained ? ", drained" : ""),
                    count_of(host, "processes"), count_of(host, "cpus"),
                    bytes_text(number_of(host, "memory_available_bytes")), transports_text(host),
                    text_of(host, "kernel")});
  }
  return table(rows) + notes;
}

std::string move_text(const nlohmann::json& result) {
  std::vector<Row> rows;
  if (result.contains("freeze_us")) {
    rows.push_back({"  stopped for", duration_text(number_of(result, "freeze_us"))});
  }
  const auto choice = result.find("choice");
  if (choice != result.end() && choice->is_object()) {
    rows.push_back({"  mode", text_of(*choice, "mode") + ", for " + wish_text(*choice) +
                                  prediction_text(*choice)});
  }
  const auto phases = result.find("phases_us");
  if (phases != result.end() && phases->is_object()) {
    std::string text;
    for (const char* name : {"inspect", "choose", "offer", "capture", "image", "memory_files",
                             "restore", "park", "run"}) {
      if (phases->contains(name)) {
        text += (text.empty() ? "" : ", ") + std::string(name) + " " +
                duration_text(number_of(*phases, name));
      }
    }
    rows.push_back({"  phases", text});
  }
  const auto rounds = result.find("rounds");
  if (rounds != result.end() && rounds->is_object()) {
    rows.push_back({"  before that", rounds_text(*rounds)});
  }
  const auto pages = result.find("pages");
  if (pages != result.end() && pages->is_object()) {
    std::string text;
    for (const auto& [name, value] : pages->items()) {
      text += (text.empty() ? "" : ", ") + fmt::format("{} {}", name, value.dump());
    }
    rows.push_back({"  pages", text});
  }
  const auto faults = result.find("faults");
  if (faults != result.end() && faults->is_object() && number_of(*faults, "count") > 0) {
    rows.push_back(
        {"  faults",
         fmt::format("{}, p50 {}, p99 {}, longest {}, threads waited {} in all",
                     count_of(*faults, "count"), duration_text(number_of(*faults, "p50_us")),
                     duration_text(number_of(*faults, "p99_us")),
                     duration_text(number_of(*faults, "max_us")),
                     duration_text(number_of(*faults, "stalled_us")))});
  }
  if (result.contains("wire_bytes")) {
    rows.push_back({"  on the wire", bytes_text(number_of(result, "wire_bytes"))});
  }
  if (number_of(result, "owed_nothing_after_us") > 0) {
    rows.push_back(
        {"  owed nothing after", duration_text(number_of(result, "owed_nothing_after_us"))});
  }
  if (result.contains("deadline_missed")) {
    rows.push_back({"  deadline", result["deadline_missed"] == true ? "missed" : "not missed"});
  }
  if (result.contains("state")) {
    rows.push_back({"  state", text_of(result, "state")});
  }
  if (result.contains("lost")) {
    rows.push_back({"  lost", text_of(result, "lost")});
  }
  for (const nlohmann::json& loss : result.value("losses", nlohmann::json::array())) {
    rows.push_back({"  left behind", text_of(loss, "code") + ": " + text_of(loss, "object")});
  }
  return table(rows);
}

nlohmann::json exit_statuses() {
  nlohmann::json statuses = nlohmann::json::array();
  for (const StatusWords& each : kStatusWords) {
    statuses.push_back({{"status", static_cast<int>(each.status)}, {"meaning", each.meaning}});
  }
  return statuses;
}

std::string error_text(const nlohmann::json& event) {
  const auto error = event.find("error");
  if (error == event.end() || error->is_null()) {
    return {};
  }
  return error->is_object() ? text_of(*error, "message") : text_of(event, "error");
}

}  // namespace migrate
