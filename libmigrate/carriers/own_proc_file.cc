// A file of /proc that is open for reading: one of the process's own folder, or one of a few that
// tell about the machine. The destination's is opened in its place, in the cell.
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "base/file.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/tools.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::carriers {
namespace {

constexpr std::string_view kFolder = "/proc/";

// Below the folder of a process, "" being that itself: what a process may read of itself, whoever
// opened it. Threads are not there yet when files are opened.
constexpr std::array kOfProcess = std::to_array<std::string_view>(
    {"",          "auxv",      "cgroup",        "cmdline",      "comm",
     "environ",   "fd",        "fdinfo",        "io",           "limits",
     "maps",      "mountinfo", "mounts",        "numa_maps",    "sched",
     "oom_score", "schedstat", "smaps",         "smaps_rollup", "stat",
     "statm",     "status",    "oom_score_adj", "task"});
// Of the machine; everybody may read them.
constexpr std::array kOfMachine = std::to_array<std::string_view>(
    {"cpuinfo", "diskstats", "loadavg", "meminfo", "stat", "uptime", "version", "vmstat"});

template <std::size_t count>
bool contains(const std::array<std::string_view, count>& all, std::string_view one) {
  return std::ranges::find(all, one) != all.end();
}

std::string_view take_part(std::string_view& path) {
  const std::string_view part = path.substr(0, path.find('/'));
  path.remove_prefix(std::min(part.size() + 1, path.size()));
  return part;
}

// Whether it is of process `process`, as that sees itself, or of the machine.
bool is_carried(std::string_view path, std::uint64_t process) {
  if (!path.starts_with(kFolder)) {
    return false;
  }
  path.remove_prefix(kFolder.size());
  if (contains(kOfMachine, path)) {
    return true;
  }
  const auto id = parse_number(take_part(path));
  if (!id || *id == 0 || *id != process) {
    return false;
  }
  return contains(kOfProcess, path);
}

bool find_proc_file(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  constexpr std::uint32_t kRead = O_ACCMODE | O_PATH;
  if ((seen.flags & kRead) != O_RDONLY || !is_carried(seen.link, context.inner_process())) {
    return context.refuse("PROC_FILE", seen);
  }
  file.set_object(context.inner_process());
  file.mutable_identity()->set_path(seen.link);
  return true;
}

const char* flaw_of_proc_file(const wire::Objects& /*objects*/, const wire::OpenFile& file) {
  const bool is_sound = is_carried(file.identity().path(), file.object()) &&
                        (file.flags() & (O_ACCMODE | O_PATH)) == O_RDONLY;
  return is_sound ? nullptr : "files of /proc";
}

// In the process's own mounts, where its id is what it was.
Result<UniqueFd> make_proc_file(MakeContext& context, const wire::OpenFile& file) {
  const std::string& path = file.identity().path();
  const UniqueFd root = MIGRATE_TRY(
      open_file("/proc/" + std::to_string(context.process()) + "/root", O_PATH | O_DIRECTORY));
  open_how how{};
  how.flags = O_RDONLY | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  UniqueFd fd(
      static_cast<int>(::syscall(SYS_openat2, root.get(), path.c_str(), &how, sizeof(how))));
  if (!fd.valid()) {
    return fail(system_error("open", path));
  }
  if (file.position() != 0 &&
      ::lseek(fd.get(), static_cast<off_t>(file.position()), SEEK_SET) < 0) {
    return fail(system_error("seek in", path));
  }
  MIGRATE_TRY(set_flags(fd.get(), file.flags()));
  return fd;
}

}  // namespace

constinit const Carrier kOwnProcFile{
    .kind = wire::OpenFile::PROC_FILE,
    .name = "file of /proc",
    .claims_link = [](const FindContext& /*context*/,
                      const Sighting& seen) { return seen.link.starts_with(kFolder); },
    .find = find_proc_file,
    .flaw = flaw_of_proc_file,
    .make = make_proc_file,
};

}  // namespace migrate::carriers
