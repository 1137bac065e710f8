#include "base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>

namespace migrate {

Result<UniqueFd> open_file(const std::string& path, int flags, unsigned mode) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY, mode);
  if (fd < 0) {
    return fail(system_error("open", path));
  }
  return UniqueFd(fd);
}

Result<std::string> read_all(int fd, const char* operation) {
  std::string content;
  std::array<char, 16384> buffer;
  for (;;) {
    const ssize_t count = ::read(fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return fail(system_error(operation));
    }
    if (count == 0) {
      return content;
    }
    content.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

Result<std::string> read_file(const std::string& path) {
  const UniqueFd file = MIGRATE_TRY(open_file(path, O_RDONLY));
  auto content = read_all(file.get(), "read");
  if (!content) {
    content.error().object = path;
  }
  return content;
}

Result<void> write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return fail(system_error("write", "descriptor " + std::to_string(fd)));
    }
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return {};
}

Result<void> write_file(const std::string& path, std::string_view content) {
  const UniqueFd file = MIGRATE_TRY(open_file(path, O_WRONLY));
  auto written = write_all(file.get(), std::as_bytes(std::span(content)));
  if (!written) {
    written.error().object = path;
  }
  return written;
}

Result<std::string> read_link(const std::string& path) {
  std::array<char, PATH_MAX> target;
  const ssize_t length = ::readlink(path.c_str(), target.data(), target.size());
  if (length < 0) {
    return fail(system_error("read link", path));
  }
  return std::string(target.data(), static_cast<std::size_t>(length));
}

Result<std::vector<std::string>> list_directory(const std::string& path) {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), &::closedir);
  if (!directory) {
    return fail(system_error("list", path));
  }
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(directory.get())) {
    if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0) {
      names.emplace_back(entry->d_name);
    }
  }
  return names;
}

}  // namespace migrate
