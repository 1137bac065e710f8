// What functions that run elsewhere cost, against a child that runs here. Driven by bench/async.
//
//   tasks latency MIB COUNT HOST   a parent of MIB: fork and its wait, and a function, in turn
//   tasks many COUNT HOST...       so many functions at these hosts
//   tasks touch MIB HOST           a function that reads 5 % of a vector of MIB
//
// Prints one JSON object. Times are microseconds.
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <libmigrate/migrate.hpp>
#include <numeric>
#include <string>
#include <vector>

namespace {

using Words = std::vector<std::string>;

/// All hosts of a testbed have one such clock.
double now_us() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

migrate::options patient() {
  migrate::options options;
  options.retry = migrate::seconds(60);
  return options;
}

std::vector<std::uint64_t> words_of(const std::string& mib) {
  std::vector<std::uint64_t> words((std::stoull(mib) << 20U) / sizeof(std::uint64_t));
  std::iota(words.begin(), words.end(), 1);
  return words;
}

class Series {
 public:
  void add(double value) { values_.push_back(value); }
  double median() {
    std::ranges::sort(values_);
    return values_[values_.size() / 2];
  }

 private:
  std::vector<double> values_;
};

int latency(const Words& words) {
  const std::vector<std::uint64_t> memory = words_of(words.at(0));
  Series fork_call;
  Series fork_and_wait;
  Series call;
  Series first;
  Series whole;
  for (int i = 0; i < std::stoi(words.at(1)); ++i) {
    double start = now_us();
    const pid_t child = fork();
    if (child == 0) {
      _exit(0);
    }
    fork_call.add(now_us() - start);
    waitpid(child, nullptr, 0);
    fork_and_wait.add(now_us() - start);
    start = now_us();
    auto task = migrate::async(words.at(2), now_us, patient());
    call.add(now_us() - start);
    const double began = task.get();
    first.add(began - start);
    whole.add(now_us() - start);
  }
  std::printf(
      "{\"mib\": %s, \"fork_us\": %.0f, \"fork_wait_us\": %.0f, \"async_call_us\": %.0f, "
      "\"first_instruction_us\": %.0f, \"async_get_us\": %.0f}\n",
      words.at(0).c_str(), fork_call.median(), fork_and_wait.median(), call.median(),
      first.median(), whole.median());
  return memory.back() == memory.size() ? 0 : 1;
}

int many(const Words& words) {
  std::vector<std::uint64_t> numbers(std::stoull(words.at(0)));
  std::iota(numbers.begin(), numbers.end(), 0);
  const double start = now_us();
  const auto results =
      migrate::map({words.begin() + 1, words.end()}, numbers,
                   [](std::uint64_t each) { return each + 1; }, {.each = patient()});
  const double took = now_us() - start;
  const std::uint64_t sum = std::accumulate(results.begin(), results.end(), std::uint64_t{0});
  std::printf("{\"functions\": %zu, \"seconds\": %.2f, \"a_second\": %.1f}\n", results.size(),
              took / 1e6, static_cast<double>(results.size()) / (took / 1e6));
  return sum == numbers.size() * (numbers.size() + 1) / 2 ? 0 : 1;
}

int touch(const Words& words) {
  constexpr std::size_t kPiece = 256 * 1024 / sizeof(std::uint64_t);
  const std::vector<std::uint64_t> memory = words_of(words.at(0));
  const auto read_some = [&memory] {
    std::uint64_t sum = 0;
    for (std::size_t piece = 0; piece < memory.size(); piece += 20 * kPiece) {
      for (std::size_t i = piece; i < std::min(piece + kPiece, memory.size()); ++i) {
        sum += memory[i];
      }
    }
    return sum;
  };
  const double start = now_us();
  const std::uint64_t sum = migrate::async(words.at(1), read_some, patient()).get();
  std::printf("{\"mib\": %s, \"seconds\": %.2f}\n", words.at(0).c_str(), (now_us() - start) / 1e6);
  return sum == read_some() ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string what = count > 1 ? arguments[1] : "";
  const Words words(arguments + std::min(count, 2), arguments + count);
  try {
    return what == "latency" ? latency(words)
           : what == "many"  ? many(words)
           : what == "touch" ? touch(words)
                             : 2;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
