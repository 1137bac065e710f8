// The floors that the benchmarks compare with: what the machine does with the least code.
//
//   floor serve PORT                                 answers until it is killed; prints "ready"
//   floor fault HOST PORT COUNT                      the server is where a process comes from
//   floor local-fault COUNT                          without one: the handler has the page
//   floor freeze HOST PORT THREADS IMAGE_BYTES ROUNDS  the server is where it goes to
//   floor drain HOST PORT MIB                        the server is where it comes from
//   floor memory MIB
// Each but serve prints one JSON object: the best of several arrangements, and which that was.

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "floor.h"

int main(int argc, char** argv) {
  const std::string_view what = argc > 2 ? argv[1] : "";
  const auto number = [&](int place) { return std::strtoull(argv[place], nullptr, 10); };
  if (what == "serve" && argc == 3) {
    floors::serve(argv[2]);
  } else if (what == "fault" && argc == 5) {
    floors::measure_fault({argv[2], argv[3]}, number(4));
  } else if (what == "local-fault" && argc == 3) {
    floors::measure_local_fault(number(2));
  } else if (what == "freeze" && argc == 7) {
    floors::measure_freeze({argv[2], argv[3]}, static_cast<std::uint32_t>(number(4)), number(5),
                           static_cast<int>(number(6)));
  } else if (what == "drain" && argc == 5) {
    floors::measure_drain({argv[2], argv[3]}, number(4) << 20U);
  } else if (what == "memory" && argc == 3) {
    floors::measure_memory(number(2) << 20U);
  } else {
    std::fprintf(stderr,
                 "usage: floor serve PORT | fault HOST PORT COUNT | local-fault COUNT |\n"
                 "       freeze HOST PORT THREADS IMAGE_BYTES ROUNDS | drain HOST PORT MIB |\n"
                 "       memory MIB\n");
    return 2;
  }
  return 0;
}
