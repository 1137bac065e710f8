// What the floors share.

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "floor.h"

namespace floors {
namespace {

sockaddr_in address_of(const Server& server) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(server.port)));
  if (::inet_pton(AF_INET, server.host, &address.sin_addr) != 1) {
    die("read an IPv4 address");
  }
  return address;
}

void set_no_delay(int socket) {
  const int one = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

cpu_set_t given_processors() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) {
    die("sched_getaffinity");
  }
  return set;
}

// Of before anybody was placed.
const cpu_set_t all_processors = given_processors();

void answer(int socket) {
  Hello hello;
  if (!receive(socket, &hello, sizeof(hello))) {
    return;
  }
  run_on(hello.processor);
  switch (hello.kind) {
    case Kind::kPages:
      return serve_pages(socket, hello);
    case Kind::kStream:
    case Kind::kCopied:
      return serve_stream(socket, hello);
    case Kind::kFreeze:
      return serve_freezes(socket, hello);
  }
}

}  // namespace

const char* name_of(Way way) {
  switch (way) {
    case Way::kBlocking:
      return "blocking";
    case Way::kPolling:
      return "polling";
    case Way::kYielding:
      return "yielding";
  }
  return "";
}

void die(const char* what) {
  std::fprintf(stderr, "floor: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

std::int64_t now_ns() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

int processor_count() {
  return CPU_COUNT(&all_processors);
}

void run_on(int processor) {
  cpu_set_t set = all_processors;
  if (processor >= 0) {
    int seen = 0;
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &all_processors) && seen++ == processor) {
        CPU_ZERO(&set);
        CPU_SET(i, &set);
      }
    }
  }
  ::sched_setaffinity(0, sizeof(set), &set);
}

void give_way(Way way) {
  if (way == Way::kYielding) {
    ::sched_yield();
  }
}

bool receive(int socket, void* bytes, std::size_t length, Way way) {
  char* at = static_cast<char*>(bytes);
  while (length > 0) {
    const ssize_t count = ::recv(socket, at, length, way == Way::kBlocking ? 0 : MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
      give_way(way);
      continue;
    }
    if (count <= 0) {
      return false;
    }
    at += count;
    length -= static_cast<std::size_t>(count);
  }
  return true;
}

void send_all(int socket, const void* bytes, std::size_t length) {
  const char* at = static_cast<const char*>(bytes);
  while (length > 0) {
    const ssize_t count = ::send(socket, at, length, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      die("send");
    }
    at += count;
    length -= static_cast<std::size_t>(count);
  }
}

int connect_to(const Server& server, const Hello& hello) {
  const sockaddr_in address = address_of(server);
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    die("connect");
  }
  set_no_delay(socket);
  send_all(socket, &hello, sizeof(hello));
  return socket;
}

void serve(const char* port) {
  const sockaddr_in address = address_of({"0.0.0.0", port});
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = 1;
  ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(listener, 8) != 0) {
    die("listen");
  }
  ::signal(SIGCHLD, SIG_IGN);
  std::puts("ready");
  std::fflush(stdout);
  for (;;) {
    const int socket = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) {
      continue;
    }
    set_no_delay(socket);
    start([&] {
      ::signal(SIGCHLD, SIG_DFL);
      ::close(listener);
      answer(socket);
    });
    ::close(socket);
  }
}

pid_t start(const std::function<void()>& body) {
  const pid_t child = ::fork();
  if (child < 0) {
    die("fork");
  }
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    // Of a session of its own, as each process of the engine: where the kernel groups tasks by
    // session (CONFIG_SCHED_AUTOGROUP), sched_yield() lets no other one run.
    ::setsid();
    body();
    ::_exit(0);
  }
  return child;
}

void end(pid_t child) {
  ::kill(child, SIGKILL);
  while (::waitpid(child, nullptr, __WALL) < 0 && errno == EINTR) {
  }
}

void* map_private(std::size_t bytes, int more_flags) {
  void* const start = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | more_flags, -1, 0);
  if (start == MAP_FAILED) {
    die("map memory");
  }
  return start;
}

void* map_shared(std::size_t bytes) {
  void* const start = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (start == MAP_FAILED) {
    die("map memory");
  }
  return start;
}

FilledChild::FilledChild(std::size_t bytes, const std::function<void(volatile char*)>& body) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
    die("socketpair");
  }
  filled_.child = floors::start([&] {
    const int userfault = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
    uffdio_api api{};
    api.api = UFFD_API;
    void* const memory = map_private(bytes);
    uffdio_register area{};
    area.range = {reinterpret_cast<std::uint64_t>(memory), bytes};
    area.mode = UFFDIO_REGISTER_MODE_MISSING;
    if (userfault < 0 || ::ioctl(userfault, UFFDIO_API, &api) != 0 ||
        ::ioctl(userfault, UFFDIO_REGISTER, &area) != 0) {
      die("userfaultfd");
    }
    const std::uint64_t told[2] = {static_cast<std::uint64_t>(userfault), area.range.start};
    send_all(pair[1], told, sizeof(told));
    char go = 0;
    if (receive(pair[1], &go, 1)) {
      body(static_cast<volatile char*>(memory));
      send_all(pair[1], &go, 1);
      receive(pair[1], &go, 1);
    }
  });
  ::close(pair[1]);
  to_child_ = pair[0];
  std::uint64_t told[2];
  const int process = static_cast<int>(::syscall(SYS_pidfd_open, filled_.child, 0));
  if (process < 0 || !receive(to_child_, told, sizeof(told))) {
    die("start the process that is filled");
  }
  filled_.userfault =
      static_cast<int>(::syscall(SYS_pidfd_getfd, process, static_cast<int>(told[0]), 0));
  filled_.start = told[1];
  ::close(process);
  if (filled_.userfault < 0) {
    die("take the userfaultfd");
  }
}

FilledChild::~FilledChild() {
  ::close(to_child_);
  floors::end(filled_.child);
  ::close(filled_.userfault);
}

void FilledChild::go() {
  send_all(to_child_, "g", 1);
}

void copy_in(int userfault, std::uint64_t to, const void* from, std::size_t bytes) {
  uffdio_copy copy{};
  copy.dst = to;
  copy.src = reinterpret_cast<std::uint64_t>(from);
  copy.len = bytes;
  if (::ioctl(userfault, UFFDIO_COPY, &copy) != 0) {
    die("UFFDIO_COPY");
  }
}

double quantile_us(std::vector<std::int64_t>& times_ns, double share) {
  if (times_ns.empty()) {
    return 0;
  }
  std::sort(times_ns.begin(), times_ns.end());
  const auto index = static_cast<std::size_t>(share * static_cast<double>(times_ns.size() - 1));
  return static_cast<double>(times_ns[index]) / 1000;
}

}  // namespace floors
