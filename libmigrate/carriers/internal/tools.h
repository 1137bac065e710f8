#pragma once

#include <fcntl.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace migrate::carriers {

/// What F_GETFL may show that must not be asked for when something is opened again.
inline constexpr std::uint32_t kCreationFlags = O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY | O_CLOEXEC;

/// The result of a system call that makes a descriptor.
Result<UniqueFd> owned(long fd, const char* operation);

/// Sets those of `flags` that calls which make objects have no argument for.
Result<void> set_flags(int fd, std::uint32_t flags);

/// A second open file description of an object that we hold, with its own flags.
Result<UniqueFd> reopen(int fd, std::uint32_t flags);

/// The number in "pipe:[17]"; 0 if there is none.
std::uint64_t inode_in(std::string_view link);

/// "descriptor 17", as refusals and errors name it.
std::string descriptor_name(std::uint32_t number);

}  // namespace migrate::carriers
