#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace migrate {

/// Opens `path` with O_CLOEXEC and O_NOCTTY (no terminal that is found there becomes ours) added to
/// `flags`. Errors: kNotFound, kSystem; object is the path.
Result<UniqueFd> open_file(const std::string& path, int flags, unsigned mode = 0600);

/// The whole of a file, proc files included (read until end of file).
Result<std::string> read_file(const std::string& path);
Result<std::string> read_all(int fd, const char* operation);

/// Replaces the content of `path` by writing to the existing file (proc and sys files too).
Result<void> write_file(const std::string& path, std::string_view content);

/// The target of a symbolic link, such as /proc/17/exe.
Result<std::string> read_link(const std::string& path);

/// Writes every byte, going on after short writes and EINTR. Blocks.
Result<void> write_all(int fd, std::span<const std::byte> bytes);

/// Names in a directory without "." and "..", unsorted.
Result<std::vector<std::string>> list_directory(const std::string& path);

}  // namespace migrate
