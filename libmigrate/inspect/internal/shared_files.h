#pragma once

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

/// What `findings` knows a descriptor by.
std::string shared_file_key(std::uint32_t number, const std::string& path);

}  // namespace migrate::inspect
