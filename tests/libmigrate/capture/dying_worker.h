#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <functional>
#include <utility>

namespace migrate::test {

/// What a worker tells before it is killed.
struct LastWords {
  std::uint64_t area = 0;
  pid_t process = 0;  ///< That it has made.
  pid_t init = 0;     ///< Of the cell that it has made.
};

/// A process of ours that does something as a worker would, and then waits to be killed.
class DyingWorker {
 public:
  explicit DyingWorker(const std::function<LastWords()>& job) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      const LastWords words = job();
      static_cast<void>(!::write(ends[1], &words, sizeof(words)));
      for (;;) {
        ::pause();
      }
    }
    ::close(ends[1]);
    const ssize_t told = ::read(ends[0], &words_, sizeof(words_));
    EXPECT_EQ(told, static_cast<ssize_t>(sizeof(words_))) << "the worker failed";
    ::close(ends[0]);
  }
  ~DyingWorker() { die(); }
  DyingWorker(const DyingWorker&) = delete;
  DyingWorker& operator=(const DyingWorker&) = delete;

  const LastWords& words() const { return words_; }
  /// Returns when nothing is traced by it any more.
  void die() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(std::exchange(pid_, -1), nullptr, 0);
    }
  }

 private:
  pid_t pid_ = -1;
  LastWords words_;
};

}  // namespace migrate::test
