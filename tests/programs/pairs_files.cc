// Descriptors of what has a name, or had one.
#include <signal.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include <array>

#include "tests/programs/pairs.h"

namespace pairs {
namespace {

int make_file(const std::string& path, Random& random, int flags = O_RDWR) {
  check::write_text(path, std::string(random.below(20000), 'x'));
  constexpr int kMore[] = {O_APPEND, O_NONBLOCK, O_CLOEXEC, O_SYNC, O_NOATIME, O_DSYNC};
  const int more = chance(random, 50) ? some_of(random, kMore) : 0;
  return ::open(path.c_str(), flags | more);
}

bool open_file(Random& random) {
  constexpr int kAccess[] = {O_RDONLY, O_WRONLY, O_RDWR};
  const int fd = make_file(new_path("file"), random, one_of(random, kAccess));
  return fd >= 0 && ::lseek(fd, static_cast<off_t>(random.below(40000)), SEEK_SET) >= 0;
}

/// By a descriptor that is a duplicate, or has a number of its own.
bool duplicate_file(Random& random) {
  const int fd = make_file(new_path("twice"), random);
  const int number = static_cast<int>(20 + random.below(900));
  return fd >= 0 &&
         (chance(random, 50) ? ::dup2(fd, number) : ::fcntl(fd, F_DUPFD_CLOEXEC, number)) >= 0;
}

bool open_direct(Random& random) {
  return make_file(new_path("direct"), random, O_RDWR | O_DIRECT) >= 0;
}

bool open_path_only(Random& random) {
  return make_file(new_path("path"), random, O_PATH) >= 0;
}

bool open_removed(Random& random) {
  const std::string path = new_path("removed");
  constexpr int kAccess[] = {O_RDONLY, O_WRONLY, O_RDWR};
  const int fd = make_file(path, random, one_of(random, kAccess));
  if (chance(random, 20)) {
    ::fchmod(fd, 0);
  }
  return fd >= 0 && ::unlink(path.c_str()) == 0;
}

bool open_unnamed(Random& random) {
  const std::string folder = check::stop_file.substr(0, check::stop_file.rfind('/'));
  const int fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR, 0600);
  return fd >= 0 && ::ftruncate(fd, static_cast<off_t>(random.below(100000))) == 0;
}

/// The name leads to another file now, or the file has another name.
bool open_replaced(Random& random) {
  const std::string path = new_path("replaced");
  const int fd = make_file(path, random);
  switch (random.below(3)) {
    case 0:
      return fd >= 0 && ::rename(path.c_str(), (path + ".old").c_str()) == 0;
    case 1:
      ::link(path.c_str(), (path + ".second").c_str());
      return fd >= 0 && ::unlink(path.c_str()) == 0;
    default:
      check::write_text(path + ".new", "other");
      return fd >= 0 && ::rename((path + ".new").c_str(), path.c_str()) == 0;
  }
}

bool open_by_link(Random& random) {
  const std::string path = new_path("linked");
  check::write_text(path, "linked");
  const std::string link = path + ".link";
  return ::symlink(path.c_str(), link.c_str()) == 0 &&
         ::open(link.c_str(), chance(random, 50) ? O_RDONLY : O_RDWR) >= 0;
}

/// Its user may not open it any more.
bool open_forbidden(Random& random) {
  const int fd = make_file(new_path("forbidden"), random);
  return fd >= 0 && ::fchmod(fd, 0) == 0;
}

bool open_hosts_file(Random& random) {
  constexpr const char* kFolders[] = {"/tmp/", "/run/", "/dev/shm/"};
  const std::string path =
      one_of(random, kFolders) + std::string("pairs.") + std::to_string(::getpid());
  const int fd = make_file(path, random);
  if (chance(random, 50)) {
    ::unlink(path.c_str());
  }
  return fd >= 0;
}

bool open_folder(Random& random) {
  const std::string path = new_path("folder");
  ::mkdir(path.c_str(), 0755);
  const int fd = ::open(chance(random, 50) ? "/" : path.c_str(), O_RDONLY | O_DIRECTORY);
  if (chance(random, 15)) {
    ::rmdir(path.c_str());
  }
  return fd >= 0;
}

bool notify_of_folder(Random& random) {
  const std::string path = new_path("noted");
  ::mkdir(path.c_str(), 0755);
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY);
  struct sigaction action {};
  action.sa_handler = SIG_IGN;
  ::sigaction(SIGIO, &action, nullptr);
  return ::fcntl(fd, F_NOTIFY, DN_CREATE | (chance(random, 50) ? DN_MULTISHOT : 0)) == 0;
}

bool open_device(Random& random) {
  constexpr const char* kDevices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random",
                                      "/dev/urandom"};
  return ::open(one_of(random, kDevices), chance(random, 50) ? O_RDWR : O_RDONLY) >= 0;
}

bool open_other_device(Random& random) {
  constexpr const char* kDevices[] = {"/dev/kmsg",        "/dev/ptmx", "/dev/fuse",
                                      "/dev/kvm",         "/dev/tty",  "/dev/net/tun",
                                      "/dev/userfaultfd", "/dev/mem",  "/dev/loop-control"};
  return ::open(one_of(random, kDevices), O_RDWR | O_NOCTTY | O_NONBLOCK) >= 0;
}

bool open_of_kernel(Random& random) {
  constexpr const char* kFiles[] = {
      "/proc/self/maps", "/proc/meminfo",  "/proc/self/ns/net", "/proc/self/fd",
      "/sys/kernel/mm",  "/proc/self/mem", "/proc/1/status",    "/sys/devices/system/cpu/online"};
  return ::open(one_of(random, kFiles), O_RDONLY) >= 0;
}

bool open_named_pipe(Random& random) {
  const std::string path = new_path("fifo");
  return ::mkfifo(path.c_str(), 0666) == 0 &&
         ::open(path.c_str(), chance(random, 50) ? O_RDWR : O_RDONLY | O_NONBLOCK) >= 0;
}

bool lock_file(Random& random) {
  const int fd = make_file(new_path("locked"), random);
  struct flock lock {};
  lock.l_type = F_WRLCK;
  switch (random.below(4)) {
    case 0:
      return ::flock(fd, LOCK_EX) == 0;
    case 1:
      return ::fcntl(fd, F_SETLK, &lock) == 0;
    case 2:
      return ::fcntl(fd, F_OFD_SETLK, &lock) == 0;
    default:
      ::flock(fd, LOCK_SH);
      return ::flock(fd, LOCK_UN) == 0;
  }
}

bool lease_file(Random& random) {
  const int fd = make_file(new_path("leased"), random, O_RDONLY);
  struct sigaction action {};
  action.sa_handler = SIG_IGN;
  ::sigaction(SIGIO, &action, nullptr);
  const bool leased = ::fcntl(fd, F_SETLEASE, F_RDLCK) == 0;
  return leased && (chance(random, 70) || ::fcntl(fd, F_SETLEASE, F_UNLCK) == 0);
}

bool own_file(Random& random) {
  const int fd = make_file(new_path("owned"), random);
  return ::fcntl(fd, F_SETOWN, ::getpid()) == 0 && ::fcntl(fd, F_SETSIG, 40) == 0;
}

bool mark_file(Random& random) {
  const int fd = make_file(new_path("hinted"), random);
  std::uint64_t hint = 1 + random.below(5);
  constexpr int kAdvice[] = {POSIX_FADV_RANDOM, POSIX_FADV_SEQUENTIAL, POSIX_FADV_NOREUSE};
  return ::fcntl(fd, F_SET_RW_HINT, &hint) == 0 &&
         ::posix_fadvise(fd, 0, 0, one_of(random, kAdvice)) == 0;
}

bool watch_files(Random& random) {
  const int fd = ::inotify_init1(IN_NONBLOCK);
  return fd >= 0 && (chance(random, 20) || ::inotify_add_watch(fd, "/", IN_CREATE) > 0);
}

/// Standard streams that are closed, or something else.
bool change_streams(Random& random) {
  switch (random.below(3)) {
    case 0:
      return ::close(STDIN_FILENO) == 0;
    case 1:
      return ::close(STDERR_FILENO) == 0;
    default: {
      const int fd = ::open("/dev/null", O_RDWR);
      return ::dup2(fd, STDIN_FILENO) == STDIN_FILENO && ::dup2(fd, STDERR_FILENO) == 2;
    }
  }
}

constexpr Step kFilesSteps[] = {
    {"file", false, open_file},
    {"twice", false, duplicate_file},
    {"direct", false, open_direct},
    {"path_only", true, open_path_only},
    {"removed", false, open_removed},
    {"unnamed", false, open_unnamed},
    {"replaced", true, open_replaced},
    {"by_link", false, open_by_link},
    {"forbidden", false, open_forbidden},
    {"hosts_file", true, open_hosts_file},
    {"directory", false, open_folder},
    {"directory_notes", false, notify_of_folder},
    {"device", false, open_device},
    {"other_device", true, open_other_device},
    {"of_kernel", true, open_of_kernel},
    {"named_pipe", true, open_named_pipe},
    {"lock", true, lock_file},
    {"lease", true, lease_file},
    {"owned_file", false, own_file},
    {"hinted", false, mark_file},
    {"inotify", true, watch_files},
    {"streams", false, change_streams},
};

}  // namespace

std::span<const Step> file_steps() {
  return kFilesSteps;
}

}  // namespace pairs
