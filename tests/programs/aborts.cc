// Ends with a core dump, in the folder "cores" of its working directory.
#include <sys/resource.h>

#include "tests/programs/check.h"

namespace {

constexpr std::size_t kBytes = 8U << 20U;

void dump() {
  auto* memory = static_cast<char*>(check::map_memory(kBytes));
  std::memset(memory, 'x', kBytes);
  const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
  check::called(::setrlimit(RLIMIT_CORE, &unlimited), "setrlimit");
  check::ready();
  while (!check::stopping()) {
    check::sleep_ns(5 * check::kMillisecond);
  }
  check::called(::chdir("cores"), "chdir");
  check::sleep_ns(300 * check::kMillisecond);
  std::abort();
}

/// The same as another program, to which nothing is owed.
void exec_dump() {
  std::memset(check::map_memory(kBytes), 'x', kBytes);
  check::ready();
  while (!check::stopping()) {
    check::sleep_ns(5 * check::kMillisecond);
  }
  ::execl("/proc/self/exe", "aborts", "dump", check::stop_file.c_str(),
          static_cast<char*>(nullptr));
  check::fail("execl: %s", std::strerror(errno));
}

constexpr check::Property kProperties[] = {{"dump", dump}, {"exec-dump", exec_dump}};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
