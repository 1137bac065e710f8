#pragma once

#include <array>

#include "libmigrate/include/libmigrate/migrate_result.h"

// What each migrate_status means, in the words of migrate_strerror(), of `migratectl` and of its
// manual page: the one place where they stand. As move_words.h, it needs nothing but the C++
// library.

namespace migrate {

/// A status and what it means, without a full stop; a string that lives as long as the program.
struct StatusWords {
  migrate_status status;
  const char* meaning;
};

inline constexpr std::array kStatusWords{
    StatusWords{MIGRATE_DONE, "done; check: the process can be moved"},
    StatusWords{MIGRATE_ERROR,
                "anything else: no daemon, no such process, no permission, a "
                "connection that was lost"},
    StatusWords{MIGRATE_USAGE, "wrong usage: an argument cannot be right; nothing was tried"},
    StatusWords{MIGRATE_REFUSED, "refused; the process runs on where it was"},
    StatusWords{MIGRATE_FAILED, "the move failed; the process runs on where it was"},
    StatusWords{MIGRATE_LOST, "the move failed after the process had been handed over"},
    StatusWords{MIGRATE_TIMEOUT, "the time that the call may take was over first"},
};

/// What `status` means; any that is not known is as MIGRATE_ERROR, so that a library understands
/// the statuses of one that is newer.
constexpr const char* meaning_of(int status) {
  const char* error = "";
  for (const StatusWords& each : kStatusWords) {
    if (each.status == status) {
      return each.meaning;
    }
    if (each.status == MIGRATE_ERROR) {
      error = each.meaning;
    }
  }
  return error;
}

}  // namespace migrate
