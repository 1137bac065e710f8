// What else may ask for a page that has not come yet: the kernel, children, a new program.
#include <spawn.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <array>
#include <thread>
#include <vector>

#include "tests/programs/check.h"

extern char** environ;

namespace {

using check::called;
using check::stopping;

constexpr std::size_t kPage = 4096;
constexpr std::size_t kBytes = 48U << 20U;
constexpr std::size_t kWords = kBytes / 8;

std::uint64_t word_of(std::size_t index) {
  return index * 0xBF58476D1CE4E5B9U + 1;
}

std::uint64_t* make_words() {
  auto* words = static_cast<std::uint64_t*>(check::map_memory(kBytes));
  for (std::size_t index = 0; index < kWords; ++index) {
    words[index] = word_of(index);
  }
  return words;
}

void verify_words(const std::uint64_t* words, std::size_t begin, std::size_t end) {
  for (std::size_t index = begin; index < end; ++index) {
    if (words[index] != word_of(index)) {
      check::fail("word %zu is %llx", index, static_cast<unsigned long long>(words[index]));
    }
  }
}

void expect_success(pid_t child) {
  int status = 0;
  CHECK_EQUAL(called(::waitpid(child, &status, 0), "waitpid"), child);
  if (status != 0) {
    check::fail("a child ended with status %x", static_cast<unsigned>(status));
  }
}

/// Children check everything, while the parent writes to what they share.
void fork() {
  std::uint64_t* words = make_words();
  check::Random random(1);
  check::ready();
  while (!stopping()) {
    check::sleep_ns(150 * check::kMillisecond);
    const pid_t child = called(::fork(), "fork");
    if (child == 0) {
      verify_words(words, 0, kWords);
      ::_exit(0);
    }
    // Written here, the child must not see it.
    const std::size_t page = random.below(kBytes / kPage) * (kPage / 8);
    std::memset(words + page, 0, kPage);
    expect_success(child);
    for (std::size_t index = page; index < page + kPage / 8; ++index) {
      CHECK_EQUAL(words[index], 0U);
      words[index] = word_of(index);
    }
  }
  verify_words(words, 0, kWords);
}

/// A child of a child, each writing: every one has memory of its own.
void fork_deep() {
  std::uint64_t* words = make_words();
  check::ready();
  while (!stopping()) {
    check::sleep_ns(200 * check::kMillisecond);
    const pid_t child = called(::fork(), "fork");
    if (child == 0) {
      const pid_t grandchild = called(::fork(), "fork");
      if (grandchild == 0) {
        verify_words(words, 0, kWords / 2);
        std::memset(words, 1, kBytes / 2);
        ::_exit(0);
      }
      expect_success(grandchild);
      verify_words(words, 0, kWords);
      ::_exit(0);
    }
    expect_success(child);
    verify_words(words, 0, kWords / 8);
  }
  verify_words(words, 0, kWords);
}

/// Other programs run as children (posix_spawn, which uses CLONE_VFORK).
void spawn() {
  std::uint64_t* words = make_words();
  check::Random random(1);
  check::ready();
  while (!stopping()) {
    check::sleep_ns(150 * check::kMillisecond);
    std::string program = "/bin/true";
    std::array<char*, 2> arguments = {program.data(), nullptr};
    pid_t child = 0;
    CHECK_EQUAL(::posix_spawn(&child, program.c_str(), nullptr, nullptr, arguments.data(), environ),
                0);
    const std::size_t begin = random.below(kWords - 5000);
    verify_words(words, begin, begin + 5000);
    expect_success(child);
  }
  verify_words(words, 0, kWords);
}

/// At the end the process becomes another program, with most of its pages still elsewhere.
void exec() {
  std::uint64_t* words = make_words();
  check::Random random(1);
  check::ready();
  while (!stopping()) {
    const std::size_t begin = random.below(kWords - 5000);
    verify_words(words, begin, begin + 50);
    check::sleep_ns(5 * check::kMillisecond);
  }
  const std::string process_id = std::to_string(::getpid());
  ::execl("/proc/self/exe", "owed", "after_exec", check::stop_file.c_str(), "600",
          process_id.c_str(), nullptr);
  check::fail("exec: %s", std::strerror(errno));
}

/// What `exec` becomes; not a property of its own.
int after_exec(char** argv) {
  CHECK_EQUAL(std::to_string(::getpid()), std::string(argv[4]));
  std::uint64_t* words = make_words();
  verify_words(words, 0, kWords);
  check::say("ok\n");
  return check::kSurvived;
}

/// The kernel reads and writes pages that the program has not touched since the move.
void kernel_faults() {
  std::uint64_t* words = make_words();
  auto* target = static_cast<std::uint64_t*>(check::map_memory(kBytes));
  std::memset(target, 7, kBytes);
  const int fd = called(::open(check::work_path("faults").c_str(), O_RDWR | O_CREAT, 0600), "open");
  std::array<int, 2> ends{};
  called(::pipe(ends.data()), "pipe");
  check::Random random(1);
  check::ready();
  while (!stopping()) {
    constexpr std::size_t kBlock = 40'000;  // Bytes, across ten pages.
    const std::size_t from = random.below(kWords - kBlock / 8);
    std::uint64_t* to = target + random.below(kWords - kBlock / 8);
    CHECK_EQUAL(::pwrite(fd, words + from, kBlock, 0), static_cast<ssize_t>(kBlock));
    CHECK_EQUAL(::pread(fd, to, kBlock, 0), static_cast<ssize_t>(kBlock));
    CHECK_EQUAL(std::memcmp(words + from, to, kBlock), 0);
    verify_words(words, from, from + kBlock / 8);
    // Three pieces of memory at once, through a pipe.
    std::array<iovec, 3> pieces{};
    for (iovec& piece : pieces) {
      piece = {.iov_base = words + random.below(kWords - 1000), .iov_len = 8000};
    }
    CHECK_EQUAL(::writev(ends[1], pieces.data(), pieces.size()), 24'000);
    to = target + random.below(kWords - kBlock / 8);
    CHECK_EQUAL(::read(ends[0], to, 24'000), 24'000);
    for (std::size_t index = 0; index < pieces.size(); ++index) {
      CHECK_EQUAL(std::memcmp(pieces[index].iov_base, to + index * 1000, 8000), 0);
    }
    check::sleep_ns(check::kMillisecond / 2);
  }
  verify_words(words, 0, kWords);
}

/// System calls with small arguments, each in a page of its own.
void kernel_arguments() {
  auto* memory = static_cast<char*>(check::map_memory(kBytes));
  const std::string path = check::stop_file + ".no-such-file";
  for (std::size_t page = 0; page < kBytes / kPage; ++page) {
    std::strcpy(memory + page * kPage, path.c_str());
  }
  check::Random random(1);
  check::ready();
  while (!stopping()) {
    char* name = memory + random.below(kBytes / kPage) * kPage;
    CHECK(::access(name, F_OK) == -1 && errno == ENOENT);
    CHECK_EQUAL(std::string(name), path);
    auto* time = reinterpret_cast<timespec*>(memory + random.below(kBytes / kPage) * kPage + 2048);
    called(::syscall(SYS_clock_gettime, CLOCK_MONOTONIC, time), "clock_gettime");
    CHECK(time->tv_sec > 0);
    auto* noise = memory + random.below(kBytes / kPage) * kPage + 3000;
    CHECK_EQUAL(::syscall(SYS_getrandom, noise, 64, 0), 64);
    check::sleep_ns(check::kMillisecond / 10);
  }
}

constexpr check::Property kProperties[] = {
    {"fork", fork}, {"fork_deep", fork_deep},         {"spawn", spawn},
    {"exec", exec}, {"kernel_faults", kernel_faults}, {"kernel_arguments", kernel_arguments},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc == 5 && std::strcmp(argv[1], "after_exec") == 0) {
    return after_exec(argv);
  }
  return check::main(argc, argv, kProperties);
}
