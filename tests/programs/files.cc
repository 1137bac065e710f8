// Regular files and devices: the same file, at the same offset, shared by the same descriptors.
#include <dirent.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <vector>

#include "tests/programs/check.h"

namespace {

using check::called;
using check::stopping;

int open_file(const char* name, int flags) {
  return called(::open(check::work_path(name).c_str(), flags | O_CREAT, 0644), "open");
}

std::string line_of(std::int64_t number) {
  return "line " + std::to_string(number) + "\n";
}

/// Lines written one by one; a second descriptor reads them back at its own offset.
void offset() {
  const int writer = open_file("offset", O_RDWR | O_TRUNC);
  const int reader = open_file("offset", O_RDONLY);
  off_t position = 0;
  check::ready();
  for (std::int64_t number = 0; !stopping(); ++number) {
    const std::string line = line_of(number);
    const auto length = static_cast<ssize_t>(line.size());
    CHECK_EQUAL(::write(writer, line.data(), line.size()), length);
    std::array<char, 64> back{};
    CHECK_EQUAL(::read(reader, back.data(), line.size()), length);
    CHECK_EQUAL(std::string(back.data()), line);
    position += length;
    CHECK_EQUAL(::lseek(writer, 0, SEEK_CUR), position);
    CHECK_EQUAL(::lseek(reader, 0, SEEK_CUR), position);
    if (number % 16 == 0) {
      check::sleep_ns(check::kMillisecond);
    }
  }
  struct stat status {};
  called(::fstat(writer, &status), "fstat");
  CHECK_EQUAL(status.st_size, position);
}

/// Two descriptions with O_APPEND: nothing is ever overwritten.
void append() {
  const int first = open_file("append", O_WRONLY | O_TRUNC | O_APPEND);
  const int second = open_file("append", O_WRONLY | O_APPEND);
  std::int64_t number = 0;
  check::ready();
  for (; !stopping(); ++number) {
    const std::string line = line_of(number);
    called(::lseek(first, 0, SEEK_SET), "lseek");
    called(::write(number % 2 == 0 ? first : second, line.data(), line.size()), "write");
    if (number % 16 == 0) {
      check::sleep_ns(check::kMillisecond);
    }
  }
  std::string expected;
  for (std::int64_t index = 0; index < number; ++index) {
    expected += line_of(index);
  }
  CHECK(check::read_text(check::work_path("append")) == expected);
  CHECK_EQUAL(::fcntl(first, F_GETFL) & O_APPEND, O_APPEND);
}

/// Duplicates share their offset and flags, others do not; numbers and close-on-exec stay.
void duplicates() {
  const int original = open_file("duplicates", O_RDWR | O_TRUNC);
  const int copy = called(::dup(original), "dup");
  const int far = called(::fcntl(original, F_DUPFD_CLOEXEC, 500), "fcntl(F_DUPFD_CLOEXEC)");
  const int other = open_file("duplicates", O_RDWR | O_SYNC);
  CHECK_EQUAL(far, 500);
  called(::ftruncate(original, 1 << 20), "ftruncate");
  check::Random random(1);
  off_t other_position = 0;
  check::ready();
  while (!stopping()) {
    const auto position = static_cast<off_t>(random.below(1 << 20));
    called(::lseek(random.below(2) == 0 ? copy : far, position, SEEK_SET), "lseek");
    for (int turn = 0; turn < 20; ++turn) {
      for (const int fd : {original, copy, far}) {
        CHECK_EQUAL(::lseek(fd, 0, SEEK_CUR), position);
      }
      CHECK_EQUAL(::lseek(other, 0, SEEK_CUR), other_position);
      check::sleep_ns(check::kMillisecond);
    }
    other_position = called(::lseek(other, position / 2, SEEK_SET), "lseek");
    const bool wait = random.below(2) == 0;
    called(::fcntl(copy, F_SETFL, wait ? 0 : O_NONBLOCK), "fcntl(F_SETFL)");
    CHECK_EQUAL(::fcntl(far, F_GETFL) & O_NONBLOCK, wait ? 0 : O_NONBLOCK);
    CHECK_EQUAL(::fcntl(other, F_GETFL) & (O_NONBLOCK | O_SYNC), O_SYNC);
    CHECK_EQUAL(::fcntl(far, F_GETFD), FD_CLOEXEC);
    CHECK_EQUAL(::fcntl(copy, F_GETFD), 0);
    CHECK(::fcntl(499, F_GETFD) == -1 && errno == EBADF);
  }
}

/// A big file read bit by bit, from beginning to end and again.
void reading() {
  constexpr std::uint32_t kNumbers = 4'000'000;
  std::vector<std::uint32_t> numbers(kNumbers);
  for (std::uint32_t index = 0; index < kNumbers; ++index) {
    numbers[index] = index * 2654435761U;
  }
  const int fd = open_file("reading", O_RDWR | O_TRUNC);
  called(::write(fd, numbers.data(), kNumbers * sizeof numbers[0]), "write");
  numbers = {};
  called(::lseek(fd, 0, SEEK_SET), "lseek");
  check::ready();
  std::uint32_t expected = 0;
  while (!stopping()) {
    std::array<std::uint32_t, 5000> block{};
    const ssize_t got = called(::read(fd, block.data(), sizeof block), "read");
    for (std::size_t index = 0; index < static_cast<std::size_t>(got) / 4; ++index) {
      CHECK_EQUAL(block[index], expected * 2654435761U);
      ++expected;
    }
    if (got == 0) {
      CHECK_EQUAL(expected, kNumbers);
      called(::lseek(fd, 0, SEEK_SET), "lseek");
      expected = 0;
    }
  }
}

void devices() {
  const int null = called(::open("/dev/null", O_RDWR), "open");
  const int zero = called(::open("/dev/zero", O_RDONLY), "open");
  const int full = called(::open("/dev/full", O_RDWR), "open");
  const int random = called(::open("/dev/random", O_RDONLY | O_NONBLOCK), "open");
  const int urandom = called(::open("/dev/urandom", O_RDONLY), "open");
  check::ready();
  while (!stopping()) {
    std::array<std::uint64_t, 64> block{};
    CHECK_EQUAL(::write(null, block.data(), sizeof block), static_cast<ssize_t>(sizeof block));
    CHECK_EQUAL(::read(null, block.data(), sizeof block), 0);
    block.fill(1);
    CHECK_EQUAL(::read(zero, block.data(), sizeof block), static_cast<ssize_t>(sizeof block));
    CHECK_EQUAL(block[0] | block[63], 0U);
    CHECK(::write(full, block.data(), sizeof block) == -1 && errno == ENOSPC);
    for (const int source : {random, urandom}) {
      CHECK_EQUAL(::read(source, block.data(), 256), 256);
      CHECK(block[0] != block[1] && block[2] != block[3]);
    }
    CHECK_EQUAL(::fcntl(random, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    check::sleep_ns(check::kMillisecond);
  }
}

void directory() {
  const std::string path = check::work_path("directory");
  called(::mkdir(path.c_str(), 0755), "mkdir");
  const int fd = called(::open(path.c_str(), O_RDONLY | O_DIRECTORY), "open");
  check::ready();
  for (int number = 0; !stopping(); ++number) {
    const std::string name = "file" + std::to_string(number % 10);
    const int file = called(::openat(fd, name.c_str(), O_CREAT | O_RDWR, 0600), "openat");
    CHECK_EQUAL(::access((path + "/" + name).c_str(), F_OK), 0);
    ::close(file);
    called(::unlinkat(fd, name.c_str(), 0), "unlinkat");
    check::sleep_ns(check::kMillisecond);
  }
}

/// A shared mapping that is read only for now: it may become writable, as its file was opened so.
void mapped_for_later() {
  constexpr std::size_t kBytes = 16384;
  const int fd = open_file("mapped", O_RDWR | O_TRUNC);
  called(::ftruncate(fd, kBytes), "ftruncate");
  auto* memory = static_cast<char*>(check::map_memory(kBytes, PROT_READ, MAP_SHARED, fd));
  const int reader = open_file("mapped", O_RDONLY);
  auto* read_only = static_cast<char*>(check::map_memory(kBytes, PROT_READ, MAP_SHARED, reader));
  called(::close(fd), "close");
  called(::close(reader), "close");
  char value = 0;
  check::ready();
  do {
    called(::mprotect(memory, kBytes, PROT_READ | PROT_WRITE), "mprotect");
    memory[5000] = ++value;
    called(::mprotect(memory, kBytes, PROT_READ), "mprotect");
    CHECK_EQUAL(read_only[5000], value);
    CHECK(::mprotect(read_only, kBytes, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
    check::sleep_ns(5 * check::kMillisecond);
  } while (!stopping());
}

/// A file without a name is what programs use for temporary data.
void check_unnamed(int fd, int other, const struct stat& expected) {
  check::Random random(5);
  std::string content(100'000, '\0');
  CHECK_EQUAL(::pread(fd, content.data(), content.size(), 0), static_cast<ssize_t>(content.size()));
  check::ready();
  do {
    const std::size_t at = random.below(content.size() - 100);
    const std::string text(100, static_cast<char>('a' + random.below(26)));
    CHECK_EQUAL(::pwrite(fd, text.data(), text.size(), static_cast<off_t>(at)), 100);
    content.replace(at, text.size(), text);
    std::string found(content.size(), '\0');
    CHECK_EQUAL(::pread(other, found.data(), found.size(), 0), static_cast<ssize_t>(found.size()));
    CHECK(found == content);
    CHECK_EQUAL(::lseek(fd, 0, SEEK_CUR), 17);
    struct stat status {};
    called(::fstat(fd, &status), "fstat");
    CHECK_EQUAL(status.st_nlink, 0U);
    CHECK_EQUAL(status.st_mode, expected.st_mode);
    CHECK_EQUAL(status.st_uid, expected.st_uid);
    CHECK_EQUAL(status.st_gid, expected.st_gid);
    CHECK_EQUAL(status.st_size, expected.st_size);
    check::sleep_ns(check::kMillisecond);
  } while (!stopping());
}

void fill_unnamed(int fd) {
  const std::string text(100'000, 'x');
  CHECK_EQUAL(::write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  called(::fchmod(fd, 0640), "fchmod");
  called(::lseek(fd, 17, SEEK_SET), "lseek");
}

void deleted_file() {
  const int fd = open_file("deleted", O_RDWR | O_TRUNC);
  const int other = open_file("deleted", O_RDONLY);
  called(::unlink(check::work_path("deleted").c_str()), "unlink");
  fill_unnamed(fd);
  struct stat status {};
  called(::fstat(fd, &status), "fstat");
  check_unnamed(fd, other, status);
}

void temporary_file() {
  const std::string folder = check::stop_file.substr(0, check::stop_file.rfind('/'));
  const int fd = called(::open(folder.c_str(), O_TMPFILE | O_RDWR, 0600), "open");
  fill_unnamed(fd);
  struct stat status {};
  called(::fstat(fd, &status), "fstat");
  check_unnamed(fd, called(::dup(fd), "dup"), status);
}

void deleted_times() {
  const int fd = open_file("times", O_RDWR | O_TRUNC);
  called(::unlink(check::work_path("times").c_str()), "unlink");
  const std::array<timespec, 2> times{timespec{1000, 17}, timespec{2000, 23}};
  called(::futimens(fd, times.data()), "futimens");
  check::ready();
  do {
    struct stat status {};
    called(::fstat(fd, &status), "fstat");
    CHECK_EQUAL(status.st_mtim.tv_sec, 2000);
    CHECK_EQUAL(status.st_mtim.tv_nsec, 23);
    check::sleep_ns(check::kMillisecond);
  } while (!stopping());
}

/// As multiprocessing.Lock of Python: a shared mapping, without a descriptor.
void deleted_shared_mapping() {
  constexpr std::size_t kBytes = 1U << 20U;
  const int fd = open_file("shared", O_RDWR | O_TRUNC);
  called(::ftruncate(fd, kBytes), "ftruncate");
  auto* memory = static_cast<std::uint32_t*>(
      check::map_memory(kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd));
  const auto* reader =
      static_cast<std::uint32_t*>(check::map_memory(kBytes / 2, PROT_READ, MAP_SHARED, fd));
  called(::unlink(check::work_path("shared").c_str()), "unlink");
  called(::close(fd), "close");
  constexpr std::size_t kWords = kBytes / sizeof(std::uint32_t);
  for (std::size_t word = 0; word < kWords; ++word) {
    memory[word] = static_cast<std::uint32_t>(word);
  }
  check::ready();
  std::uint32_t round = 0;
  do {
    for (std::size_t word = 0; word < kWords; word += 97) {
      CHECK_EQUAL(memory[word], static_cast<std::uint32_t>(word) + round);
      memory[word] += 1;
      CHECK(word >= kWords / 2 || reader[word] == memory[word]);
    }
    ++round;
    check::sleep_ns(check::kMillisecond);
  } while (!stopping());
  for (std::size_t word = 0; word < kWords; ++word) {
    CHECK_EQUAL(memory[word], static_cast<std::uint32_t>(word) + (word % 97 == 0 ? round : 0));
  }
}

/// Of a file that has no name, or is about to lose it: pages that nobody has touched are the
/// file's, and what was written where the file has a hole is not.
void check_private_mapping(int fd, const std::string& path) {
  constexpr std::size_t kBytes = 1U << 20U;
  constexpr std::size_t kHole = kBytes / 2;
  constexpr off_t kOffset = 65536;
  std::string content(kBytes, '\0');
  for (std::size_t at = 0; at < kHole; ++at) {
    content[at] = static_cast<char>(at / 4096 + at);
  }
  called(::ftruncate(fd, kOffset + static_cast<off_t>(kBytes)), "ftruncate");
  CHECK_EQUAL(::pwrite(fd, content.data(), kHole, kOffset), static_cast<ssize_t>(kHole));
  auto* memory =
      static_cast<char*>(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, kOffset));
  auto* text = static_cast<char*>(::mmap(nullptr, kBytes, PROT_READ, MAP_PRIVATE, fd, kOffset));
  CHECK(memory != MAP_FAILED && text != MAP_FAILED);
  if (!path.empty()) {
    called(::unlink(path.c_str()), "unlink");
  }
  called(::close(fd), "close");
  const std::string file = content;
  for (std::size_t at = 0; at < kBytes; at += 3 * 4096) {
    content[at] = memory[at] = 'w';
  }
  check::ready();
  check::Random random(9);
  do {
    const std::size_t at = random.below(kBytes);
    CHECK_EQUAL(text[at], file[at]);
    CHECK_EQUAL(memory[at], content[at]);
    const std::size_t written = random.below(kBytes);
    content[written] = memory[written] = static_cast<char>(random.below(256));
    check::sleep_ns(check::kMillisecond);
  } while (!stopping());
  CHECK(std::equal(content.begin(), content.end(), memory));
  CHECK(std::equal(file.begin(), file.end(), text));
}

/// As a library that was upgraded.
void deleted_private_mapping() {
  check_private_mapping(open_file("private", O_RDWR | O_TRUNC), check::work_path("private"));
}

/// As a library that a program carries within itself.
void private_memfd() {
  check_private_mapping(called(::memfd_create("private", 0), "memfd_create"), {});
}

/// What the lock on `byte` is for another open file: F_UNLCK, F_RDLCK.
int lock_seen(int other, off_t byte) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_start = byte;
  lock.l_len = 1;
  called(::fcntl(other, F_OFD_GETLK, &lock), "fcntl(F_OFD_GETLK)");
  return lock.l_type;
}

void set_lock(int fd, int command, short type, off_t start, off_t length) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_start = start;
  lock.l_len = length;
  called(::fcntl(fd, command, &lock), "fcntl");
}

/// Shared ones are held all the time, and by nobody else once they are released.
void shared_locks() {
  const int whole = open_file("whole", O_RDWR | O_TRUNC);
  const int range = open_file("range", O_RDWR | O_TRUNC);
  const int tail = open_file("tail", O_RDWR | O_TRUNC);
  const std::array<int, 3> others{open_file("whole", O_RDWR), open_file("range", O_RDWR),
                                  open_file("tail", O_RDWR)};
  called(::flock(whole, LOCK_SH), "flock");
  set_lock(range, F_SETLK, F_RDLCK, 100, 50);
  set_lock(range, F_SETLK, F_RDLCK, 200, 1);
  set_lock(tail, F_OFD_SETLK, F_RDLCK, 7, 0);
  check::ready();
  do {
    CHECK_EQUAL(::flock(others[0], LOCK_EX | LOCK_NB), -1);
    for (const off_t byte : {100, 149, 200}) {
      CHECK_EQUAL(lock_seen(others[1], byte), F_RDLCK);
    }
    for (const off_t byte : {99, 150, 199, 201}) {
      CHECK_EQUAL(lock_seen(others[1], byte), F_UNLCK);
    }
    CHECK_EQUAL(lock_seen(others[2], 6), F_UNLCK);
    CHECK_EQUAL(lock_seen(others[2], 1 << 20), F_RDLCK);
    check::sleep_ns(check::kMillisecond);
  } while (!stopping());
  called(::flock(whole, LOCK_UN), "flock");
  called(::flock(others[0], LOCK_EX | LOCK_NB), "flock of what was released");
  set_lock(range, F_SETLK, F_UNLCK, 0, 0);
  set_lock(others[1], F_OFD_SETLK, F_WRLCK, 0, 0);
  called(::close(tail), "close");
  set_lock(others[2], F_OFD_SETLK, F_WRLCK, 0, 0);
}

constexpr check::Property kProperties[] = {
    {"offset", offset},
    {"append", append},
    {"duplicates", duplicates},
    {"reading", reading},
    {"devices", devices},
    {"directory", directory},
    {"mapped_for_later", mapped_for_later},
    {"deleted_file", deleted_file},
    {"temporary_file", temporary_file},
    {"deleted_times", deleted_times},
    {"deleted_shared_mapping", deleted_shared_mapping},
    {"deleted_private_mapping", deleted_private_mapping},
    {"private_memfd", private_memfd},
    {"shared_locks", shared_locks},
};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
