#include "libmigrate/carriers/internal/file_lock.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>

#include "base/file.h"
#include "libmigrate/carriers/internal/tools.h"
#include "libmigrate/proc/file_identity.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::carriers {
namespace {

constexpr int kMostLocks = 1024;
constexpr std::uint64_t kToTheEnd = std::numeric_limits<std::int64_t>::max();

/// Of network file systems, those whose locks all hosts see, unless they are mounted otherwise.
constexpr std::array<std::uint64_t, 5> kWithCommonLocks{
    0x6969,      // nfs
    0x00C36400,  // ceph
    0x01161970,  // gfs2
    0x7461636f,  // ocfs2
    0x47504653,  // gpfs
};
constexpr std::uint64_t kNfs = 0x6969;

// Options by which NFS keeps locks within one host.
bool keeps_locks_local(const wire::FileIdentity& file) {
  const std::string device = fmt::format("{}:{}", file.device_major(), file.device_minor());
  const auto mounts = read_file("/proc/self/mountinfo");
  std::string_view left = mounts ? std::string_view(*mounts) : std::string_view();
  while (!left.empty()) {
    const std::string_view line = take_line(left);
    std::string_view words = line;
    take_word(words);
    take_word(words);
    if (take_word(words) == device) {
      const std::string_view options = line.substr(line.rfind(' ') + 1);
      return options.find("nolock") != std::string_view::npos ||
             options.find("local_lock=none") == std::string_view::npos;
    }
  }
  return true;
}

// Whether hosts that share the file see each other's locks on it.
bool has_common_locks(const wire::FileIdentity& file) {
  const std::uint64_t type = file.filesystem_type();
  return std::ranges::find(kWithCommonLocks, type) != kWithCommonLocks.end() &&
         (type != kNfs || !keeps_locks_local(file));
}

// "1: FLOCK  ADVISORY  READ 1234 fe:00:17 0 EOF"; also POSIX and OFDLCK.
std::optional<wire::FileLock> shared_lock(std::string_view line) {
  take_word(line);
  const std::string_view kind = take_word(line);
  const std::string_view way = take_word(line);
  const std::string_view type = take_word(line);
  take_word(line);
  take_word(line);
  const auto start = parse_number(take_word(line));
  const std::string_view last = take_word(line);
  const auto end = last == "EOF" ? std::optional(kToTheEnd) : parse_number(last);
  wire::FileLock lock;
  if (way != "ADVISORY" || type != "READ" || !start || !end) {
    return std::nullopt;
  }
  if (kind == "FLOCK") {
    lock.set_kind(wire::FileLock::FLOCK);
  } else if (kind == "POSIX") {
    lock.set_kind(wire::FileLock::PROCESS);
  } else if (kind == "OFDLCK") {
    lock.set_kind(wire::FileLock::OPEN_FILE);
  } else {
    return std::nullopt;
  }
  lock.set_start(*start);
  lock.set_end(*end);
  return lock;
}

}  // namespace

bool find_locks(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  constexpr std::string_view kKey = "lock:";
  bool accepted = true;
  std::string_view details = seen.details;
  while (!details.empty()) {
    std::string_view line = take_line(details);
    if (!line.starts_with(kKey)) {
      continue;
    }
    line.remove_prefix(kKey.size());
    const std::string_view text = line.substr(std::min(line.find_first_not_of(" \t"), line.size()));
    const auto lock = shared_lock(text);
    const bool carried =
        lock && file.kind() == wire::OpenFile::REGULAR && file.shared_id() == 0 &&
        file.locks_size() < kMostLocks &&
        (filesystem_class(file.identity().filesystem_type()) != FilesystemClass::kNetwork ||
         has_common_locks(file.identity()));
    if (!carried) {
      accepted = context.refuse("FILE_LOCK", seen, text);
      continue;
    }
    // The process's own are shown of all its open files that lead there.
    const bool reads = (seen.flags & O_ACCMODE) != O_WRONLY && (seen.flags & O_PATH) == 0;
    if (reads || lock->kind() == wire::FileLock::FLOCK) {
      *file.add_locks() = *lock;
    }
  }
  return accepted;
}

const char* flaw_of_locks(const wire::OpenFile& file) {
  const bool sound = file.locks_size() <= kMostLocks &&
                     std::ranges::all_of(file.locks(), [](const wire::FileLock& lock) {
                       return wire::FileLock::Kind_IsValid(lock.kind()) &&
                              lock.start() <= lock.end() && lock.end() <= kToTheEnd;
                     });
  return sound ? nullptr : "locks of a file";
}

void compare_locks(CompareContext& context, const wire::OpenFile& file) {
  if (file.locks_size() == 0 || context.same_kernel()) {
    return;
  }
  const auto here = identify_at(AT_FDCWD, file.identity().path(), file.identity().path());
  if (here && !has_common_locks(*here)) {
    context.refuse("FILE_LOCK", "hosts do not see each other's locks on its file system");
  }
}

void take_locks(Script& script, std::uint32_t number, const wire::OpenFile& file) {
  for (const wire::FileLock& lock : file.locks()) {
    if (lock.kind() == wire::FileLock::FLOCK) {
      script.must("lock", SYS_flock, {number, LOCK_SH | LOCK_NB}, descriptor_name(number));
      continue;
    }
    struct flock range {};
    range.l_type = F_RDLCK;
    range.l_whence = SEEK_SET;
    range.l_start = static_cast<off_t>(lock.start());
    range.l_len = lock.end() == kToTheEnd ? 0 : static_cast<off_t>(lock.end() - lock.start() + 1);
    script.must(
        "lock", SYS_fcntl,
        {number,
         static_cast<std::uint64_t>(lock.kind() == wire::FileLock::PROCESS ? F_SETLK : F_OFD_SETLK),
         script.put_value(range)},
        descriptor_name(number));
  }
}

}  // namespace migrate::carriers
