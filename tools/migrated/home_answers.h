#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/requests/requests.h"
#include "libmigrate/rights/asker.h"
#include "libmigrate/state/name_book.h"
#include "libmigrate/state/registry.h"

namespace migrate {

/// How a request ends: a migrate_status, and what is told with it.
struct Answer {
  int exit_code = 0;
  nlohmann::json result = nlohmann::json::object();

  static Answer of(const Error& error);
  /// The code of its error, as to_string() has it; empty if there is none.
  std::string error_code() const;
};

/// What a home is asked, of a process by its global name or of names.
struct HomeQuestion {
  Asker asker;
  std::string identity;  ///< Of NameRequest: only to give a name.
  HomeRequest wanted;
};

/// Answers as the home of the process, whoever asks and from wherever. What users see of a process
/// is theirs only (may_see()): of others it is not known here. Signals, names and links are for who
/// may signal it, which the kernel is asked in his name. Does not wait for anything to happen: of
/// what is still to come the answer is MIGRATE_TIMEOUT. Blocks for milliseconds; see
/// send_signal_as().
Answer answer_at_home(const WorkerContext& context, const HomeQuestion& question);

/// Whether the process whose home this is has ended: what of it has its pid, the deputy while it is
/// elsewhere, ends with it.
bool is_over(const std::string& identity);

/// All that is known here of a process, which has these rows (not none), for people and programs.
nlohmann::json shown(const WorkerContext& context, const std::vector<ProcessRecord>& records);

/// How a wait for it ends, if it does now.
std::optional<Answer> wait_end(const ProcessRecord& record, bool for_exit, const std::string& here);

}  // namespace migrate
