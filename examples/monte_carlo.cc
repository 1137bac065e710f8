// Pi by throwing darts: a C++ program that computes a batch at each of the hosts that it is given,
// and is not moved while it prints.
//
//   monte_carlo DARTS HOST...
#include <cstdint>
#include <iostream>
#include <libmigrate/migrate.hpp>
#include <random>
#include <string>

namespace {

std::uint64_t throw_darts(std::mt19937_64& source, std::uint64_t darts) {
  std::uniform_real_distribution<double> side(0, 1);
  std::uint64_t inside = 0;
  for (std::uint64_t i = 0; i < darts; ++i) {
    const double x = side(source);
    const double y = side(source);
    inside += x * x + y * y <= 1 ? 1 : 0;
    if (i % 4096 == 0) {
      migrate::point();
    }
  }
  return inside;
}

void print_place() {
  const migrate::hold printing;
  const migrate::place place = migrate::here();
  std::cout << "at " << place.host << " after " << place.moves << " moves" << std::endl;
}

}  // namespace

int main(int count, char** words) {
  if (count < 2) {
    std::cerr << "usage: monte_carlo DARTS HOST...\n";
    return 2;
  }
  try {
    const std::uint64_t darts = std::stoull(words[1]);
    std::mt19937_64 source(42);
    std::uint64_t inside = throw_darts(source, darts);
    print_place();
    for (int i = 2; i < count; ++i) {
      migrate::options options;
      options.retry = migrate::seconds(5);
      if (const auto moved = migrate::try_move_self(words[i], options); !moved) {
        std::cout << "stays: " << moved.message() << std::endl;
      }
      print_place();
      inside += throw_darts(source, darts);
    }
    const auto batches = static_cast<std::uint64_t>(count - 1);
    std::cout << "pi " << inside << " of " << darts * batches << std::endl;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
