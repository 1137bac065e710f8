// Descriptors that are no files: pipes, counters, timers, signals, memory, and who watches them.
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/programs/check.h"

namespace {

using check::called;
using check::stopping;

/// Always some numbers inside the pipe, its size and flags as set, two descriptors on one end.
void pipe() {
  std::array<int, 2> ends{};
  called(::pipe2(ends.data(), O_NONBLOCK | O_CLOEXEC), "pipe2");
  const int capacity = called(::fcntl(ends[1], F_SETPIPE_SZ, 1 << 18), "fcntl(F_SETPIPE_SZ)");
  const int second = called(::dup(ends[1]), "dup");
  check::Random random(1);
  std::uint64_t written = 0;
  std::uint64_t read = 0;
  check::ready();
  while (!stopping()) {
    while (written - read < 1000 + random.below(20'000)) {
      CHECK_EQUAL(::write(written % 2 == 0 ? ends[1] : second, &written, 8), 8);
      ++written;
    }
    check::sleep_ns(5 * check::kMillisecond);
    while (written - read > random.below(1000)) {
      std::uint64_t number = 0;
      CHECK_EQUAL(::read(ends[0], &number, 8), 8);
      CHECK_EQUAL(number, read);
      ++read;
    }
    CHECK_EQUAL(::fcntl(ends[0], F_GETPIPE_SZ), capacity);
    CHECK_EQUAL(::fcntl(ends[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    CHECK_EQUAL(::fcntl(ends[0], F_GETFD), FD_CLOEXEC);
  }
}

void eventfd() {
  const int plain = called(::eventfd(0, EFD_NONBLOCK), "eventfd");
  const int semaphore = called(::eventfd(0, EFD_NONBLOCK | EFD_SEMAPHORE), "eventfd");
  check::Random random(2);
  check::ready();
  while (!stopping()) {
    const std::uint64_t amount = 1 + random.below(20);
    CHECK_EQUAL(::write(plain, &amount, 8), 8);
    CHECK_EQUAL(::write(semaphore, &amount, 8), 8);
    check::sleep_ns(10 * check::kMillisecond);
    std::uint64_t value = 0;
    CHECK_EQUAL(::read(plain, &value, 8), 8);
    CHECK_EQUAL(value, amount);
    for (std::uint64_t count = 0; count < amount; ++count) {
      CHECK_EQUAL(::read(semaphore, &value, 8), 8);
      CHECK_EQUAL(value, 1U);
    }
    CHECK(::read(plain, &value, 8) == -1 && errno == EAGAIN);
    CHECK(::read(semaphore, &value, 8) == -1 && errno == EAGAIN);
  }
}

void watch(int epoll, int fd, std::uint32_t events, std::uint64_t data) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  called(::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

constexpr std::uint64_t kEventData = 0xABCD'0000'1111'2222;
constexpr std::uint64_t kPipeData = 0xFFFF'0000'3333'4444;
constexpr std::uint64_t kTimerData = 7;

/// What `epoll` reports now, as a sum of the data of its events.
std::uint64_t reported(int epoll, int timeout_ms) {
  std::array<epoll_event, 8> events{};
  const int count = ::epoll_wait(epoll, events.data(), events.size(), timeout_ms);
  if (count < 0 && errno == EINTR) {
    return reported(epoll, timeout_ms);  // As the kernel would; `waits epoll` is the strict one.
  }
  std::uint64_t sum = 0;
  for (int index = 0; index < called(count, "epoll_wait"); ++index) {
    sum += events[static_cast<std::size_t>(index)].data.u64;
  }
  return sum;
}

void epoll() {
  const int event = called(::eventfd(0, EFD_NONBLOCK), "eventfd");
  std::array<int, 2> ends{};
  called(::pipe(ends.data()), "pipe");
  const int timer = called(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), "timerfd_create");
  const int epoll = called(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  watch(epoll, event, EPOLLIN, kEventData);
  watch(epoll, ends[0], EPOLLIN | EPOLLRDHUP, kPipeData);
  watch(epoll, timer, EPOLLIN, kTimerData);
  check::ready();
  while (!stopping()) {
    CHECK_EQUAL(reported(epoll, 5), 0U);
    std::uint64_t value = 3;
    CHECK_EQUAL(::write(event, &value, 8), 8);
    check::sleep_ns(10 * check::kMillisecond);
    CHECK_EQUAL(reported(epoll, 0), kEventData);
    CHECK_EQUAL(::write(ends[1], "x", 1), 1);
    check::sleep_ns(10 * check::kMillisecond);
    CHECK_EQUAL(reported(epoll, 0), kEventData + kPipeData);
    CHECK_EQUAL(::read(event, &value, 8), 8);
    CHECK_EQUAL(value, 3U);
    CHECK_EQUAL(::read(ends[0], &value, 1), 1);
    const itimerspec soon{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_nsec = 20'000'000}};
    called(::timerfd_settime(timer, 0, &soon, nullptr), "timerfd_settime");
    CHECK_EQUAL(reported(epoll, 5000), kTimerData);
    CHECK_EQUAL(::read(timer, &value, 8), 8);
  }
}

constexpr std::int64_t kInterval = 20 * check::kMillisecond;

void timerfd() {
  const int timer = called(::timerfd_create(CLOCK_MONOTONIC, 0), "timerfd_create");
  const int far = called(::timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK), "timerfd_create");
  const timespec interval = check::to_timespec(kInterval);
  const std::int64_t begin = check::now_ns();
  const itimerspec setting{.it_interval = interval, .it_value = interval};
  called(::timerfd_settime(timer, 0, &setting, nullptr), "timerfd_settime");
  const itimerspec late{
      .it_interval = {},
      .it_value = check::to_timespec(check::now_ns(CLOCK_BOOTTIME) + 3600 * check::kSecond)};
  called(::timerfd_settime(far, TFD_TIMER_ABSTIME, &late, nullptr), "timerfd_settime");
  std::int64_t ticks = 0;
  check::ready();
  while (!stopping()) {
    std::uint64_t count = 0;
    const ssize_t got = ::read(timer, &count, 8);
    CHECK(got == 8);
    ticks += static_cast<std::int64_t>(count);
    itimerspec now{};
    called(::timerfd_gettime(timer, &now), "timerfd_gettime");
    CHECK_EQUAL(check::to_ns(now.it_interval), kInterval);
    called(::timerfd_gettime(far, &now), "timerfd_gettime");
    const std::int64_t rest = check::to_ns(now.it_value) + check::now_ns() - begin;
    CHECK(rest > 3599 * check::kSecond && rest < 3601 * check::kSecond);
    check::sleep_ns(static_cast<std::int64_t>(count) % 3 * kInterval);  // Ticks gather at times.
  }
  const std::int64_t most = (check::now_ns() - begin) / kInterval + 2;
  if (ticks > most || ticks < most / 2) {
    check::fail("%lld ticks, where %lld were due", static_cast<long long>(ticks),
                static_cast<long long>(most));
  }
}

/// A timer that nobody looks at in all the time.
void timerfd_unread() {
  const int timer = called(::timerfd_create(CLOCK_MONOTONIC, 0), "timerfd_create");
  const std::int64_t begin = check::now_ns();
  const timespec interval = check::to_timespec(check::kMillisecond);
  const itimerspec setting{.it_interval = interval, .it_value = interval};
  called(::timerfd_settime(timer, 0, &setting, nullptr), "timerfd_settime");
  check::ready();
  while (!stopping()) {
    check::sleep_ns(kInterval);
  }
  std::int64_t ticks = 0;
  CHECK_EQUAL(::read(timer, &ticks, 8), 8);
  const std::int64_t most = (check::now_ns() - begin) / check::kMillisecond + 2;
  if (ticks > most || ticks < most / 2) {
    check::fail("%lld ticks, where %lld were due", static_cast<long long>(ticks),
                static_cast<long long>(most));
  }
}

void signalfd() {
  sigset_t wanted{};
  sigemptyset(&wanted);
  sigaddset(&wanted, SIGRTMIN);
  sigprocmask(SIG_BLOCK, &wanted, nullptr);
  const int fd = called(::signalfd(-1, &wanted, SFD_NONBLOCK), "signalfd");
  check::ready();
  for (int base = 0; !stopping(); base += 5) {
    for (int index = 0; index < 5; ++index) {
      called(::sigqueue(::getpid(), SIGRTMIN, {.sival_int = base + index}), "sigqueue");
    }
    check::sleep_ns(10 * check::kMillisecond);
    for (int index = 0; index < 5; ++index) {
      signalfd_siginfo info{};
      CHECK_EQUAL(::read(fd, &info, sizeof info), static_cast<ssize_t>(sizeof info));
      CHECK_EQUAL(info.ssi_signo, static_cast<std::uint32_t>(SIGRTMIN));
      CHECK_EQUAL(info.ssi_int, base + index);
      CHECK_EQUAL(info.ssi_pid, static_cast<std::uint32_t>(::getpid()));
    }
    std::array<char, 128> rest{};
    CHECK(::read(fd, rest.data(), rest.size()) == -1 && errno == EAGAIN);
  }
}

/// Read and written, and mapped as well; the two ways must see the same bytes.
void memfd() {
  constexpr std::size_t kBytes = 8U << 20U;
  const int fd = called(::memfd_create("some name", MFD_ALLOW_SEALING), "memfd_create");
  called(::ftruncate(fd, kBytes), "ftruncate");
  called(::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), "fcntl(F_ADD_SEALS)");
  auto* memory = static_cast<std::uint64_t*>(
      check::map_memory(kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd));
  check::Random random(4);
  for (std::uint64_t index = 0; index < kBytes / 8; index += 2) {
    memory[index] = index;
  }
  check::ready();
  while (!stopping()) {
    const std::uint64_t index = random.below(kBytes / 8);
    const auto position = static_cast<off_t>(index * 8);
    std::uint64_t value = 0;
    CHECK_EQUAL(::pread(fd, &value, 8, position), 8);
    CHECK_EQUAL(value, memory[index]);
    CHECK(value == index || value == ~index || value == 0);
    value = ~index;
    CHECK_EQUAL(::pwrite(fd, &value, 8, position), 8);
    CHECK_EQUAL(memory[index], value);
    memory[index] = index;
    CHECK_EQUAL(::lseek(fd, position, SEEK_SET), position);
    check::sleep_ns(check::kMillisecond / 10);
    CHECK_EQUAL(::lseek(fd, 0, SEEK_CUR), position);
    CHECK_EQUAL(::fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK);
  }
  struct stat status {};
  called(::fstat(fd, &status), "fstat");
  CHECK_EQUAL(static_cast<std::size_t>(status.st_size), kBytes);
}

std::string rights_of(int fd) {
  struct stat status {};
  called(::fstat(fd, &status), "fstat");
  std::ostringstream text;
  text << std::oct << (status.st_mode & 07777U) << std::dec << " " << status.st_uid << " "
       << status.st_gid;
  return text.str();
}

/// Whose a memory file is, and what he and others may do with it.
void memfd_rights() {
  const int fd = called(::memfd_create("rights", 0), "memfd_create");
  called(::fchmod(fd, 0640), "fchmod");
  called(::fchown(fd, 1, 2), "fchown");
  const std::string expected = rights_of(fd);
  check::ready();
  while (!stopping()) {
    CHECK_EQUAL(rights_of(fd), expected);
    check::sleep_ns(check::kMillisecond);
  }
}

/// A program in a memory file, which is run at the end.
void memfd_program() {
  const int fd = called(::memfd_create("program", 0), "memfd_create");
  const std::string program = check::read_text("/bin/true");
  CHECK_EQUAL(::write(fd, program.data(), program.size()), static_cast<ssize_t>(program.size()));
  called(::fchmod(fd, 0755), "fchmod");
  check::ready();
  while (!stopping()) {
    check::sleep_ns(check::kMillisecond);
  }
  const pid_t child = called(::fork(), "fork");
  if (child == 0) {
    std::string name = "true";
    std::array<char*, 2> arguments{name.data(), nullptr};
    ::fexecve(fd, arguments.data(), environ);
    ::_exit(errno);
  }
  int status = 0;
  CHECK_EQUAL(called(::waitpid(child, &status, 0), "waitpid"), child);
  CHECK_EQUAL(status, 0);
}

/// Sealed against writing, and mapped for reading only.
void memfd_sealed() {
  constexpr std::size_t kBytes = 64U << 10U;
  constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
  const int fd = called(::memfd_create("sealed", MFD_ALLOW_SEALING), "memfd_create");
  const std::string text(kBytes, 's');
  CHECK_EQUAL(::write(fd, text.data(), kBytes), static_cast<ssize_t>(kBytes));
  called(::fcntl(fd, F_ADD_SEALS, kSeals), "fcntl(F_ADD_SEALS)");
  const std::string name = "/proc/self/fd/" + std::to_string(fd);
  const int reader = called(::open(name.c_str(), O_RDONLY), "open");
  auto* memory = static_cast<char*>(check::map_memory(kBytes, PROT_READ, MAP_SHARED, reader));
  called(::close(reader), "close");
  check::ready();
  while (!stopping()) {
    CHECK(std::equal(text.begin(), text.end(), memory));
    CHECK_EQUAL(::fcntl(fd, F_GET_SEALS), kSeals);
    CHECK(::pwrite(fd, "x", 1, 0) == -1 && errno == EPERM);
    CHECK(::mprotect(memory, kBytes, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
    check::sleep_ns(check::kMillisecond);
  }
}

/// A pipe within a user's process, which he may open again by its name.
void own_pipe() {
  constexpr uid_t kNobody = 65534;
  called(::setresgid(kNobody, kNobody, kNobody), "setresgid");
  called(::setresuid(kNobody, kNobody, kNobody), "setresuid");
  called(::prctl(PR_SET_DUMPABLE, 1), "prctl(PR_SET_DUMPABLE)");
  std::array<int, 2> ends{};
  called(::pipe(ends.data()), "pipe");
  const std::string expected = rights_of(ends[0]);
  const std::string name = "/proc/self/fd/" + std::to_string(ends[1]);
  check::ready();
  do {
    CHECK_EQUAL(rights_of(ends[0]), expected);
    const int again = called(::open(name.c_str(), O_WRONLY), "open");
    CHECK_EQUAL(::write(again, "x", 1), 1);
    char got = 0;
    CHECK_EQUAL(::read(ends[0], &got, 1), 1);
    called(::close(again), "close");
    check::sleep_ns(2 * check::kMillisecond);
  } while (!stopping());
}

/// The heap of a Java virtual machine (ZGC): far more than fits into an image, in a file of
/// terabytes that is mapped three times and stays open. What one mapping writes, all of them and
/// the descriptor read.
void memfd_heap() {
  constexpr std::size_t kHeap = std::size_t{160} << 20U;
  constexpr std::size_t kPage = 4096;
  constexpr off_t kFar = off_t{1} << 40;
  const int fd = called(::memfd_create("heap", MFD_CLOEXEC), "memfd_create");
  called(::ftruncate(fd, 2 * kFar), "ftruncate");
  std::array<std::uint64_t*, 3> views{};
  for (auto& view : views) {
    void* const memory =
        ::mmap(nullptr, kHeap, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, kFar);
    CHECK(memory != MAP_FAILED);
    view = static_cast<std::uint64_t*>(memory);
  }
  constexpr std::size_t kStep = kPage / sizeof(std::uint64_t);
  constexpr std::size_t kPages = kHeap / kPage;
  for (std::size_t page = 0; page < kPages; ++page) {
    views[0][page * kStep] = page;
  }
  std::vector<std::uint64_t> rounds(kPages);
  check::Random random(9);
  check::ready();
  while (!stopping()) {
    for (int i = 0; i < 1000; ++i) {
      const std::size_t page = random.below(kPages);
      views[random.below(3)][page * kStep] = page + (++rounds[page] << 32U);
    }
    check::sleep_ns(check::kMillisecond);
  }
  for (std::size_t page = 0; page < kPages; ++page) {
    const std::uint64_t expected = page + (rounds[page] << 32U);
    std::uint64_t read = 0;
    CHECK_EQUAL(::pread(fd, &read, sizeof read, kFar + static_cast<off_t>(page * kPage)), 8);
    CHECK_EQUAL(read, expected);
    CHECK_EQUAL(views[page % 3][page * kStep], expected);
  }
  CHECK_EQUAL(::lseek(fd, 0, SEEK_END), 2 * kFar);
}

constexpr check::Property kProperties[] = {
    {"pipe", pipe},
    {"eventfd", eventfd},
    {"epoll", epoll},
    {"timerfd", timerfd},
    {"timerfd_unread", timerfd_unread},
    {"signalfd", signalfd},
    {"memfd", memfd},
    {"memfd_rights", memfd_rights},
    {"memfd_program", memfd_program},
    {"memfd_sealed", memfd_sealed},
    {"memfd_heap", memfd_heap},
    {"own_pipe", own_pipe},
};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
