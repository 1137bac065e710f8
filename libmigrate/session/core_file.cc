#include "libmigrate/session/core_file.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <vector>

#include "base/file.h"

namespace migrate {
namespace {

constexpr const char* kSuffix = ".incomplete";

template <class T>
bool read_at(int fd, std::uint64_t offset, T& value) {
  return ::pread(fd, &value, sizeof(value), static_cast<off_t>(offset)) ==
         static_cast<ssize_t>(sizeof(value));
}

// In names a slash is an exclamation mark, and neither "." nor ".." is a name.
std::string name_part(std::string text) {
  std::replace(text.begin(), text.end(), '/', '!');
  if (!text.empty() && text.front() == '.' && text.find_first_not_of('.') == std::string::npos) {
    text.front() = '!';
  }
  return text;
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof(name) - 1) == 0 ? name : std::string();
}

std::optional<std::string> expand(char specifier, const CoreOwner& owner) {
  switch (specifier) {
    case '%':
      return "%";
    case 'p':
      return std::to_string(owner.inner_pid);
    case 'P':
      return std::to_string(owner.pid);
    case 'u':
      return std::to_string(owner.uid);
    case 'g':
      return std::to_string(owner.gid);
    case 's':
      return std::to_string(owner.signal);
    case 'h':
      return name_part(host_name());
    case 'e':
      return name_part(owner.command);
    case 'E':
      return name_part(owner.program);
    default:
      return std::nullopt;
  }
}

// pr_pid of NT_PRPSINFO among the notes of one segment.
bool notes_name(const std::vector<std::byte>& notes, std::uint32_t inner_pid) {
  for (std::size_t at = 0; at + sizeof(Elf64_Nhdr) <= notes.size();) {
    Elf64_Nhdr header{};
    std::memcpy(&header, &notes[at], sizeof(header));
    const std::size_t name = (std::size_t{header.n_namesz} + 3) & ~std::size_t{3};
    const std::size_t content = (std::size_t{header.n_descsz} + 3) & ~std::size_t{3};
    at += sizeof(header) + name;
    if (at > notes.size() || content > notes.size() - at) {
      return false;
    }
    if (header.n_type == NT_PRPSINFO && header.n_descsz >= sizeof(elf_prpsinfo)) {
      elf_prpsinfo information{};
      std::memcpy(&information, &notes[at], sizeof(information));
      return information.pr_pid == static_cast<pid_t>(inner_pid);
    }
    at += content;
  }
  return false;
}

}  // namespace

std::optional<std::string> core_path(std::string_view pattern, bool uses_pid,
                                     const CoreOwner& owner) {
  while (!pattern.empty() && (pattern.back() == '\n' || pattern.back() == ' ')) {
    pattern.remove_suffix(1);
  }
  if (pattern.empty() || pattern.front() == '|' || pattern.front() == '@') {
    return std::nullopt;
  }
  std::string path;
  bool has_pid = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '%') {
      path += pattern[i];
      continue;
    }
    if (++i == pattern.size()) {
      break;  // The kernel drops it, too.
    }
    const auto part = expand(pattern[i], owner);
    if (!part) {
      return std::nullopt;
    }
    has_pid = has_pid || pattern[i] == 'p';
    path += *part;
  }
  if (uses_pid && !has_pid) {
    path += "." + std::to_string(owner.inner_pid);
  }
  return path;
}

bool is_core_of(int fd, std::uint32_t inner_pid) {
  constexpr std::uint64_t kMostNotes = std::uint64_t{64} << 10U;
  constexpr int kMostHeaders = 16;  // The notes come first.
  Elf64_Ehdr header{};
  if (!read_at(fd, 0, header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_type != ET_CORE) {
    return false;
  }
  for (int i = 0; i < std::min<int>(header.e_phnum, kMostHeaders); ++i) {
    Elf64_Phdr segment{};
    if (!read_at(fd, header.e_phoff + static_cast<std::uint64_t>(i) * sizeof(segment), segment)) {
      return false;
    }
    if (segment.p_type == PT_NOTE) {
      std::vector<std::byte> notes(std::min(segment.p_filesz, kMostNotes));
      const ssize_t count =
          ::pread(fd, notes.data(), notes.size(), static_cast<off_t>(segment.p_offset));
      notes.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
      return notes_name(notes, inner_pid);
    }
  }
  return false;
}

Result<std::string> rename_incomplete_core(const CoreOwner& owner, const FileUser& user) {
  constexpr time_t kLatelyS = 60;
  const auto pattern = MIGRATE_TRY(read_file("/proc/sys/kernel/core_pattern"));
  const auto uses_pid = read_file("/proc/sys/kernel/core_uses_pid").value_or("0");
  const auto path = core_path(pattern, uses_pid.starts_with('1'), owner);
  if (!path) {
    return fail(make_error(ErrorCode::kUnsupported, "name the core dump", pattern));
  }
  const auto not_found = [&](const char* why) {
    return fail(make_error(ErrorCode::kNotFound, "find the core dump", *path, why));
  };
  const std::size_t slash = path->rfind('/');
  const std::string name = path->substr(slash == std::string::npos ? 0 : slash + 1);
  const std::string folder = slash == std::string::npos ? "." : path->substr(0, slash + 1);
  if (!path->starts_with('/') && owner.directory < 0) {
    return not_found("its working directory was not seen");
  }
  // All of it as the user: nobody makes root rename what is not his.
  FileUser::Scope as_user(user);
  const UniqueFd directory =
      MIGRATE_TRY(as_user.open_at(owner.directory, folder, O_PATH | O_DIRECTORY));
  const UniqueFd file = MIGRATE_TRY(
      as_user.open_at(directory.get(), name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  struct stat status = {};
  if (::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode) || status.st_nlink != 1 ||
      status.st_uid != owner.file_uid || status.st_mtime + kLatelyS < std::time(nullptr)) {
    return not_found("the file of this name is another one");
  }
  if (!is_core_of(file.get(), owner.inner_pid)) {
    return not_found("the file of this name is not its core dump");
  }
  const std::string renamed = name + kSuffix;
  if (::syscall(SYS_renameat2, directory.get(), name.c_str(), directory.get(), renamed.c_str(),
                RENAME_NOREPLACE) != 0) {
    return fail(system_error("rename the core dump", *path + " to " + renamed));
  }
  return *path + kSuffix;
}

}  // namespace migrate
