// Memory: every page is what it was, wherever it came from and whoever asks for it first.
#include <array>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/programs/check.h"

namespace {

using check::called;
using check::stopping;

constexpr std::size_t kPage = 4096;
constexpr std::size_t kWords = kPage / 8;

/// Pages that hold (index, version) all over, and versions kept apart from them.
class Pattern {
 public:
  Pattern(void* memory, std::size_t length_bytes)
      : x_words(static_cast<std::uint64_t*>(memory)), x_versions(length_bytes / kPage) {
    for (std::size_t page = 0; page < x_versions.size(); ++page) {
      write(page);
    }
  }
  /// Expects pages that hold zeros still, until their first write.
  static Pattern of_zeros(void* memory, std::size_t length_bytes) {
    return Pattern(memory, length_bytes, Empty{});
  }
  std::size_t pages() const { return x_versions.size(); }

  void write(std::size_t page) {
    const std::uint64_t version = ++x_versions[page];
    for (std::size_t word = 0; word < kWords; ++word) {
      x_words[page * kWords + word] = value(page, word, version);
    }
  }
  void verify(std::size_t page) const {
    const std::uint64_t version = x_versions[page];
    for (std::size_t word = 0; word < kWords; ++word) {
      const std::uint64_t expected = version == 0 ? 0 : value(page, word, version);
      const std::uint64_t found = x_words[page * kWords + word];
      if (found != expected) {
        check::fail("page %zu at %p, word %zu is %llx, expected %llx (version %llu)", page,
                    static_cast<const void*>(x_words + page * kWords), word,
                    static_cast<unsigned long long>(found),
                    static_cast<unsigned long long>(expected),
                    static_cast<unsigned long long>(version));
      }
    }
  }
  void verify_all() const {
    for (std::size_t page = 0; page < pages(); ++page) {
      verify(page);
    }
  }
  /// Verifies `page`, and writes it anew now and then.
  void visit(std::size_t page, check::Random& random) {
    verify(page);
    if (random.below(2) == 0) {
      write(page);
    }
  }
  /// The same pages are at `memory` now.
  void move_to(void* memory) { x_words = static_cast<std::uint64_t*>(memory); }
  void forget(std::size_t page) { x_versions[page] = 0; }

 private:
  struct Empty {};
  Pattern(void* memory, std::size_t length_bytes, Empty)
      : x_words(static_cast<std::uint64_t*>(memory)), x_versions(length_bytes / kPage) {}
  static std::uint64_t value(std::size_t page, std::size_t word, std::uint64_t version) {
    return (page * kWords + word) * 0x9E3779B97F4A7C15U ^ version;
  }

  std::uint64_t* x_words;
  std::vector<std::uint64_t> x_versions;
};

/// Visits pages at random until stopping, then verifies all.
void visit_until_stopped(Pattern& pattern, std::uint64_t seed = 1) {
  check::Random random(seed);
  while (!stopping()) {
    for (int turn = 0; turn < 100; ++turn) {
      pattern.visit(random.below(pattern.pages()), random);
    }
  }
  pattern.verify_all();
}

/// Four threads, each on pages of its own, touched at random.
void anonymous() {
  constexpr std::size_t kBytes = 48U << 20U;
  constexpr std::uint64_t kThreads = 4;
  auto* memory = static_cast<char*>(check::map_memory(kBytes * kThreads));
  std::vector<Pattern> patterns;
  for (std::size_t index = 0; index < kThreads; ++index) {
    patterns.emplace_back(memory + index * kBytes, kBytes);
  }
  std::vector<std::thread> threads;
  for (std::size_t index = 0; index < kThreads; ++index) {
    threads.emplace_back([&patterns, index] { visit_until_stopped(patterns[index], index + 1); });
  }
  check::ready();
  for (std::thread& thread : threads) {
    thread.join();
  }
}

/// All threads ask for the same pages at the same time.
void contended() {
  constexpr std::size_t kBytes = 64U << 20U;
  static Pattern pattern(check::map_memory(kBytes), kBytes);
  check::ready();
  std::vector<std::thread> threads;
  for (int index = 0; index < 4; ++index) {
    threads.emplace_back([] {
      check::Random random(1);  // The same order in each.
      while (!stopping()) {
        pattern.verify(random.below(pattern.pages()));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  pattern.verify_all();
}

/// Walks on, page by page, through memory that was filled before.
void sequential() {
  constexpr std::size_t kBytes = 128U << 20U;
  Pattern pattern(check::map_memory(kBytes), kBytes);
  check::Random random(1);
  check::ready();
  while (!stopping()) {
    for (std::size_t page = 0; page < pattern.pages() && !stopping(); ++page) {
      pattern.visit(page, random);
    }
  }
  pattern.verify_all();
}

void shared_anonymous() {
  constexpr std::size_t kBytes = 32U << 20U;
  void* memory = check::map_memory(kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  // The same memory a second time (mremap with an old size of 0).
  void* again = ::mremap(memory, 0, kBytes, MREMAP_MAYMOVE);
  CHECK(again != MAP_FAILED);
  Pattern pattern(memory, kBytes);
  check::Random random(1);
  check::ready();
  while (!stopping()) {
    const std::size_t page = random.below(pattern.pages());
    pattern.visit(page, random);
    CHECK_EQUAL(std::memcmp(static_cast<char*>(memory) + page * kPage,
                            static_cast<char*>(again) + page * kPage, kPage),
                0);
  }
  pattern.verify_all();
}

/// A memfd mapped twice, one mapping of it from the middle on, its descriptor closed.
void memfd_mapped() {
  constexpr std::size_t kBytes = 32U << 20U;
  const int fd = called(::memfd_create("mapped", 0), "memfd_create");
  called(::ftruncate(fd, kBytes), "ftruncate");
  auto* memory =
      static_cast<char*>(check::map_memory(kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd));
  void* half = ::mmap(nullptr, kBytes / 2, PROT_READ, MAP_SHARED, fd, kBytes / 2);
  CHECK(half != MAP_FAILED);
  ::close(fd);
  Pattern pattern(memory, kBytes);
  check::Random random(1);
  check::ready();
  while (!stopping()) {
    const std::size_t page = random.below(pattern.pages());
    pattern.visit(page, random);
    if (page >= pattern.pages() / 2) {
      CHECK_EQUAL(std::memcmp(memory + page * kPage,
                              static_cast<char*>(half) + page * kPage - kBytes / 2, kPage),
                  0);
    }
  }
  pattern.verify_all();
}

constexpr std::size_t kFileBytes = 16U << 20U;

std::uint64_t file_word(std::size_t index) {
  return index * 0xD1B54A32D192ED03U;
}

int make_file(const char* name) {
  std::vector<std::uint64_t> words(kFileBytes / 8);
  for (std::size_t index = 0; index < words.size(); ++index) {
    words[index] = file_word(index);
  }
  const int fd = called(::open(check::work_path(name).c_str(), O_RDWR | O_CREAT, 0644), "open");
  CHECK_EQUAL(::write(fd, words.data(), kFileBytes), static_cast<ssize_t>(kFileBytes));
  return fd;
}

/// A file mapped privately: read only, and writable with some pages modified and others never.
void private_file() {
  const int fd = make_file("private");
  auto* read_only =
      static_cast<std::uint64_t*>(check::map_memory(kFileBytes, PROT_READ, MAP_PRIVATE, fd));
  auto* writable = static_cast<std::uint64_t*>(
      check::map_memory(kFileBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd));
  ::close(fd);
  const std::size_t words = kFileBytes / 8;
  std::vector<bool> modified(words / kWords);
  check::Random random(1);
  check::ready();
  int turn = 0;
  while (!stopping()) {
    const std::size_t index = random.below(words);
    const std::uint64_t expected = file_word(index);
    CHECK_EQUAL(read_only[index], expected);
    const std::size_t page = index / kWords;
    CHECK_EQUAL(writable[index], modified[page] ? ~expected : expected);
    if (turn++ % 500 == 0 && page % 2 == 0 && !modified[page]) {  // Odd pages never are.
      for (std::size_t word = 0; word < kWords; ++word) {
        writable[page * kWords + word] = ~file_word(page * kWords + word);
      }
      modified[page] = true;
    }
  }
  for (std::size_t index = 0; index < words; ++index) {
    CHECK_EQUAL(writable[index], modified[index / kWords] ? ~file_word(index) : file_word(index));
  }
}

/// A file mapped shared: what is written there is in the file.
void shared_file() {
  const int fd = make_file("shared");
  auto* words = static_cast<std::uint64_t*>(
      check::map_memory(kFileBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd));
  check::Random random(1);
  check::ready();
  while (!stopping()) {
    const std::size_t index = random.below(kFileBytes / 8);
    std::uint64_t value = 0;
    CHECK_EQUAL(::pread(fd, &value, 8, static_cast<off_t>(index * 8)), 8);
    CHECK_EQUAL(value, words[index]);
    CHECK(value == file_word(index) || value == ~file_word(index));
    words[index] = ~value;
  }
}

constexpr std::size_t kStatics = 1U << 19U;
constexpr std::size_t kStaticStep = 3;
// In .data (its first and last elements are set), .bss, and .data.rel.ro.
std::array<std::uint64_t, kStatics> in_data = {1, 2, 3, 4, 5, 6, 7, 8};
std::array<std::uint64_t, kStatics> in_bss;
const char* const in_relro[] = {"one", "two", "three"};

/// Static objects: a third of the pages modified before, a third meanwhile, a third never.
void statics() {
  const auto page_of = [](std::size_t index) { return index / kWords; };
  const auto fresh = [](std::size_t index) { return index < 8 ? index + 1 : 0; };
  for (std::size_t index = 8; index < kStatics; ++index) {
    if (page_of(index) % kStaticStep == 0) {
      in_data[index] = in_bss[index] = file_word(index);
    }
  }
  check::Random random(1);
  check::ready();
  while (!stopping()) {
    const std::size_t index = 8 + random.below(kStatics - 8);
    const std::size_t kind = page_of(index) % kStaticStep;
    if (kind == 0) {
      CHECK_EQUAL(in_data[index], file_word(index));
      CHECK_EQUAL(in_bss[index], file_word(index));
    } else if (kind == 1) {
      CHECK(in_data[index] == 0 || in_data[index] == file_word(index));
      CHECK_EQUAL(in_bss[index], in_data[index]);
      in_data[index] = in_bss[index] = file_word(index);
    }
    CHECK_EQUAL(std::string(in_relro[index % 3]),
                index % 3 == 0 ? "one" : (index % 3 == 1 ? "two" : "three"));
  }
  for (std::size_t index = 0; index < kStatics; ++index) {
    if (index < 8 || page_of(index) % kStaticStep == 2) {
      CHECK_EQUAL(in_data[index], fresh(index));
      CHECK_EQUAL(in_bss[index], 0U);
    }
  }
}

/// One region that is unmapped, mapped, moved, grown, shrunk and emptied all the time.
void churn_body(std::uint64_t seed) {
  check::Random random(seed);
  std::size_t length = 400 * kPage;
  char* memory = static_cast<char*>(check::map_memory(length));
  auto pattern = std::make_unique<Pattern>(memory, length);
  while (!stopping()) {
    for (int turn = 0; turn < 50; ++turn) {
      pattern->visit(random.below(pattern->pages()), random);
    }
    switch (random.below(4)) {
      case 0: {  // Emptied: zero from then on.
        const std::size_t first = random.below(pattern->pages() - 20);
        called(::madvise(memory + first * kPage, 20 * kPage, MADV_DONTNEED), "madvise");
        for (std::size_t page = first; page < first + 20; ++page) {
          pattern->forget(page);
          if (random.below(2) == 0) {
            pattern->verify(page);
          }
        }
        break;
      }
      case 1: {  // Moved elsewhere, with all its pages.
        void* place = check::map_memory(length, PROT_NONE);
        void* moved = ::mremap(memory, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, place);
        CHECK(moved == place);
        memory = static_cast<char*>(moved);
        pattern->move_to(memory);
        pattern->verify_all();
        break;
      }
      case 2: {  // Grown, then cut: what was cut is gone, the rest stays.
        void* grown = ::mremap(memory, length, length + 100 * kPage, MREMAP_MAYMOVE);
        CHECK(grown != MAP_FAILED);
        memory = static_cast<char*>(grown);
        for (std::size_t page = length / kPage; page < length / kPage + 100; ++page) {
          CHECK_EQUAL(memory[page * kPage + 5], '\0');
          memory[page * kPage + 5] = 1;
        }
        CHECK(::mremap(memory, length + 100 * kPage, length, 0) == memory);
        pattern->move_to(memory);
        pattern->verify_all();
        break;
      }
      default:  // All gone, and new.
        pattern->verify_all();
        called(::munmap(memory, length), "munmap");
        length = (100 + random.below(600)) * kPage;
        memory = static_cast<char*>(check::map_memory(length));
        for (std::size_t page = 0; page < length / kPage; ++page) {
          CHECK_EQUAL(memory[page * kPage + page % kPage], '\0');
        }
        pattern = std::make_unique<Pattern>(memory, length);
    }
  }
  pattern->verify_all();
  called(::munmap(memory, length), "munmap");
}

void churn() {
  check::ready();
  std::thread other(churn_body, 2);
  churn_body(1);
  other.join();
}

/// Once moved, a big region is dropped, moved or emptied at once, while most of it is remote.
void big_events() {
  constexpr std::size_t kBytes = 64U << 20U;
  constexpr std::size_t kPages = kBytes / kPage;
  auto* memory = static_cast<char*>(check::map_memory(kBytes));
  Pattern pattern(memory, kBytes);
  check::Random random(5);
  check::ready();
  while (!stopping()) {
    check::sleep_ns(60 * check::kMillisecond);
    const std::size_t first = random.below(kPages / 2);
    called(::madvise(memory + first * kPage, kBytes / 4, MADV_DONTNEED), "madvise");
    for (std::size_t page = first; page < first + kPages / 4; ++page) {
      pattern.forget(page);
    }
    for (std::size_t page = 0; page < kPages; page += 1 + random.below(8)) {
      pattern.verify(page);
    }
    // There and back again: mremap carries what is remote as well.
    void* place = check::map_memory(kBytes, PROT_NONE);
    CHECK(::mremap(memory, kBytes, kBytes, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place);
    CHECK(::mremap(place, kBytes, kBytes, MREMAP_MAYMOVE | MREMAP_FIXED, memory) == memory);
    for (std::size_t page = 0; page < kPages; page += 1 + random.below(8)) {
      pattern.visit(page, random);
    }
    for (std::size_t page = first; page < first + kPages / 4; ++page) {
      pattern.write(page);
    }
  }
  pattern.verify_all();
}

/// Islands in a reservation of 1 TiB, and in one of 64 GiB that may be written anywhere.
void sparse() {
  constexpr std::size_t kReserved = 1ULL << 40U;
  constexpr std::size_t kIslands = 64;
  constexpr std::size_t kIslandBytes = 16 * kPage;
  auto* reserved = static_cast<char*>(
      check::map_memory(kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE));
  std::vector<Pattern> islands;
  for (std::size_t index = 0; index < kIslands; ++index) {
    char* island = reserved + index * (kReserved / kIslands) + (1U << 20U);
    called(::mprotect(island, kIslandBytes, PROT_READ | PROT_WRITE), "mprotect");
    islands.emplace_back(island, kIslandBytes);
  }
  constexpr std::size_t kOpen = 64ULL << 30U;
  auto* open = static_cast<char*>(check::map_memory(kOpen, PROT_READ | PROT_WRITE,
                                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE));
  called(::madvise(open, kOpen, MADV_NOHUGEPAGE), "madvise");
  check::Random random(1);
  check::ready();
  while (!stopping()) {
    for (Pattern& island : islands) {
      island.visit(random.below(island.pages()), random);
    }
    const std::size_t page = random.below(2000) * 8192;  // 2000 pages, 32 MiB from each other.
    std::uint64_t value = 0;
    std::memcpy(&value, open + page * kPage, 8);
    CHECK(value == 0 || value == page + 1);
    value = page + 1;
    std::memcpy(open + page * kPage, &value, 8);
    check::sleep_ns(check::kMillisecond / 5);
  }
}

/// Memory never written reads as zero, and costs nothing until written.
void zero() {
  constexpr std::size_t kBytes = 64U << 20U;
  void* memory = check::map_memory(kBytes);
  Pattern pattern = Pattern::of_zeros(memory, kBytes);
  check::Random random(1);
  check::ready();
  while (!stopping()) {
    const std::size_t page = random.below(pattern.pages());
    pattern.verify(page);
    if (page % 16 == 0) {
      pattern.write(page);
    }
  }
  pattern.verify_all();
}

void huge_pages() {
  constexpr std::size_t kBytes = 64U << 20U;
  constexpr std::size_t kHuge = 2U << 20U;
  auto* memory = static_cast<char*>(check::map_memory(kBytes + kHuge));
  memory += kHuge - reinterpret_cast<std::uintptr_t>(memory) % kHuge;
  static_cast<void>(::madvise(memory, kBytes, MADV_HUGEPAGE));
  Pattern pattern(memory, kBytes);
  check::ready();
  visit_until_stopped(pattern);
}

/// The allocator at work in several threads, each block with a checksum of its own.
void allocator() {
  check::ready();
  std::vector<std::thread> threads;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    threads.emplace_back([seed] {
      check::Random random(seed);
      std::vector<std::vector<std::uint64_t>> blocks(2000);
      while (!stopping()) {
        std::vector<std::uint64_t>& block = blocks[random.below(blocks.size())];
        for (std::size_t index = 1; index < block.size(); ++index) {
          CHECK_EQUAL(block[index], block[index - 1] * 3 + index);
        }
        const std::size_t length = random.below(random.below(50) == 0 ? 40'000 : 500);
        block = std::vector<std::uint64_t>(length, random.next());
        for (std::size_t index = 1; index < length; ++index) {
          block[index] = block[index - 1] * 3 + index;
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

constexpr check::Property kProperties[] = {
    {"anonymous", anonymous},
    {"contended", contended},
    {"sequential", sequential},
    {"shared_anonymous", shared_anonymous},
    {"memfd_mapped", memfd_mapped},
    {"private_file", private_file},
    {"shared_file", shared_file},
    {"statics", statics},
    {"churn", churn},
    {"big_events", big_events},
    {"sparse", sparse},
    {"zero", zero},
    {"huge_pages", huge_pages},
    {"allocator", allocator},
};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
