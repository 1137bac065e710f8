#include "libmigrate/proc/terminal_of_process.h"

#include <string_view>

#include "libmigrate/proc/proc_text.h"

namespace migrate {

Result<TerminalOfProcess> read_terminal_of_process(int directory, const std::string& path) {
  enum Field { kState, kParent, kGroup, kSession, kTerminal, kForeground, kFields };
  const std::string stat = MIGRATE_TRY(read_file_at(directory, path));
  const auto fields = stat_fields(stat);
  if (fields.size() < kFields) {
    return fail(make_error(ErrorCode::kCorrupt, "read", path));
  }
  const auto number = [&](Field field) { return parse_number(fields[field]).value_or(0); };
  TerminalOfProcess result;
  std::string_view pid(stat);
  result.device = number(kTerminal);
  result.leads_session = parse_number(take_word(pid)) == parse_number(fields[kSession]);
  result.in_foreground = fields[kGroup] == fields[kForeground];
  return result;
}

}  // namespace migrate
