#pragma once

#include <google/protobuf/repeated_field.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "libmigrate/groups/group_places.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate {

// Limits of control groups, named and written as version 2 does, whichever version has them:
// {"memory.max", "4096"}.
using GroupLimits = google::protobuf::RepeatedPtrField<wire::GroupLimit>;

/// The limits that a process has by its groups and those above, of the kinds that are carried: the
/// strictest of each, if there is one. Reads some files of each group.
void read_group_limits(const std::vector<GroupPlace>& places, GroupLimits& limits);

/// All others that nobody has by default, for people: "/a/b: io.max 8:0 rbps=1000".
std::vector<std::string> other_group_limits(const std::vector<GroupPlace>& places);

/// Whether it is of a kind that is carried, and a value that it can have. Of what others say.
bool is_group_limit(const wire::GroupLimit& limit);

/// The controller that has limits of this kind ("memory"); empty if there is no such kind.
std::string_view controller_of(const wire::GroupLimit& limit);

/// Whether it gives a process more than others have, and takes nothing from it.
bool is_privilege(const wire::GroupLimit& limit);

/// What a memory limit among `limits` allows, in bytes; all if there is none.
std::uint64_t memory_limit_bytes(const GroupLimits& limits);

/// Sets a limit of the group at `place`, which exists. That those above it are stricter is well.
/// Errors: kInvalid (no such kind or value), kUnsupported (it has no such limit), kSystem.
Result<void> set_group_limit(const GroupPlace& place, const wire::GroupLimit& limit);

}  // namespace migrate
