// What a process can learn of itself by system calls and from its own folder in /proc. It must not
// change what it shows: it takes no descriptor but for a moment, and no memory of its own.
#include <dirent.h>
#include <linux/kcmp.h>
#include <linux/membarrier.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>

#include "tests/programs/pairs.h"

namespace pairs {
namespace {

constexpr std::size_t kViewPage = 4096;

struct Shown {
  const void* start;
  std::size_t length_bytes;
};

// Static: what is asked of the heap would change the mappings.
std::array<char, std::size_t{512} << 10U> text;  // of one file
std::array<char, std::size_t{1} << 20U> said;    // of one view
std::array<Shown, 256> memories;
std::size_t memory_count = 0;
std::size_t said_bytes = 0;
int view = 0;

__attribute__((format(printf, 1, 2))) void put(const char* format, ...) {
  const auto room = said.size() - said_bytes;
  const int begun = std::snprintf(said.data() + said_bytes, room, "%d ", view);
  va_list arguments;
  va_start(arguments, format);
  const auto used = static_cast<std::size_t>(begun);
  const int wrote = std::vsnprintf(said.data() + said_bytes + used, room - used, format, arguments);
  va_end(arguments);
  said_bytes = std::min(said_bytes + used + static_cast<std::size_t>(wrote) + 1, said.size() - 1);
  said[said_bytes - 1] = '\n';
}

/// The file's text, in `text`, up to its first empty byte; "?errno" if it cannot be read.
const char* read_into_text(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  std::size_t length = 0;
  if (fd < 0) {
    std::snprintf(text.data(), text.size(), "?%d\n", errno);
    return text.data();
  }
  ssize_t count = 0;
  while ((count = ::read(fd, text.data() + length, text.size() - 1 - length)) > 0) {
    length += static_cast<std::size_t>(count);
  }
  ::close(fd);
  text[length] = '\0';
  return text.data();
}

/// The next line of what `at` points to, which then points behind it; null at the end.
char* next_line(char*& at) {
  if (*at == '\0') {
    return nullptr;
  }
  char* const line = at;
  char* const end = std::strchr(at, '\n');
  at = end != nullptr ? end + 1 : at + std::strlen(at);
  if (end != nullptr) {
    *end = '\0';
  }
  return line;
}

/// Each line "KEY: VALUE" of a file.
void show_lines(const char* prefix, const char* path) {
  read_into_text(path);
  char* at = text.data();
  int number = 0;
  while (char* line = next_line(at)) {
    char* const colon = std::strchr(line, ':');
    if (colon == nullptr) {
      put("%s.%d=%s", prefix, number++, line);
      continue;
    }
    *colon = '\0';
    put("%s.%s=%s", prefix, line, colon + 1 + std::strspn(colon + 1, " \t"));
  }
}

void show_text(const char* key, const char* path) {
  read_into_text(path);
  char* at = text.data();
  for (int number = 0; char* line = next_line(at); ++number) {
    put("%s.%d=%s", key, number, line);
  }
}

void show_link(const char* key, const char* path) {
  std::array<char, 1024> target{};
  const ssize_t length = ::readlink(path, target.data(), target.size() - 1);
  put("%s=%s", key, length < 0 ? "?" : target.data());
}

void show_settings() {
  struct Setting {
    const char* name;
    int number;
    unsigned long argument;
  };
  constexpr Setting kSettings[] = {
      {"dumpable", PR_GET_DUMPABLE, 0},
      {"keepcaps", PR_GET_KEEPCAPS, 0},
      {"securebits", PR_GET_SECUREBITS, 0},
      {"no_new_privs", PR_GET_NO_NEW_PRIVS, 0},
      {"timerslack", PR_GET_TIMERSLACK, 0},
      {"thp_disable", PR_GET_THP_DISABLE, 0},
      {"io_flusher", PR_GET_IO_FLUSHER, 0},
      {"mce_kill", PR_MCE_KILL_GET, 0},
      {"mdwe", 66, 0},
      {"memory_merge", 68, 0},
      {"speculation0", PR_GET_SPECULATION_CTRL, 0},
      {"speculation1", PR_GET_SPECULATION_CTRL, 1},
      {"speculation2", PR_GET_SPECULATION_CTRL, 2},
  };
  for (const Setting& setting : kSettings) {
    const long value = ::prctl(setting.number, setting.argument, 0, 0, 0);
    put("prctl.%s=%ld", setting.name, value < 0 ? -errno : value);
  }
  constexpr Setting kWritten[] = {{"tsc", PR_GET_TSC, 0},
                                  {"pdeathsig", PR_GET_PDEATHSIG, 0},
                                  {"subreaper", PR_GET_CHILD_SUBREAPER, 0},
                                  {"tid_address", PR_GET_TID_ADDRESS, 0}};
  for (const Setting& setting : kWritten) {
    std::uint64_t value = 0;
    const int result = ::prctl(setting.number, &value, 0, 0, 0);
    put("prctl.%s=%d %lx", setting.name, result, value);
  }
  put("personality=%d", static_cast<int>(::syscall(SYS_personality, 0xffffffff)));
  constexpr int kGetRegistrations = 1 << 9;
  put("membarrier=%ld", ::syscall(SYS_membarrier, kGetRegistrations, 0, 0));
  constexpr int kGetCpuid = 0x1011;
  put("cpuid=%ld", ::syscall(SYS_arch_prctl, kGetCpuid, 0));
  std::array<std::uint64_t, 8> entries{};
  const long segments = ::syscall(SYS_modify_ldt, 0, entries.data(), sizeof entries);
  put("ldt=%ld %lx", segments, entries[0]);
  int policy = 0;
  std::array<unsigned long, 16> nodes{};
  const long got = ::syscall(SYS_get_mempolicy, &policy, nodes.data(), 1024, 0, 0);
  put("mempolicy=%ld %d %lx", got, policy, nodes[0]);
}

void show_scheduling(const char* who, pid_t thread) {
  std::array<std::uint32_t, 14> attributes{};
  const long result = ::syscall(SYS_sched_getattr, thread, attributes.data(), sizeof attributes, 0);
  put("%s.scheduling=%ld policy %u flags %u priority %u", who, result, attributes[1], attributes[2],
      attributes[5]);
  errno = 0;
  const int nice = ::getpriority(PRIO_PROCESS, static_cast<id_t>(thread));
  put("%s.nice=%d %d", who, nice, errno);
  put("%s.ioprio=%ld", who, ::syscall(SYS_ioprio_get, 1, thread));
}

/// The numbers in a folder of /proc, ascending; gives how many.
std::size_t numbers_in(const char* path, std::array<int, 4096>& numbers) {
  const int fd = ::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  std::size_t count = 0;
  for (long got = 0; fd >= 0;) {
    got = ::syscall(SYS_getdents64, fd, text.data(), text.size());
    if (got <= 0) {
      break;
    }
    for (long at = 0; at < got;) {
      const auto* const entry = reinterpret_cast<const dirent64*>(text.data() + at);
      const int number = std::atoi(entry->d_name);
      if (entry->d_name[0] != '.' && number != fd && count < numbers.size()) {
        numbers[count++] = number;
      }
      at += entry->d_reclen;
    }
  }
  if (fd >= 0) {
    ::close(fd);
  }
  std::sort(numbers.begin(), numbers.begin() + static_cast<std::ptrdiff_t>(count));
  return count;
}

void show_threads() {
  static std::array<int, 4096> threads;
  const std::size_t count = numbers_in("/proc/self/task", threads);
  put("threads=%zu", count);
  for (std::size_t i = 0; i < count; ++i) {
    char who[40];
    char path[80];
    std::snprintf(who, sizeof who, "thread%d", threads[i]);
    show_scheduling(who, threads[i]);
    std::snprintf(path, sizeof path, "/proc/self/task/%d/status", threads[i]);
    show_lines(who, path);
    std::snprintf(path, sizeof path, "/proc/%d/timerslack_ns", threads[i]);
    show_text((std::string(who) + ".slack").c_str(), path);
    void* head = nullptr;
    std::size_t length = 0;
    const long robust = ::syscall(SYS_get_robust_list, threads[i], &head, &length);
    put("%s.robust=%ld %p %zu", who, robust, head, length);
  }
}

void show_signals() {
  struct KernelAction {
    unsigned long handler;
    unsigned long flags;
    unsigned long restorer;
    unsigned long mask;
  };
  constexpr int kSignals = 64;
  for (int number = 1; number <= kSignals; ++number) {
    KernelAction action{};
    ::syscall(SYS_rt_sigaction, number, nullptr, &action, sizeof action.mask);
    if (action.handler != 0 || action.flags != 0 || action.mask != 0) {
      put("signal%d=%lx %lx %lx %lx", number, action.handler, action.flags, action.restorer,
          action.mask);
    }
  }
  stack_t stack{};
  ::sigaltstack(nullptr, &stack);
  put("sigaltstack=%p %d %zu", stack.ss_sp, stack.ss_flags, stack.ss_size);
}

void show_timers() {
  for (int which = 0; which < 3; ++which) {
    itimerval timer{};
    ::getitimer(static_cast<__itimer_which_t>(which), &timer);
    put("itimer%d.interval=%ld.%06ld", which, timer.it_interval.tv_sec, timer.it_interval.tv_usec);
    put("itimer%d.left=%ld", which, timer.it_value.tv_sec * 1'000'000 + timer.it_value.tv_usec);
  }
  show_text("timers", "/proc/self/timers");
  for (int id = 0; id < 64; ++id) {
    itimerspec timer{};
    if (::syscall(SYS_timer_gettime, id, &timer) == 0) {
      put("timer%d.interval=%ld.%09ld", id, timer.it_interval.tv_sec, timer.it_interval.tv_nsec);
      put("timer%d.left=%ld", id,
          timer.it_value.tv_sec * 1'000'000 + timer.it_value.tv_nsec / 1000);
    }
  }
  for (const clockid_t clock : {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME}) {
    timespec now{};
    ::clock_gettime(clock, &now);
    put("clock%d.now=%ld", clock, now.tv_sec * 1'000'000 + now.tv_nsec / 1000);
  }
}

std::uint64_t digest(std::uint64_t before, const char* bytes, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    before = (before ^ static_cast<unsigned char>(bytes[i])) * 0x100000001B3U;
  }
  return before;
}

/// What is in a file without a name, or in the memory that it is.
void show_content(int fd, off_t size) {
  constexpr off_t kMost = off_t{4} << 20;
  std::uint64_t sum = 1;
  ssize_t count = 0;
  for (off_t at = 0; at < std::min(size, kMost); at += count) {
    count = ::pread(fd, text.data(), text.size(), at);
    if (count <= 0) {
      put("fd%d.content=?%d", fd, errno);
      return;
    }
    sum = digest(sum, text.data(), static_cast<std::size_t>(count));
  }
  put("fd%d.content=%lx", fd, sum);
}

void show_socket(int fd) {
  constexpr int kOptions[] = {SO_TYPE,      SO_DOMAIN,   SO_PASSCRED,   SO_PRIORITY,
                              SO_KEEPALIVE, SO_RCVLOWAT, SO_ACCEPTCONN, SO_MARK,
                              SO_SNDBUF,    SO_RCVBUF,   SO_BROADCAST,  SO_OOBINLINE};
  for (const int option : kOptions) {
    int value = 0;
    socklen_t length = sizeof value;
    const int result = ::getsockopt(fd, SOL_SOCKET, option, &value, &length);
    put("fd%d.option%d=%d %d", fd, option, result, value);
  }
  for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO, SO_LINGER}) {
    std::array<long, 2> value{};
    socklen_t length = sizeof value;
    const int result = ::getsockopt(fd, SOL_SOCKET, option, value.data(), &length);
    put("fd%d.option%d=%d %ld %ld", fd, option, result, value[0], value[1]);
  }
  std::array<unsigned char, 28> name{};
  socklen_t name_length = name.size();
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(name.data()), &name_length) == 0 &&
      (name[0] == AF_INET || name[0] == AF_INET6)) {
    put("fd%d.name=%d %x%02x", fd, name[0], name[2], name[3]);
  }
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0) {
    put("fd%d.peer=%d %u %u", fd, peer.pid, peer.uid, peer.gid);
  }
}

void show_terminal(int fd) {
  std::array<unsigned char, 44> modes{};
  const int result = ::ioctl(fd, _IOR('T', 0x2A, modes), modes.data());  // TCGETS2
  put("fd%d.modes=%d %lx", fd, result,
      digest(1, reinterpret_cast<const char*>(modes.data()), modes.size()));
  winsize size{};
  ::ioctl(fd, TIOCGWINSZ, &size);
  put("fd%d.size=%d %d %d %d", fd, size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel);
  int packets = -1;
  int locked = -1;
  unsigned device = 0;
  ::ioctl(fd, TIOCGPKT, &packets);
  ::ioctl(fd, TIOCGPTLCK, &locked);
  ::ioctl(fd, TIOCGDEV, &device);
  put("fd%d.terminal=%x packets %d locked %d own %d", fd, device, packets, locked,
      ::tcgetpgrp(fd) == ::getpgrp() ? 1 : 0);
}

void show_open_file(int fd) {
  struct stat status {};
  ::fstat(fd, &status);
  const int flags = ::fcntl(fd, F_GETFL);
  put("fd%d.flags=%o %d", fd, static_cast<unsigned>(flags), ::fcntl(fd, F_GETFD));
  put("fd%d.stat=mode %o owner %u %u links %lu size %ld rdev %lx", fd, status.st_mode,
      status.st_uid, status.st_gid, status.st_nlink, status.st_size, status.st_rdev);
  f_owner_ex owner{};
  const int owned = ::fcntl(fd, F_GETOWN_EX, &owner);
  put("fd%d.owner=%d %d %d signal %d", fd, owned, owner.pid != 0 ? owner.type : 0, owner.pid,
      ::fcntl(fd, F_GETSIG));
  put("fd%d.lease=%d", fd, ::fcntl(fd, F_GETLEASE));
  put("fd%d.seals=%d", fd, ::fcntl(fd, F_GET_SEALS));
  put("fd%d.pipe_size=%d", fd, ::fcntl(fd, F_GETPIPE_SZ));
  put("fd%d.position=%ld", fd, ::lseek(fd, 0, SEEK_CUR));
  int waiting = 0;
  const int counted = S_ISCHR(status.st_mode) && ::isatty(fd) != 0
                          ? count_when_settled(fd, waiting)
                          : ::ioctl(fd, FIONREAD, &waiting);
  put("fd%d.waiting=%d %d", fd, counted, S_ISREG(status.st_mode) ? 0 : waiting);
  pollfd ready{.fd = fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP, .revents = 0};
  ::poll(&ready, 1, 0);
  put("fd%d.poll=%x", fd, static_cast<unsigned>(ready.revents));
  if (S_ISSOCK(status.st_mode)) {
    show_socket(fd);
  }
  if (S_ISCHR(status.st_mode) && ::isatty(fd) != 0) {
    show_terminal(fd);
  }
  if (S_ISREG(status.st_mode) && status.st_nlink == 0) {
    show_content(fd, status.st_size);
  }
}

void show_descriptors() {
  static std::array<int, 4096> numbers;
  const std::size_t count = numbers_in("/proc/self/fd", numbers);
  const pid_t own = ::getpid();
  for (std::size_t i = 0; i < count; ++i) {
    const int fd = numbers[i];
    char key[40];
    char path[60];
    std::snprintf(key, sizeof key, "fd%d.link", fd);
    std::snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    show_link(key, path);
    std::snprintf(key, sizeof key, "fd%d.info", fd);
    std::snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    show_text(key, path);
    show_open_file(fd);
    for (std::size_t other = 0; other < i; ++other) {
      if (::syscall(SYS_kcmp, own, own, KCMP_FILE, fd, numbers[other]) == 0) {
        put("fd%d.same=%d", fd, numbers[other]);
        break;
      }
    }
  }
}

// "START-END rwxp OFFSET DEVICE INODE NAME", and of what follows the flags.
void show_mappings() {
  read_into_text("/proc/self/smaps");
  char* at = text.data();
  std::string_view range;
  while (char* line = next_line(at)) {
    if (std::strncmp(line, "VmFlags:", 8) == 0) {
      put("map.%.*s.flags=%s", static_cast<int>(range.size()), range.data(), line + 9);
    } else if (std::strchr(line, '-') != nullptr && line[0] >= '0' && line[0] <= 'f' &&
               std::strchr(line, '-') < line + 17 && std::strchr(line, ' ') != nullptr &&
               std::strchr(line, ':') != nullptr &&
               std::strchr(line, '-') < std::strchr(line, ':')) {
      char* const space = std::strchr(line, ' ');
      range = std::string_view(line, static_cast<std::size_t>(space - line));
      put("map.%.*s=%s", static_cast<int>(range.size()), range.data(), space + 1);
    }
  }
}

/// Of each mapping that has one.
void show_memory_policies() {
  read_into_text("/proc/self/numa_maps");
  char* at = text.data();
  while (char* line = next_line(at)) {
    if (const char* const space = std::strchr(line, ' ');
        space != nullptr && std::strncmp(space, " default", 8) != 0) {
      put("numa.%.*s=%.*s", static_cast<int>(space - line), line,
          static_cast<int>(std::strcspn(space + 1, " ")), space + 1);
    }
  }
}

/// Read by a system call, which stops where memory cannot be read.
void show_contents() {
  for (std::size_t i = 0; i < memory_count; ++i) {
    std::uint64_t sum = 1;
    for (std::size_t at = 0; at < memories[i].length_bytes; at += kViewPage) {
      char* const page = static_cast<char*>(const_cast<void*>(memories[i].start)) + at;
      iovec local{text.data(), kViewPage};
      iovec remote{page, kViewPage};
      const ssize_t count = ::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0);
      sum = count > 0 ? digest(sum, text.data(), static_cast<std::size_t>(count))
                      : digest(sum, "unreadable", 10);
    }
    put("memory.%p=%lx", memories[i].start, sum);
  }
}

/// What is mapped from now on: locked, with huge pages, ...
void show_new_mapping() {
  void* const memory =
      ::mmap(nullptr, 3 * kViewPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    put("new_mapping=?%d", errno);
    return;
  }
  ::mprotect(memory, kViewPage, PROT_NONE);  // So that it is joined with nothing.
  ::mprotect(static_cast<char*>(memory) + 2 * kViewPage, kViewPage, PROT_NONE);
  char start[40];
  std::snprintf(start, sizeof start, "%lx-", reinterpret_cast<unsigned long>(memory) + kViewPage);
  read_into_text("/proc/self/smaps");
  const char* const found = std::strstr(text.data(), start);
  const char* const flags = found != nullptr ? std::strstr(found, "VmFlags: ") : nullptr;
  put("new_mapping=%.*s", flags != nullptr ? static_cast<int>(std::strcspn(flags, "\n")) : 0,
      flags);
  ::munmap(memory, 3 * kViewPage);
}

/// Lifts the limits that would not let this program look at itself, as long as it lives.
class Room {
 public:
  Room() {
    for (std::size_t i = 0; i < kResources.size(); ++i) {
      ::getrlimit(kResources[i], &before_[i]);
      const rlimit more{before_[i].rlim_max, before_[i].rlim_max};
      ::setrlimit(kResources[i], &more);
    }
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  ~Room() {
    for (std::size_t i = 0; i < kResources.size(); ++i) {
      ::setrlimit(kResources[i], &before_[i]);
    }
  }

 private:
  static constexpr std::array<__rlimit_resource_t, 3> kResources{RLIMIT_NOFILE, RLIMIT_AS,
                                                                 RLIMIT_DATA};
  std::array<rlimit, 3> before_{};
};

void show_limits() {
  for (int resource = 0; resource < RLIM_NLIMITS; ++resource) {
    rlimit limit{};
    ::getrlimit(static_cast<__rlimit_resource_t>(resource), &limit);
    put("limit%d=%lx %lx", resource, limit.rlim_cur, limit.rlim_max);
  }
}

void show_process() {
  put("pid=%d", ::getpid());
  put("group=%d", ::getpgrp() == ::getpid() ? ::getpid() : -1);
  show_lines("status", "/proc/self/status");
  show_link("cwd", "/proc/self/cwd");
  show_link("exe", "/proc/self/exe");
  show_text("cmdline", "/proc/self/cmdline");
  for (const char* const name : {"autogroup", "oom_score_adj", "coredump_filter", "loginuid",
                                 "sessionid", "cgroup", "cpu_resctrl_groups", "setgroups"}) {
    char path[60];
    std::snprintf(path, sizeof path, "/proc/self/%s", name);
    show_text(name, path);
  }
}

}  // namespace

int count_when_settled(int fd, int& waiting) {
  constexpr int kLooks = 6;
  int counted = 0;
  for (int before = -1, same = 0; same < kLooks; same = waiting == before ? same + 1 : 0) {
    before = waiting;
    check::sleep_ns(5 * check::kMillisecond);
    counted = ::ioctl(fd, FIONREAD, &waiting);
  }
  return counted;
}

void show_memory(const void* start, std::size_t length_bytes) {
  if (memory_count < memories.size()) {
    memories[memory_count++] = {start, length_bytes};
  }
}

void show(int number) {
  view = number;
  said_bytes = 0;
  show_limits();
  {
    const Room room;
    show_process();
    show_settings();
    show_signals();
    show_timers();
    show_descriptors();
    show_threads();
    show_mappings();
    show_memory_policies();
    show_contents();
    show_new_mapping();
  }
  said[said_bytes] = '\0';
  check::say(said.data());
}

}  // namespace pairs
