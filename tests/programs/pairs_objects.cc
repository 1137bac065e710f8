// Descriptors of what never had a name: pipes, sockets, events, timers, memory, and what belongs to
// this kernel.
#include <linux/aio_abi.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "tests/programs/pairs.h"

namespace pairs {
namespace {

using Ends = std::array<int, 2>;

void write_some(int fd, Random& random) {
  static std::array<char, 20000> bytes;
  const std::size_t count = random.below(bytes.size());
  // Of a socket that is full nobody would read.
  static_cast<void>(::send(fd, bytes.data(), count, MSG_DONTWAIT) < 0 && errno == ENOTSOCK &&
                    ::write(fd, bytes.data(), std::min<std::size_t>(count, 4000)) < 0);
}

bool make_pipe(Random& random) {
  Ends ends{};
  constexpr int kFlags[] = {O_NONBLOCK, O_CLOEXEC};
  if (::pipe2(ends.data(), some_of(random, kFlags)) != 0) {
    return false;
  }
  if (chance(random, 40)) {
    ::fcntl(ends[0], F_SETPIPE_SZ, 4096 << random.below(5));
  }
  if (chance(random, 60)) {
    write_some(ends[1], random);
  }
  if (chance(random, 25)) {
    ::close(ends[random.below(2)]);
  }
  return true;
}

bool make_packet_pipe(Random& random) {
  Ends ends{};
  if (::pipe2(ends.data(), O_DIRECT) != 0) {
    return false;
  }
  write_some(ends[1], random);
  return true;
}

/// Somebody who is no child has the other end of a pipe, or the same event.
bool share_with_outsider(Random& random) {
  Ends ends{};
  const int event = ::eventfd(0, 0);
  if (::pipe(ends.data()) != 0 || event < 0) {
    return false;
  }
  const bool keep_event = chance(random, 50);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::fork() == 0) {
      ::close(keep_event ? ends[0] : event);
      ::close(ends[1]);
      while (!check::stopping()) {
        check::sleep_ns(10 * check::kMillisecond);
      }
    }
    ::_exit(0);
  }
  return ::waitpid(child, nullptr, 0) == child;
}

bool make_socket_pair(Random& random) {
  constexpr int kTypes[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
  constexpr int kFlags[] = {SOCK_NONBLOCK, SOCK_CLOEXEC};
  Ends ends{};
  if (::socketpair(AF_UNIX, one_of(random, kTypes) | some_of(random, kFlags), 0, ends.data()) !=
      0) {
    return false;
  }
  constexpr int kOptions[] = {SO_PASSCRED, SO_SNDBUF,    SO_RCVBUF,    SO_PRIORITY, SO_KEEPALIVE,
                              SO_RCVLOWAT, SO_BROADCAST, SO_OOBINLINE, SO_MARK};
  for (std::uint64_t count = random.below(4); count > 0; --count) {
    const int option = one_of(random, kOptions);
    const int value = option == SO_SNDBUF || option == SO_RCVBUF ? 10000 : 1;
    ::setsockopt(ends[random.below(2)], SOL_SOCKET, option, &value, sizeof value);
  }
  for (std::uint64_t count = random.below(4); count > 0; --count) {
    write_some(ends[random.below(2)], random);
  }
  if (chance(random, 20)) {
    ::shutdown(ends[0], static_cast<int>(random.below(3)));
  }
  if (chance(random, 20)) {
    ::close(ends[1]);
  }
  return true;
}

bool send_descriptor(Random& /*random*/) {
  Ends ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) != 0) {
    return false;
  }
  char byte = 'x';
  iovec vector{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::copy_n(reinterpret_cast<const unsigned char*>(ends.data()), sizeof(int), CMSG_DATA(header));
  return ::sendmsg(ends[0], &message, 0) == 1;
}

// Options, and a name that nobody else has.
void name_some(int fd, int domain, Random& random) {
  constexpr int kOptions[] = {SO_SNDBUF,    SO_RCVBUF,    SO_PRIORITY,  SO_KEEPALIVE,
                              SO_BROADCAST, SO_OOBINLINE, SO_REUSEADDR, SO_MARK};
  for (std::uint64_t count = random.below(3); count > 0; --count) {
    const int option = one_of(random, kOptions);
    const int value = option == SO_SNDBUF || option == SO_RCVBUF ? 10000 : 1;
    ::setsockopt(fd, SOL_SOCKET, option, &value, sizeof value);
  }
  if (chance(random, 50)) {
    sockaddr_in6 any{};  // As far as it is of version 4, too, all the same.
    any.sin6_family = static_cast<sa_family_t>(domain);
    ::bind(fd, reinterpret_cast<const sockaddr*>(&any),
           domain == AF_INET ? sizeof(sockaddr_in) : sizeof any);
  }
}

bool make_other_socket(Random& random) {
  struct Kind {
    int domain, type;
  };
  constexpr Kind kKinds[] = {
      {AF_INET, SOCK_STREAM},  {AF_INET6, SOCK_DGRAM}, {AF_INET, SOCK_DGRAM},
      {AF_INET6, SOCK_STREAM}, {AF_NETLINK, SOCK_RAW}, {AF_UNIX, SOCK_STREAM},
      {AF_UNIX, SOCK_DGRAM},   {AF_PACKET, SOCK_RAW},  {AF_ALG, SOCK_SEQPACKET}};
  const Kind& kind = one_of(random, kKinds);
  const int fd = ::socket(kind.domain, kind.type, 0);
  if (kind.domain == AF_UNIX && chance(random, 60)) {
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = ""};
    const std::string path = new_path("socket");
    const bool named = chance(random, 50) && path.size() < sizeof address.sun_path;
    std::copy_n(path.c_str(), named ? path.size() + 1 : 0, address.sun_path);
    ::bind(fd, reinterpret_cast<const sockaddr*>(&address),
           static_cast<socklen_t>(sizeof(sa_family_t) + (named ? path.size() + 1 : 0)));
  }
  if (kind.domain == AF_INET || kind.domain == AF_INET6) {
    name_some(fd, kind.domain, random);
  }
  if (kind.type == SOCK_STREAM && chance(random, 30)) {
    ::listen(fd, 5);
  }
  return fd >= 0;
}

bool make_event(Random& random) {
  constexpr int kFlags[] = {EFD_SEMAPHORE, EFD_NONBLOCK, EFD_CLOEXEC};
  return ::eventfd(static_cast<unsigned>(random.below(5)), some_of(random, kFlags)) >= 0;
}

bool make_timer_descriptor(Random& random) {
  constexpr int kClocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME_ALARM,
                             CLOCK_BOOTTIME_ALARM};
  constexpr int kFlags[] = {TFD_NONBLOCK, TFD_CLOEXEC};
  const int clock = one_of(random, kClocks);
  const int fd = ::timerfd_create(clock, some_of(random, kFlags));
  if (fd < 0) {
    return false;
  }
  itimerspec timer{};
  timer.it_value.tv_sec = static_cast<time_t>(100'000 + random.below(1000));
  timer.it_interval.tv_sec = static_cast<time_t>(random.below(2) * random.below(100000));
  int flags = 0;
  if (chance(random, 30)) {
    timespec now{};
    ::clock_gettime(clock, &now);
    timer.it_value.tv_sec += now.tv_sec;
    flags = TFD_TIMER_ABSTIME | (chance(random, 30) ? TFD_TIMER_CANCEL_ON_SET : 0);
  } else if (chance(random, 30)) {
    timer.it_value = {0, 1000};  // It has ended, and nobody has read it.
    timer.it_interval.tv_sec = 100'000;
  }
  return chance(random, 20) || ::timerfd_settime(fd, flags, &timer, nullptr) == 0;
}

bool make_signal_descriptor(Random& random) {
  sigset_t set;
  sigemptyset(&set);
  for (int i = 0; i < 3; ++i) {
    sigaddset(&set, static_cast<int>(1 + random.below(64)));
  }
  return ::signalfd(-1, &set, chance(random, 50) ? SFD_NONBLOCK | SFD_CLOEXEC : 0) >= 0;
}

bool make_watch_set(Random& random) {
  const int set = ::epoll_create1(chance(random, 50) ? EPOLL_CLOEXEC : 0);
  constexpr int kEvents[] = {EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP};
  for (std::uint64_t count = random.below(5); count > 0; --count) {
    Ends ends{};
    ::pipe(ends.data());
    const int event = ::eventfd(0, 0);
    const int nested = ::epoll_create1(0);
    const int targets[] = {ends[0], ends[1], event, nested};
    epoll_event wish{};
    wish.events = static_cast<std::uint32_t>(some_of(random, kEvents));
    if (chance(random, 30)) {
      wish.events |= static_cast<std::uint32_t>(EPOLLET);
    } else if (chance(random, 20)) {
      wish.events |= EPOLLONESHOT;
    }
    wish.data.u64 = random.next();
    ::epoll_ctl(set, EPOLL_CTL_ADD, one_of(random, targets), &wish);
    if (chance(random, 10)) {
      epoll_event happened{};
      ::epoll_wait(set, &happened, 1, 0);
    }
  }
  return set >= 0;
}

/// A watch of a file that is open under that number no more.
bool make_stale_watch(Random& random) {
  const int set = ::epoll_create1(0);
  const int event = ::eventfd(0, 0);
  const int copy = ::dup(event);
  epoll_event wish{};
  wish.events = EPOLLIN;
  const bool added = ::epoll_ctl(set, EPOLL_CTL_ADD, event, &wish) == 0;
  ::close(event);
  if (chance(random, 50)) {
    ::dup2(STDOUT_FILENO, event);
  }
  return added && copy >= 0;
}

bool own_descriptor(Random& random) {
  Ends ends{};
  if (::pipe(ends.data()) != 0) {
    return false;
  }
  f_owner_ex owner{};
  owner.type = static_cast<__pid_type>(random.below(3));
  owner.pid = chance(random, 70) ? ::getpid() : 0;
  const bool owned = ::fcntl(ends[0], F_SETOWN_EX, &owner) == 0;
  return (chance(random, 50) || ::fcntl(ends[0], F_SETSIG, 40) == 0) && owned;
}

bool signal_readiness(Random& /*random*/) {
  Ends ends{};
  struct sigaction action {};
  action.sa_handler = SIG_IGN;
  ::sigaction(SIGIO, &action, nullptr);
  return ::pipe(ends.data()) == 0 && ::fcntl(ends[0], F_SETFL, O_ASYNC) == 0;
}

bool make_pid_descriptor(Random& random) {
  return ::syscall(SYS_pidfd_open, chance(random, 50) ? ::getpid() : ::getppid(), 0) >= 0;
}

bool make_ring(Random& /*random*/) {
  io_uring_params parameters{};
  return ::syscall(SYS_io_uring_setup, 4, &parameters) >= 0;
}

bool make_asynchronous_io(Random& /*random*/) {
  static aio_context_t context = 0;
  return ::syscall(SYS_io_setup, 8, &context) == 0;
}

/// Both sides of a pseudo-terminal, or its master alone.
bool make_terminal(Random& random) {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY | (chance(random, 40) ? O_CLOEXEC : 0));
  const int unlocked = 0;
  if (master < 0 || ::ioctl(master, TIOCSPTLCK, &unlocked) != 0) {
    return false;
  }
  const int slave =
      ::ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | (chance(random, 30) ? O_NONBLOCK : 0));
  termios modes{};
  ::tcgetattr(slave, &modes);
  constexpr int kLocal[] = {ECHO, ICANON, ISIG, IEXTEN, ECHOCTL, TOSTOP, NOFLSH};
  constexpr int kInput[] = {ICRNL, IXON, IXANY, INLCR, IUTF8, BRKINT};
  constexpr int kOutput[] = {OPOST, ONLCR};
  if (chance(random, 50)) {
    modes.c_lflag = static_cast<tcflag_t>(some_of(random, kLocal));
    modes.c_iflag = static_cast<tcflag_t>(some_of(random, kInput));
    modes.c_oflag = static_cast<tcflag_t>(some_of(random, kOutput));
    modes.c_cc[VKILL] = static_cast<cc_t>(random.below(30));
    ::tcsetattr(slave, TCSANOW, &modes);
  }
  const winsize size{static_cast<std::uint16_t>(random.below(100)),
                     static_cast<std::uint16_t>(random.below(300)), 0, 7};
  ::ioctl(slave, TIOCSWINSZ, &size);
  constexpr const char* kTyped[] = {"", "line\n", "line\npart", "part", "end\4", "\4", "a\nb\nc\n"};
  const std::string typed = one_of(random, kTyped);
  const std::string said = chance(random, 50) ? "said\n" : std::string(random.below(9000), 's');
  static_cast<void>(::write(master, typed.data(), typed.size()));
  static_cast<void>(::write(slave, said.data(), said.size()));
  if (chance(random, 15)) {
    ::ioctl(slave, TIOCSCTTY, 0);
  }
  if (chance(random, 15)) {
    int waiting = 0;
    count_when_settled(master, waiting);  // Echo that is stopped comes with a move.
    ::ioctl(slave, TCXONC, TCOOFF);
  }
  const int packets = chance(random, 20) ? 1 : 0;
  ::ioctl(master, TIOCPKT, &packets);
  if (chance(random, 30)) {
    ::fchmod(slave, 0640);
  }
  if (chance(random, 20)) {
    ::close(slave);
  } else if (chance(random, 20)) {
    ::open(("/proc/self/fd/" + std::to_string(slave)).c_str(), O_RDONLY | O_NOCTTY);
  }
  return true;
}

bool make_userfault(Random& /*random*/) {
  return ::syscall(SYS_userfaultfd, O_CLOEXEC) >= 0;
}

bool make_counter(Random& /*random*/) {
  perf_event_attr attributes{};
  attributes.size = sizeof attributes;
  attributes.type = PERF_TYPE_SOFTWARE;
  attributes.config = PERF_COUNT_SW_TASK_CLOCK;
  return ::syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0) >= 0;
}

bool make_kernel_map(Random& /*random*/) {
  bpf_attr attributes{};
  attributes.map_type = BPF_MAP_TYPE_ARRAY;
  attributes.key_size = 4;
  attributes.value_size = 4;
  attributes.max_entries = 1;
  return ::syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes) >= 0;
}

bool make_file_notes(Random& /*random*/) {
  return ::fanotify_init(FAN_CLASS_NOTIF, O_RDONLY) >= 0;
}

bool make_ruleset(Random& random) {
  const std::uint64_t handled_access = 1;
  const long fd = ::syscall(SYS_landlock_create_ruleset, &handled_access, sizeof handled_access, 0);
  if (fd >= 0 && chance(random, 30)) {
    ::close(static_cast<int>(fd));
  }
  return fd >= 0;
}

bool make_queue(Random& random) {
  const std::string name = "/pairs-" + std::to_string(::getpid());
  const mqd_t queue = ::mq_open(name.c_str(), O_RDWR | O_CREAT, 0600, nullptr);
  ::mq_unlink(name.c_str());
  if (queue >= 0 && chance(random, 30)) {
    ::mq_close(queue);
  }
  return queue >= 0;
}

bool make_system_v_memory(Random& random) {
  const int id = ::shmget(IPC_PRIVATE, 8192, IPC_CREAT | 0600);
  if (id < 0) {
    return false;
  }
  const bool attached = chance(random, 60);
  if (attached) {
    ::shmat(id, nullptr, 0);
  }
  if (attached && chance(random, 60)) {
    return ::shmctl(id, IPC_RMID, nullptr) == 0;
  }
  at_end([](int number) { ::shmctl(number, IPC_RMID, nullptr); }, id);
  return true;
}

bool make_system_v_queue(Random& random) {
  const int id = ::msgget(IPC_PRIVATE, IPC_CREAT | 0600);
  struct {
    long type = 1;
    char text[8] = "message";
  } message;
  if (id < 0) {
    return false;
  }
  ::msgsnd(id, &message, sizeof message.text, 0);
  if (chance(random, 30)) {
    return ::msgctl(id, IPC_RMID, nullptr) == 0;
  }
  at_end([](int number) { ::msgctl(number, IPC_RMID, nullptr); }, id);
  return true;
}

constexpr Step kObjectsSteps[] = {
    {"pipe", false, make_pipe},
    {"packet_pipe", true, make_packet_pipe},
    {"outsider", true, share_with_outsider},
    {"socket_pair", false, make_socket_pair},
    {"sent_descriptor", true, send_descriptor},
    {"socket", true, make_other_socket},
    {"event", false, make_event},
    {"timer_descriptor", false, make_timer_descriptor},
    {"signal_descriptor", false, make_signal_descriptor},
    {"epoll", false, make_watch_set},
    {"stale_watch", true, make_stale_watch},
    {"owned", false, own_descriptor},
    {"asynchronous", true, signal_readiness},
    {"pid_descriptor", true, make_pid_descriptor},
    {"ring", true, make_ring},
    {"asynchronous_io", true, make_asynchronous_io},
    {"terminal", false, make_terminal},
    {"userfault", true, make_userfault},
    {"counter", true, make_counter},
    {"kernel_map", true, make_kernel_map},
    {"file_notes", true, make_file_notes},
    {"ruleset", true, make_ruleset},
    {"queue", true, make_queue},
    {"system_v_memory", true, make_system_v_memory},
    {"system_v_queue", true, make_system_v_queue},
};

}  // namespace

std::span<const Step> object_steps() {
  return kObjectsSteps;
}

}  // namespace pairs
