// Pi by throwing darts: a C++ program that has batches computed by all of the hosts that it is
// given at once, and then travels from one to the next with a batch of its own. It is not moved
// while it prints.
//
//   monte_carlo DARTS HOST...
#include <cstdint>
#include <iostream>
#include <libmigrate/migrate.hpp>
#include <random>
#include <string>
#include <vector>

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

/// A batch for each host, by functions that run there.
std::uint64_t throw_everywhere(const std::vector<std::string>& hosts, std::uint64_t darts) {
  std::vector<std::uint64_t> seeds;
  for (std::uint64_t i = 0; i < hosts.size(); ++i) {
    seeds.push_back(1000 + i);
  }
  migrate::map_options options;
  options.each.retry = migrate::seconds(5);
  std::uint64_t inside = 0;
  for (const std::uint64_t each : migrate::map(
           hosts, seeds,
           [darts](std::uint64_t seed) {
             std::mt19937_64 source(seed);
             return throw_darts(source, darts);
           },
           options)) {
    inside += each;
  }
  return inside;
}

void print_place() {
  const migrate::hold printing;
  try {
    const migrate::place place = migrate::here();
    std::cout << "at " << place.host << " after " << place.moves << " moves" << std::endl;
  } catch (const migrate::error& error) {
    std::cout << "nowhere: " << error.what() << std::endl;
  }
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
    const std::vector<std::string> hosts(words + 2, words + count);
    std::uint64_t inside = hosts.empty() ? 0 : throw_everywhere(hosts, darts);
    print_place();
    inside += throw_darts(source, darts);
    for (const std::string& host : hosts) {
      migrate::options options;
      options.retry = migrate::seconds(5);
      if (const auto moved = migrate::try_move_self(host, options); !moved) {
        std::cout << "stays: " << moved.message() << std::endl;
      }
      print_place();
      inside += throw_darts(source, darts);
    }
    const std::uint64_t batches = 2 * hosts.size() + 1;
    std::cout << "pi " << inside << " of " << darts * batches << std::endl;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
