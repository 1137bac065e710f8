#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace migrate {

/// Members of a JSON object from elsewhere: the value, or a default if it is missing or of another
/// type. Of a text what a terminal can show: others chose the names in it.
std::string text_of(const nlohmann::json& object, const char* name);
double number_of(const nlohmann::json& object, const char* name);

/// Amounts for people: "1.4 MiB", "310 us", "2.50 s", "3 min".
std::string bytes_text(double bytes);
std::string duration_text(double microseconds);

/// Each of these returns lines for people, ended by a newline.
std::string refusals_text(const nlohmann::json& refusals);
/// Why a process cannot be moved, and first the one change that would do, if there is one.
std::string not_movable_text(const nlohmann::json& refusals);
/// That it has hooks; empty if it has none.
std::string hooks_text(const nlohmann::json& result);
/// What a process would lose, or has lost; empty if that is nothing.
std::string losses_text(const nlohmann::json& result);

/// The notes of a result, one a line with its remedy; empty if there are none.
std::string notes_text(const nlohmann::json& result);
/// What each mode would come to, and which was chosen; empty: that was not asked for.
std::string choice_text(const nlohmann::json& result);
/// What of its memory travels otherwise than by default, by which rule, and how much of files would
/// be sent; empty if nothing.
std::string policy_text(const nlohmann::json& result);
/// Of `check --links`.
std::string links_text(const nlohmann::json& result);
/// The files of a program.
std::string files_text(const nlohmann::json& result);
std::string processes_text(const nlohmann::json& processes);
/// The copies of a process, and why others came to nothing.
std::string copies_text(const nlohmann::json& result);
/// Cuts the lines of a table to the width of the terminal, if standard output is one.
std::string fit_to_terminal(const std::string& text);
std::string process_text(const nlohmann::json& record);
std::string hosts_text(const nlohmann::json& hosts);
/// What a finished move came to.
std::string move_text(const nlohmann::json& result);

/// For the manual page: what each exit code means.
nlohmann::json exit_statuses();

/// The message of an event's "error" member, a string or an object with a message.
std::string error_text(const nlohmann::json& event);

}  // namespace migrate
