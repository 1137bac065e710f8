// The floors that the benchmarks compare with: what the machine does with the least code.
//
//   floor serve PORT                      answers until it is killed; prints "ready"
//   floor round-trip ADDRESS PORT COUNT   24 bytes there, 4096 back
//   floor fault COUNT                     userfaultfd faults served by a second thread
//   floor stream ADDRESS PORT BYTES       sends so many bytes of touched memory
// Each but serve prints one JSON object. Those that can are measured both ways: sleeping until
// something is there (blocking), and asking again and again (polling).

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string_view>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kRequestBytes = 24;
constexpr std::size_t kStreamBuffer = 1U << 20U;
constexpr char kBlocking = 'b';
constexpr char kPolling = 'p';
constexpr char kStream = 's';

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "floor: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

std::int64_t now_ns() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

/// Receives exactly `length` bytes; false at the end of the stream.
bool receive(int socket, char* bytes, std::size_t length, bool polling) {
  while (length > 0) {
    const ssize_t count = ::recv(socket, bytes, length, polling ? MSG_DONTWAIT : 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
      continue;
    }
    if (count <= 0) {
      return false;
    }
    bytes += count;
    length -= static_cast<std::size_t>(count);
  }
  return true;
}

void send_all(int socket, const char* bytes, std::size_t length) {
  while (length > 0) {
    const ssize_t count = ::send(socket, bytes, length, MSG_NOSIGNAL);
    if (count < 0) {
      if (errno == EINTR) {
        continue;
      }
      die("send");
    }
    bytes += count;
    length -= static_cast<std::size_t>(count);
  }
}

void set_no_delay(int socket) {
  const int one = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

sockaddr_in address_of(const char* host, const char* port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port)));
  if (::inet_pton(AF_INET, host, &address.sin_addr) != 1) {
    die("read an IPv4 address");
  }
  return address;
}

int connect_to(const char* host, const char* port, char kind) {
  const sockaddr_in address = address_of(host, port);
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    die("connect");
  }
  set_no_delay(socket);
  send_all(socket, &kind, 1);
  return socket;
}

void answer(int socket) {
  char kind = 0;
  std::vector<char> buffer(kStreamBuffer, 'x');
  if (!receive(socket, &kind, 1, false)) {
    return;
  }
  if (kind == kStream) {
    std::uint64_t left = 0;
    if (!receive(socket, reinterpret_cast<char*>(&left), sizeof(left), false)) {
      return;
    }
    while (left > 0) {
      const ssize_t count =
          ::recv(socket, buffer.data(), std::min<std::uint64_t>(buffer.size(), left), 0);
      if (count <= 0) {
        return;
      }
      left -= static_cast<std::uint64_t>(count);
    }
    send_all(socket, &kind, 1);
    return;
  }
  while (receive(socket, buffer.data(), kRequestBytes, kind == kPolling)) {
    send_all(socket, buffer.data(), kPageBytes);
  }
}

[[noreturn]] void serve(const char* port) {
  const sockaddr_in address = address_of("0.0.0.0", port);
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = 1;
  ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(listener, 1) != 0) {
    die("listen");
  }
  std::puts("ready");
  std::fflush(stdout);
  for (;;) {
    const int socket = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) {
      continue;
    }
    set_no_delay(socket);
    answer(socket);
    ::close(socket);
  }
}

double median_us(std::vector<std::int64_t>& times_ns) {
  const auto middle = times_ns.begin() + static_cast<std::ptrdiff_t>(times_ns.size() / 2);
  std::nth_element(times_ns.begin(), middle, times_ns.end());
  return static_cast<double>(*middle) / 1000;
}

void print(double blocking_us, double polling_us) {
  std::printf("{\"blocking_p50_us\": %.1f, \"polling_p50_us\": %.1f, \"p50_us\": %.1f}\n",
              blocking_us, polling_us, std::min(blocking_us, polling_us));
}

double round_trip(const char* host, const char* port, std::size_t count, bool polling) {
  const int socket = connect_to(host, port, polling ? kPolling : kBlocking);
  std::vector<char> page(kPageBytes);
  std::vector<std::int64_t> times(count);
  for (std::int64_t& time : times) {
    const std::int64_t start = now_ns();
    send_all(socket, page.data(), kRequestBytes);
    if (!receive(socket, page.data(), kPageBytes, polling)) {
      die("receive a page");
    }
    time = now_ns() - start;
  }
  ::close(socket);
  return median_us(times);
}

void serve_faults(int userfault, std::size_t count, bool polling) {
  alignas(kPageBytes) static char page[kPageBytes];
  std::memset(page, 1, sizeof(page));
  while (count > 0) {
    uffd_msg message{};
    if (!polling) {
      pollfd readable{userfault, POLLIN, 0};
      ::poll(&readable, 1, -1);
    }
    if (::read(userfault, &message, sizeof(message)) != sizeof(message)) {
      continue;
    }
    uffdio_copy copy{};
    copy.dst = message.arg.pagefault.address & ~(kPageBytes - 1);
    copy.src = reinterpret_cast<std::uint64_t>(page);
    copy.len = kPageBytes;
    if (::ioctl(userfault, UFFDIO_COPY, &copy) != 0) {
      die("UFFDIO_COPY");
    }
    --count;
  }
}

double fault(std::size_t count, bool polling) {
  const int userfault = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
  uffdio_api api{};
  api.api = UFFD_API;
  if (userfault < 0 || ::ioctl(userfault, UFFDIO_API, &api) != 0) {
    die("userfaultfd");
  }
  const std::size_t length = count * kPageBytes;
  void* const memory =
      ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  uffdio_register area{};
  area.range = {reinterpret_cast<std::uint64_t>(memory), length};
  area.mode = UFFDIO_REGISTER_MODE_MISSING;
  if (memory == MAP_FAILED || ::ioctl(userfault, UFFDIO_REGISTER, &area) != 0) {
    die("register memory");
  }
  std::thread server(serve_faults, userfault, count, polling);
  std::vector<std::int64_t> times(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t start = now_ns();
    static_cast<void>(*(static_cast<volatile char*>(memory) + i * kPageBytes));
    times[i] = now_ns() - start;
  }
  server.join();
  ::munmap(memory, length);
  ::close(userfault);
  return median_us(times);
}

void stream(const char* host, const char* port, std::uint64_t bytes) {
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) {
    die("map memory");
  }
  std::memset(memory, 1, bytes);
  const int socket = connect_to(host, port, kStream);
  const std::int64_t start = now_ns();
  send_all(socket, reinterpret_cast<const char*>(&bytes), sizeof(bytes));
  for (std::uint64_t sent = 0; sent < bytes; sent += kStreamBuffer) {
    send_all(socket, static_cast<const char*>(memory) + sent,
             std::min<std::uint64_t>(kStreamBuffer, bytes - sent));
  }
  char end = 0;
  if (!receive(socket, &end, 1, false)) {
    die("receive the end of the stream");
  }
  const double seconds = static_cast<double>(now_ns() - start) / 1e9;
  std::printf("{\"bytes\": %llu, \"seconds\": %.6f}\n", static_cast<unsigned long long>(bytes),
              seconds);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view what = argc > 2 ? argv[1] : "";
  if (what == "serve" && argc == 3) {
    serve(argv[2]);
  } else if (what == "round-trip" && argc == 5) {
    const std::size_t count = std::strtoull(argv[4], nullptr, 10);
    const double blocking = round_trip(argv[2], argv[3], count, false);
    print(blocking, round_trip(argv[2], argv[3], count, true));
  } else if (what == "fault" && argc == 3) {
    const std::size_t count = std::strtoull(argv[2], nullptr, 10);
    const double blocking = fault(count, false);
    print(blocking, fault(count, true));
  } else if (what == "stream" && argc == 5) {
    stream(argv[2], argv[3], std::strtoull(argv[4], nullptr, 10));
  } else {
    std::fprintf(stderr,
                 "usage: floor serve PORT | round-trip ADDRESS PORT COUNT | fault COUNT |\n"
                 "       stream ADDRESS PORT BYTES\n");
    return 2;
  }
  return 0;
}
