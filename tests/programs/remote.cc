// A program with functions that run elsewhere (migrate.hpp). Each prints lines of `key value...`.
//
//   remote values HOST           values and exceptions of all kinds
//   remote many COUNT HOST...    as many functions at these hosts: how many ran at each
//   remote touch HOST MIB        a captured vector, of which the function reads every 20th block
//   remote refused HOST          with memory that it shares
//   remote unknown HOST          to a host that is none
//   remote cancel HOST           functions that never return, and are given up
//   remote kill HOST             a function that kills its process
//   remote threads HOST COUNT    functions, while other threads allocate, lock and end
//   remote prints HOST           what is printed here and there
//   remote nested HOST HOST      a function that moves itself on
//   remote closed HOST           functions of a program that has closed its standard input
//   remote within HOST HOST      a function that has another one run elsewhere, which cannot be
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <libmigrate/migrate.hpp>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using Words = std::vector<std::string>;

std::string here() {
  std::array<char, 256> name = {};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

migrate::options patient() {
  migrate::options options;
  options.retry = migrate::seconds(20);
  return options;
}

template <class Function>
auto at(const std::string& host, Function function) {
  return migrate::async(host, function, patient());
}

void print_error(const migrate::error& error) {
  std::printf("error %d\n", error.status());
  for (const migrate::refusal& each : error.refusals()) {
    std::printf("refusal %s\n", each.code.c_str());
  }
  std::printf("message %s\n", error.what());
}

struct Diverged : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void values(const Words& words) {
  const std::string& host = words.at(0);
  std::vector<double> captured(100'000, 0.5);
  int changed = 1;
  std::printf("host %s\n", at(host, here).get().c_str());
  std::printf("number %d\n", at(host, [&] { return ++changed + 40; }).get());
  std::printf("changed %d\n", changed);
  const auto doubled = at(host, [&captured] {
                         std::vector<double> result = captured;
                         for (double& each : result) {
                           each *= 2;
                         }
                         return result;
                       }).get();
  std::printf("vector %zu %g\n", doubled.size(), doubled.back());
  std::printf("text %zu\n", at(host, [] { return std::string(3 << 20, 'x'); }).get().size());
  try {
    at(host, [] { throw std::out_of_range("too far"); }).get();
  } catch (const std::out_of_range& caught) {
    std::printf("caught %s\n", caught.what());
  }
  try {
    at(host, [] { throw Diverged("after 7 steps"); }).get();
  } catch (const migrate::remote_error& caught) {
    std::printf("remote %s: %s\n", caught.type().c_str(), caught.what());
  }
}

void many(const Words& words) {
  std::vector<int> numbers(std::stoul(words.at(0)));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = static_cast<int>(i);
  }
  migrate::map_options options;
  options.each = patient();
  const auto results = migrate::map(
      {words.begin() + 1, words.end()}, numbers,
      [](int each) { return std::pair(here(), static_cast<std::uint64_t>(each) * 3); }, options);
  std::map<std::string, int> ran;
  std::uint64_t sum = 0;
  for (const auto& [host, value] : results) {
    ++ran[host];
    sum += value;
  }
  std::printf("sum %llu\n", static_cast<unsigned long long>(sum));
  for (const auto& [host, count] : ran) {
    std::printf("ran %s %d\n", host.c_str(), count);
  }
}

void touch(const Words& words) {
  constexpr std::size_t kBlock = std::size_t{1} << 15U;  // Words: 256 KiB.
  std::vector<std::uint64_t> data((std::stoul(words.at(1)) << 20U) / sizeof(std::uint64_t));
  for (std::size_t i = 0; i < data.size(); ++i) {
    data[i] = i * 6364136223846793005U;
  }
  const auto read_some = [&data] {
    std::uint64_t sum = 0;
    for (std::size_t block = 0; block < data.size(); block += 20 * kBlock) {
      for (std::size_t i = block; i < std::min(block + kBlock, data.size()); ++i) {
        sum += data[i];
      }
    }
    return sum;
  };
  std::printf("ready\n");
  std::fflush(stdout);
  const std::uint64_t there = at(words.at(0), read_some).get();
  std::printf("same %d\n", there == read_some() ? 1 : 0);
}

void print_refused(const Words& words) {
  try {
    at(words.at(0), [] { std::printf("called\n"); }).get();
  } catch (const migrate::error& error) {
    print_error(error);
  }
}

void share_and_ask(const Words& words) {
  void* const shared =
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  *static_cast<int*>(shared) = 1;
  auto task = migrate::async(words.at(0), [] { std::printf("called\n"); });
  try {
    task.get();
  } catch (const migrate::error& error) {
    print_error(error);
  }
  munmap(shared, 4096);
}

void cancel(const Words& words) {
  {
    auto first = at(words.at(0), [] {
      for (;;) {
        pause();
      }
    });
    const auto second = at(words.at(0), [] {
      for (std::atomic<int> i = 0;; ++i) {
      }
    });
    std::printf("waited %d\n", first.wait_for(migrate::seconds(2)) ? 1 : 0);
    std::fflush(stdout);
  }
  std::printf("cancelled\n");
  std::printf("host %s\n", at(words.at(0), here).get().c_str());
}

void kill_itself(const Words& words) {
  try {
    at(words.at(0), [] { raise(SIGKILL); }).get();
  } catch (const migrate::error& error) {
    print_error(error);
  }
}

void beside_threads(const Words& words) {
  std::mutex mutex;
  std::vector<std::jthread> threads;  // Which end with the scope.
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&mutex](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        const std::lock_guard lock(mutex);
        std::vector<std::string> used(20, std::string(100, 'x'));
        std::thread([] {}).join();
        sched_yield();
      }
    });
  }
  int sum = 0;
  for (int i = 0; i < std::stoi(words.at(1)); ++i) {
    sum += at(words.at(0), [i] { return std::stoi(std::to_string(i)); }).get();
  }
  std::printf("sum %d\n", sum);
}

void print_closed(const Words& words) {
  const auto is_open = [] { return fcntl(STDIN_FILENO, F_GETFD) >= 0; };
  close(STDIN_FILENO);
  auto first = at(words.at(0), is_open);  // While it runs, its descriptors are there.
  auto second = at(words.at(0), is_open);
  std::printf("open %d %d %d\n", is_open(), first.get(), second.get());
}

void prints(const Words& words) {
  std::printf("before\n");  // Not flushed.
  at(words.at(0), [] { std::printf("there %s\n", here().c_str()); }).get();
  std::printf("after\n");
}

void nested(const Words& words) {
  const auto hosts = at(words.at(0), [&words] {
                       std::string seen = here();
                       migrate::move_self(words.at(1), patient());
                       return seen + " " + here();
                     }).get();
  std::printf("hosts %s\n", hosts.c_str());
}

void within(const Words& words) {
  const auto said =
      at(words.at(0), [&words]() -> std::string {
        try {
          return migrate::async(words.at(1), here).get();
        } catch (const migrate::error& error) {
          return error.refusals().empty() ? error.what() : error.refusals().front().code;
        }
      }).get();
  std::printf("said %s\n", said.c_str());
}

const std::map<std::string, void (*)(const Words&)> kWays = {
    {"values", values},         {"many", many},
    {"touch", touch},           {"refused", share_and_ask},
    {"unknown", print_refused}, {"cancel", cancel},
    {"kill", kill_itself},      {"threads", beside_threads},
    {"prints", prints},         {"nested", nested},
    {"closed", print_closed},   {"within", within}};

}  // namespace

int main(int count, char** words) {
  const auto way = count > 1 ? kWays.find(words[1]) : kWays.end();
  if (way == kWays.end()) {
    std::fprintf(stderr, "usage: see remote.cc\n");
    return 2;
  }
  try {
    way->second({words + 2, words + count});
  } catch (const std::exception& error) {
    std::printf("failed %s\n", error.what());
    return 1;
  }
  std::printf("end\n");
  return 0;
}
