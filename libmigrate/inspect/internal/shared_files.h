#pragma once

#include <sys/types.h>

#include <set>
#include <string>

#include "libmigrate/inspect/internal/process_view.h"

namespace migrate::inspect {

/// Looks for open file descriptions of the draft `image` that other processes of this /proc (the
/// caller's own excepted) have open too. A regular file that an ancestor has open, such as a shell
/// that waits with its output redirected, is given a shared_id: its position goes there when the
/// process ends. All else is refused. Notes the ids in `findings`, by which the frozen process's
/// files get them. Blocks: lists the descriptors of every process, if there is anything to look
/// for.
void check_shared_files(const ProcessView& view, Findings& findings, wire::Objects& objects,
                        const wire::ProcessImage& image, Refusals& refusals);

/// The parent of `pid`, that of the parent, and so on, as far as this /proc shows them.
std::set<pid_t> ancestors_of(pid_t pid);

/// What `findings` knows a descriptor by.
std::string shared_file_key(std::uint32_t number, const std::string& path);

}  // namespace migrate::inspect
