// Many threads on one heap, under full load. STRESS_THREADS and STRESS_MIB set its size;
// STRESS_PAUSE_MS lets each thread rest after each block.
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

#include "tests/programs/check.h"

namespace {

using check::stopping;

constexpr std::size_t kBlockWords = 8192;  // 64 KiB
constexpr std::size_t kTouched = 512;

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

/// A part of the heap: its numbers, and their sum as it should be.
struct Block {
  std::mutex mutex;
  std::vector<std::uint64_t> words;
  std::uint64_t sum = 0;

  void fill(std::uint64_t seed) {
    check::Random random(seed);
    words.resize(kBlockWords);
    for (std::uint64_t& word : words) {
      word = random.next();
    }
    sum = std::accumulate(words.begin(), words.end(), std::uint64_t{0});
  }
  void verify() const {
    CHECK_EQUAL(std::accumulate(words.begin(), words.end(), std::uint64_t{0}), sum);
  }
  void change(check::Random& random) {
    const std::size_t first = random.below(kBlockWords - kTouched);
    for (std::size_t index = first; index < first + kTouched; ++index) {
      sum -= words[index];
      words[index] = random.next();
      sum += words[index];
    }
  }
};

void heap() {
  const std::uint64_t thread_count = setting("STRESS_THREADS", 64);
  const std::uint64_t pause_ns = setting("STRESS_PAUSE_MS", 0) * check::kMillisecond;
  std::vector<Block> blocks(setting("STRESS_MIB", 1024) * 1024 * 1024 / (kBlockWords * 8));
  for (std::size_t index = 0; index < blocks.size(); ++index) {
    blocks[index].fill(index);
  }
  std::atomic<std::uint64_t> rounds{0};
  std::vector<std::thread> threads;
  for (std::uint64_t seed = 0; seed < thread_count; ++seed) {
    threads.emplace_back([&blocks, &rounds, pause_ns, seed] {
      check::Random random(seed + 1000);
      while (!stopping()) {
        Block& block = blocks[random.below(blocks.size())];
        {
          const std::scoped_lock lock(block.mutex);
          block.verify();
          block.change(random);
        }
        ++rounds;
        if (pause_ns > 0) {
          check::sleep_ns(pause_ns);
        }
      }
    });
  }
  check::ready();
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const Block& block : blocks) {
    block.verify();
  }
  check::say(("rounds " + std::to_string(rounds.load()) + "\n").c_str());
}

constexpr check::Property kProperties[] = {{"heap", heap}};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
