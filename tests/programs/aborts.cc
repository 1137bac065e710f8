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

constexpr check::Property kProperties[] = {{"dump", dump}};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
