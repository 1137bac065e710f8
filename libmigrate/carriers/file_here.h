#pragma once

#include <optional>

#include "libmigrate/carriers/carrier.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate::carriers {

// A file of an image, compared with the one that this host has under the same path. All block, as
// file systems do.

/// The file as it is here; nothing after a refusal, because there is none or it is of another type.
std::optional<wire::FileIdentity> find_here(CompareContext& context,
                                            const wire::FileIdentity& file);

/// Whether the content is the same, by build-id or hash; `same_kernel`: device and inode may tell
/// too. Reads the whole file if only that can tell.
bool same_content(const wire::FileIdentity& file, const wire::FileIdentity& here, bool same_kernel);

/// Whether both hosts see one file of a file system that they share.
bool same_shared_file(const wire::FileIdentity& file, const wire::FileIdentity& here);

/// Refuses another file than the very one: for what is written to, or what others may write to.
void require_same_file(CompareContext& context, const wire::FileIdentity& file);

}  // namespace migrate::carriers
