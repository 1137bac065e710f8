// A process made anew in a cell: its memory.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

#include "base/file.h"
#include "libmigrate/proc/proc_text.h"
#include "tests/libmigrate/restore/restored_world.h"

namespace migrate {
namespace {

using test::RestoredProcess;

constexpr std::uint64_t kPages = 400;
constexpr int kGuardPages = 102;  // MADV_GUARD_INSTALL, Linux 6.13

/// In the process: maps one thing after the other, each apart from the last one.
class Mapper {
 public:
  explicit Mapper(char* place) : next_(place) {}

  char* map(std::uint64_t pages, int flags, int fd = -1, std::uint64_t first = 0,
            int protection = PROT_READ | PROT_WRITE) {
    char* const place = next_;
    if (::mmap(place, pages * kPageBytes, protection, flags | MAP_FIXED, fd,
               static_cast<off_t>(first * kPageBytes)) != place) {
      ::_exit(2);
    }
    next_ += (pages + 1) * kPageBytes;
    return place;
  }
  char* anonymous(std::uint64_t pages, int flags = 0) {
    char* const place = map(pages, MAP_PRIVATE | MAP_ANONYMOUS | flags);
    fill(place, pages);
    return place;
  }
  void advised(int advice) { ::madvise(anonymous(3), 3 * kPageBytes, advice); }
  void fill(char* place, std::uint64_t pages) {
    for (std::uint64_t page = 0; page < pages; ++page) {
      std::memset(place + page * kPageBytes, ++letter_, 100);
    }
  }

 private:
  char* next_;
  char letter_ = 'a';
};

class RestoredMemory : public test::RestoredTest {
 protected:
  void SetUp() override {
    RestoredTest::SetUp();
    const std::vector<std::byte> content(6 * kPageBytes, std::byte{'F'});
    file_ = open_file(directory_.file("mapped"), O_RDWR | O_CREAT).value();
    ASSERT_TRUE(write_all(file_.get(), content));
    // Reserved here, so that the process has the place free.
    void* const place = ::mmap(nullptr, kPages * kPageBytes, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT_NE(place, MAP_FAILED);
    place_ = static_cast<char*>(place);
  }
  void TearDown() override { ::munmap(place_, kPages * kPageBytes); }

  /// In the process: opens the file, whose descriptors of ours are closed.
  int reopen(int flags) const { return ::open(directory_.file("mapped").c_str(), flags); }
  Mapper mapper() const {
    ::munmap(place_, kPages * kPageBytes);
    return Mapper(place_);
  }
  static void close_all() { ::syscall(SYS_close_range, 3, 999, 0); }

  /// What smaps tells of each mapping that the test made, but what is the kernel's business.
  std::string told_of(pid_t process) const {
    const std::string smaps = read_file("/proc/" + std::to_string(process) + "/smaps").value();
    std::ostringstream told;
    const std::vector<MapsEntry> entries = parse_maps(smaps).value();
    for (const MapsEntry& entry : entries) {
      if (!in_place(entry)) {
        continue;
      }
      told << entry.start - reinterpret_cast<std::uint64_t>(place_) << "-"
           << entry.end - reinterpret_cast<std::uint64_t>(place_) << " " << entry.protection
           << (entry.shared ? " s " : " p ");
      const bool own = !entry.shared && (entry.protection & PROT_WRITE) != 0;
      if (entry.name.starts_with('/') && !own) {
        told << entry.offset << " " << entry.name.substr(0, entry.name.find(" (deleted)"));
      }
      std::istringstream flags(entry.flags);
      for (std::string flag; flags >> flag;) {
        told << (flag == "sd" || flag == "ac" || flag == "nr" || flag == "mm" ? "" : " " + flag);
      }
      told << "\n";
    }
    return told.str();
  }
  bool in_place(const MapsEntry& entry) const {
    const auto start = reinterpret_cast<std::uint64_t>(place_);
    return start <= entry.start && entry.end <= start + kPages * kPageBytes;
  }
  /// All bytes of it, of every kind of mapping.
  std::string content_of(pid_t process) const {
    const std::string folder = "/proc/" + std::to_string(process);
    const UniqueFd memory = open_file(folder + "/mem", O_RDONLY).value();
    std::string content;
    const auto entries = parse_maps(read_file(folder + "/maps").value()).value();
    for (const MapsEntry& entry : entries) {
      std::array<char, kPageBytes> page{};
      for (std::uint64_t at = entry.start; in_place(entry) && at < entry.end; at += kPageBytes) {
        const auto place = static_cast<off_t>(at);
        const bool is_there = ::pread(memory.get(), page.data(), page.size(), place) > 0;
        content += is_there ? std::string(page.data(), page.size()) : std::string("none");
      }
    }
    return content;
  }
  void expect_same_memory() {
    EXPECT_EQ(told_of(there()), told_of(here()));
    EXPECT_TRUE(content_of(there()) == content_of(here()));
    expect_rest(there());
    expect_same_image();
  }
  void write_here(std::uint64_t page, pid_t process, const std::string& text) const {
    const UniqueFd memory = open_file("/proc/" + std::to_string(process) + "/mem", O_RDWR).value();
    const auto at = reinterpret_cast<std::uint64_t>(place_) + page * kPageBytes;
    EXPECT_EQ(::pwrite(memory.get(), text.data(), text.size(), static_cast<off_t>(at)),
              static_cast<ssize_t>(text.size()));
  }
  std::string read_here(std::uint64_t page, pid_t process, std::size_t length) const {
    const UniqueFd memory =
        open_file("/proc/" + std::to_string(process) + "/mem", O_RDONLY).value();
    const auto at = reinterpret_cast<std::uint64_t>(place_) + page * kPageBytes;
    std::string text(length, '?');
    EXPECT_EQ(::pread(memory.get(), text.data(), length, static_cast<off_t>(at)),
              static_cast<ssize_t>(length));
    return text;
  }

  test::TemporaryDirectory directory_;
  UniqueFd file_;
  char* place_ = nullptr;
};

TEST_F(RestoredMemory, OfItsOwnIsTheSameWithAllAdvice) {
  start([this] {
    Mapper mapper = this->mapper();
    mapper.anonymous(3);
    char* const read_only = mapper.anonymous(2);
    ::mprotect(read_only, 2 * kPageBytes, PROT_READ);
    ::mprotect(mapper.anonymous(2), 2 * kPageBytes, PROT_NONE);
    ::mprotect(mapper.anonymous(2), 2 * kPageBytes, PROT_READ | PROT_EXEC);
    mapper.map(5, MAP_PRIVATE | MAP_ANONYMOUS);  // Never touched.
    mapper.anonymous(2, MAP_NORESERVE);
    for (const int advice : {MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTFORK, MADV_WIPEONFORK,
                             MADV_DONTDUMP, MADV_SEQUENTIAL, MADV_RANDOM}) {
      mapper.advised(advice);
    }
    ::mlock2(mapper.anonymous(2), 2 * kPageBytes, MLOCK_ONFAULT);
    char* const changed = mapper.anonymous(6);  // Three mappings of it.
    ::mprotect(changed + 2 * kPageBytes, 2 * kPageBytes, PROT_READ);
  });
  ASSERT_NO_FATAL_FAILURE(move());
  const std::string told = told_of(there());
  for (const char* flag : {" hg", " nh", " dc", " wf", " dd", " sr", " rr", " lo"}) {
    EXPECT_NE(told.find(flag), std::string::npos) << flag;
  }
  expect_same_memory();
}

TEST_F(RestoredMemory, OfFilesIsTheSameAndStillTheFiles) {
  start([this] {
    Mapper mapper = this->mapper();
    const int both = reopen(O_RDWR);
    const int only_read = reopen(O_RDONLY);
    mapper.map(4, MAP_PRIVATE, only_read, 1, PROT_READ);             // Page 0: untouched.
    char* const written = mapper.map(4, MAP_PRIVATE, only_read, 2);  // Page 5
    mapper.fill(written + kPageBytes, 1);
    mapper.map(2, MAP_SHARED, both, 3);                  // Page 10
    mapper.map(2, MAP_SHARED, only_read, 4, PROT_READ);  // Page 13
    mapper.map(1, MAP_SHARED, both, 0, PROT_READ);
    close_all();
  });
  ASSERT_NO_FATAL_FAILURE(move());
  EXPECT_EQ(told_of(there()), told_of(here()));
  EXPECT_TRUE(content_of(there()) == content_of(here()));
  const std::string text = "through the mapping";
  write_here(10, there(), text);
  std::string found(text.size(), '?');
  ASSERT_EQ(::pread(file_.get(), found.data(), found.size(), 3 * kPageBytes),
            static_cast<ssize_t>(found.size()));
  EXPECT_EQ(found, text);
  EXPECT_EQ(read_here(10, here(), text.size()), text);  // The other one has the same file.
}

TEST_F(RestoredMemory, SharedIsSharedByItsMappingsAndWithNobodyElse) {
  start([this] {
    Mapper mapper = this->mapper();
    const int memory = ::memfd_create("two views", 0);
    static_cast<void>(!::ftruncate(memory, 4 * kPageBytes));
    mapper.fill(mapper.map(4, MAP_SHARED, memory), 4);  // Page 0
    mapper.map(2, MAP_SHARED, memory, 2);               // Page 5
    ::close(memory);
    mapper.fill(mapper.map(3, MAP_SHARED | MAP_ANONYMOUS), 3);  // Page 8
    const int open = ::memfd_create("kept open", 0);
    static_cast<void>(!::ftruncate(open, 2 * kPageBytes));
    mapper.fill(mapper.map(2, MAP_SHARED, open), 2);  // Page 12
    mapper.map(1, MAP_SHARED, open, 1, PROT_READ);    // Page 15
  });
  ASSERT_NO_FATAL_FAILURE(move());
  EXPECT_TRUE(content_of(there()) == content_of(here()));
  expect_rest(there());
  expect_same_image();
  write_here(2, there(), "seen by both");
  EXPECT_EQ(read_here(5, there(), 12), "seen by both");
  EXPECT_NE(read_here(2, here(), 12), "seen by both");
  write_here(13, there(), "by all three");
  EXPECT_EQ(read_here(15, there(), 12), "by all three");
}

TEST_F(RestoredMemory, GrowsDownAsItDid) {
  start([this] {
    Mapper mapper = this->mapper();
    for (int i = 0; i < 20; ++i) {
      mapper.map(10, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, PROT_NONE);
    }
    ::munmap(place_, 200 * kPageBytes);
    Mapper(place_ + 200 * kPageBytes).anonymous(2, MAP_GROWSDOWN);
  });
  ASSERT_NO_FATAL_FAILURE(move());
  EXPECT_NE(told_of(there()).find(" gd"), std::string::npos);
  expect_same_memory();
}

TEST_F(RestoredMemory, IsGuardedWhereItWas) {
  start([this] {
    Mapper mapper = this->mapper();
    char* const guarded = mapper.anonymous(6);
    ::madvise(guarded + kPageBytes, 2 * kPageBytes, kGuardPages);
    ::madvise(guarded + 4 * kPageBytes, kPageBytes, kGuardPages);
  });
  ASSERT_NO_FATAL_FAILURE(move());
  if (restored_->source().process().guards_size() == 0) {
    GTEST_SKIP() << "the kernel has no guard regions, or does not tell of them (before 6.15)";
  }
  EXPECT_EQ(restored_->source().process().guards_size(), 2);
  expect_same_memory();
}

TEST_F(RestoredMemory, IsAsTheImageSaysAndNotTheDraft) {
  static char* place = nullptr;
  place = place_;
  start([this] {
    Mapper mapper = this->mapper();
    for (int i = 0; i < 8; ++i) {
      mapper.anonymous(3);  // Pages 0, 4, 8, ... 28
    }
    mapper.map(2, MAP_PRIVATE, reopen(O_RDONLY), 0, PROT_READ);  // Page 32
    close_all();
    ::signal(SIGUSR2, [](int) {
      ::munmap(place, 3 * kPageBytes);
      ::munmap(place + 5 * kPageBytes, kPageBytes);
      ::mprotect(place + 8 * kPageBytes, 3 * kPageBytes, PROT_READ);
      ::mremap(place + 12 * kPageBytes, 3 * kPageBytes, 3 * kPageBytes,
               MREMAP_MAYMOVE | MREMAP_FIXED, place + 100 * kPageBytes);
      Mapper(place + 120 * kPageBytes).anonymous(40);
      ::munmap(place + 32 * kPageBytes, kPageBytes);
      std::memset(place + 4 * kPageBytes, 'n', 10);
    });
  });
  RestoredProcess::Options options{.draft = test::inspect(here()).image};
  ::kill(here(), SIGUSR2);
  ASSERT_TRUE(test::comes_true([this] { return read_here(4, here(), 1) == "n"; }));
  expect_rest(here());
  ASSERT_NO_FATAL_FAILURE(move(options));
  expect_same_memory();
  expect_answer();
}

TEST_F(RestoredMemory, ThatIsWhereTheScriptsRanMakesThemGo) {
  // The restorer takes the lowest place that the draft leaves free: the image wants it by then.
  start();
  constexpr std::uint64_t kLowest = 0x10000;
  move({.change = [](wire::Image& image) {
    wire::Mapping mapping;
    mapping.set_start(kLowest);
    mapping.set_end(kLowest + (1U << 20U));
    mapping.set_protection(PROT_READ | PROT_WRITE);
    auto& mappings = *mutable_only_process(image).mutable_mappings();
    *mappings.Add() = mapping;
    for (int i = mappings.size() - 1; i > 0; --i) {
      mappings.SwapElements(i, i - 1);
    }
  }});
  const std::string maps = read_file(restored_->folder() + "/maps").value();
  EXPECT_TRUE(maps.starts_with("00010000-00110000 rw-p")) << maps.substr(0, 200);
  EXPECT_EQ(maps.find("rwxp"), std::string::npos) << maps;  // No script area is left.
  expect_answer();
}

TEST_F(RestoredMemory, MappedFromNowOnIsLockedIfItWas) {
  start([] { ::mlockall(MCL_FUTURE); });
  ASSERT_NO_FATAL_FAILURE(move());
  EXPECT_TRUE(restored_->source().process().locks_future_memory());
  expect_rest(there());
  expect_same_image();
}

}  // namespace
}  // namespace migrate
