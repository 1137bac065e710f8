// Standard input and output, which lead outside: nothing lost, nothing twice, nothing out of order.
// The test that feeds and reads them compares.
#include <signal.h>

#include <array>

#include "tests/programs/check.h"

namespace {

using check::called;

void write_all(const char* bytes, std::size_t length) {
  while (length > 0) {
    const auto wrote =
        static_cast<std::size_t>(called(::write(STDOUT_FILENO, bytes, length), "write"));
    bytes += wrote;
    length -= wrote;
  }
}

/// Copies standard input to standard output until its end.
void echo() {
  check::ready();
  std::array<char, 20'000> block{};
  ssize_t got = 0;
  while ((got = called(::read(STDIN_FILENO, block.data(), block.size()), "read")) > 0) {
    write_all(block.data(), static_cast<std::size_t>(got));
  }
}

/// Numbered lines as fast as they are taken.
void lines() {
  check::ready();
  std::string block;
  for (std::int64_t number = 0; !check::stopping(); ++number) {
    block += "line " + std::to_string(number) + "\n";
    if (block.size() > 8000) {
      write_all(block.data(), block.size());
      block.clear();
    }
  }
  write_all(block.data(), block.size());
}

/// A line now and then, to both streams.
void ticks() {
  check::ready();
  for (std::int64_t number = 0; !check::stopping(); ++number) {
    const std::string line = "tick " + std::to_string(number) + "\n";
    write_all(line.data(), line.size());
    called(::write(STDERR_FILENO, line.data(), line.size()), "write");
    check::sleep_ns(5 * check::kMillisecond);
  }
}

/// Reads one line, then goes on; nobody writes to it before the test does, and that may be never.
void closed_output() {
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  called(::sigaction(SIGPIPE, &ignore, nullptr), "sigaction");
  check::ready();
  while (!check::stopping()) {
    check::sleep_ns(check::kMillisecond);
  }
  // The reader has gone meanwhile: writing fails with EPIPE sooner or later.
  const std::string block(4096, 'x');
  for (int turn = 0; turn < 10'000; ++turn) {
    if (::write(STDOUT_FILENO, block.data(), block.size()) < 0) {
      ::_exit(errno == EPIPE ? check::kSurvived : 1);
    }
    check::sleep_ns(check::kMillisecond);
  }
  ::_exit(1);
}

constexpr check::Property kProperties[] = {
    {"echo", echo},
    {"lines", lines},
    {"ticks", ticks},
    {"closed_output", closed_output},
};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
