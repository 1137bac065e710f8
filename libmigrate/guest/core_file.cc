#include "libmigrate/guest/core_file.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <deque>
#include <optional>
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

namespace {

Error not_found(const std::string& name, const char* why) {
  return make_error(ErrorCode::kNotFound, "find the core dump", name, why);
}

// Renames `name` in a folder, if it is the dump; the new name. One that is there already is of
// another process, or an earlier run: the next number then.
Result<std::string> rename_in(FileUser::Scope& as_user, int folder, const std::string& name,
                              const CoreOwner& owner) {
  constexpr time_t kLatelyS = 60;
  const UniqueFd file =
      MIGRATE_TRY(as_user.open_at(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  struct stat status = {};
  if (::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode) || status.st_nlink != 1 ||
      status.st_uid != owner.file_uid || status.st_mtime + kLatelyS < std::time(nullptr)) {
    return fail(not_found(name, "the file of this name is another one"));
  }
  if (!is_core_of(file.get(), owner.inner_pid)) {
    return fail(not_found(name, "the file of this name is not its core dump"));
  }
  constexpr int kMostNumbers = 100;
  std::string renamed = name + kSuffix;
  for (int number = 1; ::syscall(SYS_renameat2, folder, name.c_str(), folder, renamed.c_str(),
                                 RENAME_NOREPLACE) != 0;
       ++number) {
    if (errno != EEXIST || number == kMostNumbers) {
      return fail(
          system_error("rename the core dump", std::string(name).append(" to ").append(renamed)));
    }
    renamed = name;
    renamed.append(kSuffix).append(".").append(std::to_string(number));
  }
  return renamed;
}

struct Folder {
  std::string path;  // from where the search begins
  UniqueFd fd;
  int depth = 0;
};

// The folders in one, as the user sees them; none beyond `left` names.
std::vector<Folder> folders_in(FileUser::Scope& as_user, const Folder& folder, int& left) {
  std::vector<Folder> found;
  const std::string listed = "/proc/self/fd/" + std::to_string(folder.fd.get());
  for (const std::string& name : list_directory(listed).value_or(std::vector<std::string>())) {
    if (--left < 0) {
      break;
    }
    auto fd = as_user.open_at(folder.fd.get(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (fd) {
      found.push_back({folder.path + name + "/", std::move(*fd), folder.depth + 1});
    }
  }
  return found;
}

// In the folder where the process was last seen, or not far below: it may have changed it since.
Result<std::string> rename_below(FileUser::Scope& as_user, UniqueFd start, const std::string& name,
                                 const CoreOwner& owner) {
  constexpr int kDeepest = 3;
  int left = 300;  // Each folder takes a descriptor while the search lasts.
  std::deque<Folder> folders;
  folders.push_back({"", std::move(start)});
  std::optional<Error> first;
  while (!folders.empty()) {
    const Folder folder = std::move(folders.front());
    folders.pop_front();
    const auto renamed = rename_in(as_user, folder.fd.get(), name, owner);
    if (renamed) {
      return folder.path + *renamed;
    }
    first = first ? first : renamed.error();
    for (Folder& each :
         folder.depth < kDeepest ? folders_in(as_user, folder, left) : std::vector<Folder>()) {
      folders.push_back(std::move(each));
    }
  }
  return fail(*first);
}

}  // namespace

Result<std::string> rename_incomplete_core(const CoreOwner& owner, const FileUser& user) {
  const auto pattern = MIGRATE_TRY(read_file("/proc/sys/kernel/core_pattern"));
  const auto uses_pid = read_file("/proc/sys/kernel/core_uses_pid").value_or("0");
  const auto path = core_path(pattern, uses_pid.starts_with('1'), owner);
  if (!path) {
    return fail(make_error(ErrorCode::kUnsupported, "name the core dump", pattern));
  }
  const std::size_t slash = path->rfind('/');
  const std::string name = path->substr(slash == std::string::npos ? 0 : slash + 1);
  const std::string folder = slash == std::string::npos ? "." : path->substr(0, slash + 1);
  const bool relative = !path->starts_with('/');
  if (relative && owner.directory < 0) {
    return fail(not_found(*path, "its working directory was not seen"));
  }
  // All of it as the user: nobody makes root rename what is not his.
  FileUser::Scope as_user(user);
  UniqueFd directory =
      MIGRATE_TRY(as_user.open_at(owner.directory, folder, O_RDONLY | O_DIRECTORY));
  if (relative && slash == std::string::npos) {
    return rename_below(as_user, std::move(directory), name, owner);
  }
  const std::string renamed = MIGRATE_TRY(rename_in(as_user, directory.get(), name, owner));
  return path->substr(0, path->size() - name.size()) + renamed;
}

}  // namespace migrate
