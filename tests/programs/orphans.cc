// Programs that end before their descendants do. These wait for a file ("go" beside the stop file),
// then check all the memory that they had of the program, and say in a file ("child.N") how it is.
#include <csignal>

#include "tests/programs/check.h"

namespace {

using check::called;
using check::stopping;

constexpr std::size_t kWords = (16U << 20U) / 8;

std::uint64_t word_of(std::size_t index) {
  return index * 0xBF58476D1CE4E5B9U + 1;
}

std::uint64_t* make_words() {
  auto* words = static_cast<std::uint64_t*>(check::map_memory(kWords * 8));
  for (std::size_t index = 0; index < kWords; ++index) {
    words[index] = word_of(index);
  }
  return words;
}

void await_stop() {
  while (!stopping()) {
    check::sleep_ns(2 * check::kMillisecond);
  }
}

void await_go() {
  const std::string go = check::work_path("go");
  while (::access(go.c_str(), F_OK) != 0 && check::now_ns() < check::deadline_ns) {
    check::sleep_ns(5 * check::kMillisecond);
  }
}

// Ends the calling process, which is descendant number `number`.
[[noreturn]] void verify(const std::uint64_t* words, int number, bool speaks) {
  std::string verdict = "whole";
  for (std::size_t index = 0; index < kWords; ++index) {
    if (words[index] != word_of(index)) {
      verdict = "word " + std::to_string(index) + " is " + std::to_string(words[index]);
      break;
    }
  }
  const std::string name = "child." + std::to_string(number);
  const std::string path = check::work_path(name.c_str());
  check::write_text(path + ".part", verdict);
  std::rename((path + ".part").c_str(), path.c_str());
  if (speaks) {
    check::say((name + " " + verdict + "\n").c_str());
  }
  ::_exit(0);
}

/// As daemon(3) does it, twice forked, and nothing of the terminal kept.
void daemonise() {
  const std::uint64_t* words = make_words();
  check::ready();
  await_stop();
  if (called(::fork(), "fork") != 0) {
    return;
  }
  ::setsid();
  if (::fork() != 0) {
    ::_exit(0);
  }
  const int null = ::open("/dev/null", O_RDWR);
  for (int number = 0; number < 3; ++number) {
    ::dup2(null, number);
  }
  await_go();
  verify(words, 0, false);
}

/// A child in the background that goes on to use standard output.
void background() {
  const std::uint64_t* words = make_words();
  check::ready();
  await_stop();
  if (called(::fork(), "fork") == 0) {
    await_go();
    verify(words, 0, true);
  }
}

/// Children that have children when nobody else is left.
void generations() {
  const std::uint64_t* words = make_words();
  check::ready();
  await_stop();
  if (called(::fork(), "fork") != 0) {
    return;
  }
  await_go();
  for (int number = 1; number < 3; ++number) {
    if (::fork() == 0) {
      verify(words, number, false);
    }
  }
  verify(words, 0, false);
}

constexpr check::Property kProperties[] = {
    {"daemonise", daemonise}, {"background", background}, {"generations", generations}};

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  return check::main(argc, argv, kProperties);
}
