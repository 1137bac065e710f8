// A process that finds out for certain whether it runs in two places or twice, and whether a page
// is wrong. Used by tests/chaos.
//
// Each thread counts its rounds twice: in its own memory, which moves with it, and in a file that
// every host sees. It counts on in the file only from the number that it remembers. If another copy
// has counted since, or an earlier state of the process was brought back, the numbers differ.
// COPIES_MIB and COPIES_THREADS set its size.
#include <algorithm>
#include <thread>
#include <vector>

#include "tests/programs/check.h"

namespace {

using check::stopping;

constexpr std::size_t kPageWords = 512;
constexpr std::size_t kMostThreads = 64;
constexpr std::int64_t kBeatNs = 100'000;

/// What harness and copies share; chaos.py reads it.
struct Ledger {
  std::atomic<std::uint64_t> twice{0};  ///< Threads that found that another copy had counted.
  std::atomic<std::uint64_t> wrong{0};  ///< Pages that were not as they should be.
  std::atomic<std::uint64_t> whole{0};  ///< 1: ended after all pages were checked.
  std::atomic<std::uint64_t> pages{0};  ///< Pages checked, in all.
  std::atomic<std::uint64_t> rounds[kMostThreads] = {};
};

Ledger* ledger = nullptr;

void count(std::uint64_t slot, std::uint64_t& remembered) {
  std::uint64_t expected = remembered;
  if (!ledger->rounds[slot].compare_exchange_strong(expected, remembered + 1)) {
    ++ledger->twice;
    check::fail("runs twice: thread %lu remembers %lu, the file says %lu", slot, remembered,
                expected);
  }
  ++remembered;
}

std::uint64_t mixed(std::uint64_t page, std::uint64_t version, std::uint64_t word) {
  std::uint64_t x = page * 0x9E3779B97F4A7C15U + version * 0xC2B2AE3D27D4EB4FU + word;
  x = (x ^ (x >> 29U)) * 0xBF58476D1CE4E5B9U;
  return x ^ (x >> 32U);
}

/// Pages of one thread: some that it changes, some that it never touches before the end, some that
/// do not exist at all.
class Slice {
 public:
  Slice(std::uint64_t first, std::uint64_t count)
      : x_first(first),
        x_versions(count, 0),
        x_words(static_cast<std::uint64_t*>(check::map_memory(count * kPageWords * 8))) {
    for (std::uint64_t page = 0; page < count; ++page) {
      if (!is_hole(page)) {
        write(page);
      }
    }
  }

  std::uint64_t size() const { return x_versions.size(); }
  /// Never existed, or is left alone until the end.
  static bool is_hole(std::uint64_t page) { return page % 8 == 7; }
  static bool is_cold(std::uint64_t page) { return page % 4 == 2 || is_hole(page); }

  void verify(std::uint64_t page) const {
    const std::uint64_t* words = x_words + page * kPageWords;
    for (std::uint64_t word = 0; word < kPageWords; ++word) {
      const std::uint64_t expected =
          is_hole(page) ? 0 : mixed(x_first + page, x_versions[page], word);
      if (words[word] != expected) {
        ++ledger->wrong;
        check::fail("wrong page: page %lu word %lu is %lx, expected %lx", x_first + page, word,
                    words[word], expected);
      }
    }
    ++ledger->pages;
  }
  void change(std::uint64_t page) {
    ++x_versions[page];
    write(page);
  }

 private:
  void write(std::uint64_t page) {
    for (std::uint64_t word = 0; word < kPageWords; ++word) {
      x_words[page * kPageWords + word] = mixed(x_first + page, x_versions[page], word);
    }
  }

  std::uint64_t x_first;
  std::vector<std::uint64_t> x_versions;
  std::uint64_t* x_words;
};

void work(std::uint64_t slot, Slice& slice) {
  check::Random random(slot + 1);
  std::uint64_t remembered = 0;
  while (!stopping()) {
    count(slot, remembered);
    for (int i = 0; i < 4; ++i) {
      const std::uint64_t page = random.below(slice.size());
      if (!Slice::is_cold(page)) {
        slice.verify(page);
        if (random.below(2) == 0) {
          slice.change(page);
        }
      }
    }
    count(slot, remembered);
    check::sleep_ns(kBeatNs);
  }
}

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

void copies() {
  const std::string path = check::work_path("ledger");
  const int file = check::called(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666), "open");
  check::called(::ftruncate(file, sizeof(Ledger)), "ftruncate");
  ledger = static_cast<Ledger*>(
      check::map_memory(sizeof(Ledger), PROT_READ | PROT_WRITE, MAP_SHARED, file));
  ::close(file);
  const std::uint64_t thread_count = std::min<std::uint64_t>(setting("COPIES_THREADS", 4), 64);
  const std::uint64_t each = setting("COPIES_MIB", 16) * 256 / thread_count;
  std::vector<Slice> slices;
  slices.reserve(thread_count);
  for (std::uint64_t slot = 0; slot < thread_count; ++slot) {
    slices.emplace_back(slot * each, each);
  }
  std::vector<std::thread> threads;
  for (std::uint64_t slot = 0; slot < thread_count; ++slot) {
    threads.emplace_back(work, slot, std::ref(slices[slot]));
  }
  check::ready();
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const Slice& slice : slices) {
    for (std::uint64_t page = 0; page < slice.size(); ++page) {
      slice.verify(page);
    }
  }
  ledger->whole = 1;
}

constexpr check::Property kProperties[] = {{"copies", copies}};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
