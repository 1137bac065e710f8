#include "pager/write_tracker.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <optional>

#include "base/file.h"

namespace migrate {
namespace {

constexpr std::uint64_t kTrackedPages = 16;
constexpr long kUserModeOnly = 1;  // UFFD_USER_MODE_ONLY

/// Memory of this process, followed.
class WriteTrackers : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto supported = WriteTracker::check_support(); !supported) {
      GTEST_SKIP() << supported.error().message();
    }
    // Each between memory that cannot be used, so that they are mappings of their own.
    room_ = map(nullptr, 64, PROT_NONE, MAP_ANONYMOUS, -1);
    memory_ = map(room_ + 8 * kPageBytes, kTrackedPages, PROT_READ | PROT_WRITE,
                  MAP_ANONYMOUS | MAP_FIXED, -1);
    ASSERT_EQ(::madvise(memory_, kTrackedPages * kPageBytes, MADV_NOHUGEPAGE), 0);
    std::memset(memory_, 1, 8 * kPageBytes);  // The other half does not exist.
    tracker_.emplace(make());
    tracker_->watch({region(memory_, RegionKind::kAnonymous)});
  }

  void TearDown() override {
    tracker_.reset();
    if (room_ != nullptr) {
      ::munmap(room_, 64 * kPageBytes);
    }
  }

  static std::byte* map(void* at, std::uint64_t pages, int protection, int flags, int fd) {
    void* const mapped = ::mmap(at, pages * kPageBytes, protection, MAP_PRIVATE | flags, fd, 0);
    EXPECT_NE(mapped, MAP_FAILED);
    return static_cast<std::byte*>(mapped);
  }

  static WriteTracker make() {
    UniqueFd userfault(
        static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | kUserModeOnly)));
    auto pagemap = open_file("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    EXPECT_TRUE(pagemap);
    auto made = WriteTracker::create(std::move(userfault), std::move(*pagemap));
    EXPECT_TRUE(made) << made.error().message();
    return std::move(*made);
  }

  static ServedRegion region(const std::byte* memory, RegionKind kind) {
    return {.range = {reinterpret_cast<std::uint64_t>(memory), kTrackedPages}, .kind = kind};
  }

  void write(std::uint64_t page) { memory_[page * kPageBytes] = std::byte{2}; }
  std::uint64_t page_of(std::uint64_t page) const {
    return reinterpret_cast<std::uint64_t>(memory_) + page * kPageBytes;
  }
  PageSet written() { return tracker_->take_written().value_or(PageSet{{0, 1}}); }
  PageSet unwritten() { return tracker_->unwritten().value_or(PageSet{{0, 1}}); }

  std::byte* room_ = nullptr;
  std::byte* memory_ = nullptr;
  std::optional<WriteTracker> tracker_;
};

TEST_F(WriteTrackers, TellWhatWasWrittenSinceTheyToldLast) {
  EXPECT_EQ(written(), (PageSet{{page_of(0), 8}}));
  EXPECT_EQ(written(), PageSet());
  EXPECT_EQ(unwritten(), (PageSet{{page_of(0), 8}}));
  write(2);
  write(3);
  write(10);  // It did not exist before.
  EXPECT_EQ(unwritten(), (PageSet{{page_of(0), 2}, {page_of(4), 4}}));
  EXPECT_EQ(written(), (PageSet{{page_of(2), 2}, {page_of(10), 1}}));
  EXPECT_EQ(unwritten(), (PageSet{{page_of(0), 8}, {page_of(10), 1}}));
}

TEST_F(WriteTrackers, BelieveNothingOfWhatWasGivenBackOrMappedAnew) {
  written();
  ASSERT_EQ(::madvise(memory_, kPageBytes, MADV_DONTNEED), 0);
  EXPECT_EQ(unwritten(), (PageSet{{page_of(1), 7}}));
  write(0);
  EXPECT_EQ(unwritten(), (PageSet{{page_of(1), 7}}));
  map(memory_ + 4 * kPageBytes, 2, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_FIXED, -1);
  write(4);
  EXPECT_EQ(unwritten(), (PageSet{{page_of(1), 3}, {page_of(6), 2}}));
  // Nor is what was mapped anew followed, whatever is written there.
  EXPECT_EQ(written(), (PageSet{{page_of(0), 1}}));
  EXPECT_EQ(unwritten(), (PageSet{{page_of(0), 4}, {page_of(6), 2}}));
}

TEST_F(WriteTrackers, BelieveNothingOfWhatWasMoved) {
  written();
  std::byte* const there = room_ + 40 * kPageBytes;
  ASSERT_EQ(::mremap(memory_, 4 * kPageBytes, 4 * kPageBytes, MREMAP_MAYMOVE | MREMAP_FIXED, there),
            there);
  EXPECT_EQ(unwritten(), (PageSet{{page_of(4), 4}}));
  // Over memory that is followed.
  std::memset(there, 3, 4 * kPageBytes);
  ASSERT_EQ(::mremap(there, 4 * kPageBytes, 4 * kPageBytes, MREMAP_MAYMOVE | MREMAP_FIXED,
                     memory_ + 4 * kPageBytes),
            memory_ + 4 * kPageBytes);
  EXPECT_EQ(unwritten(), PageSet());
}

TEST_F(WriteTrackers, FollowWhatIsWrittenBesideAFork) {
  written();
  const pid_t child = ::fork();
  if (child == 0) {
    std::memset(memory_, 4, 8 * kPageBytes);
    ::_exit(0);
  }
  write(5);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_EQ(written(), (PageSet{{page_of(5), 1}}));
}

TEST_F(WriteTrackers, FollowWhatTheKernelWrites) {
  written();
  const int zeros = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(::read(zeros, memory_ + 6 * kPageBytes, 10), 10);
  ::close(zeros);
  EXPECT_EQ(written(), (PageSet{{page_of(6), 1}}));
  const int self = ::open("/proc/self/mem", O_RDWR | O_CLOEXEC);
  ASSERT_EQ(::pwrite(self, "x", 1, static_cast<off_t>(page_of(7))), 1);
  ::close(self);
  EXPECT_EQ(written(), (PageSet{{page_of(7), 1}}));
}

// What a private copy of a file has of the file itself the destination has; and when the copy is
// given back, it is the file again.
TEST_F(WriteTrackers, TellOfFilesOnlyWhatIsNoLongerTheFiles) {
  char name[] = "/tmp/write_tracker_XXXXXX";
  const UniqueFd file(::mkstemp(name));
  ::unlink(name);
  ASSERT_EQ(::ftruncate(file.get(), kTrackedPages * kPageBytes), 0);
  std::byte* const copy =
      map(room_ + 40 * kPageBytes, kTrackedPages, PROT_READ | PROT_WRITE, MAP_FIXED, file.get());
  const auto address = reinterpret_cast<std::uint64_t>(copy);
  volatile const std::byte touched = copy[kPageBytes];
  static_cast<void>(touched);
  copy[3 * kPageBytes] = std::byte{1};
  copy[4 * kPageBytes] = std::byte{1};
  tracker_.emplace(make());
  tracker_->watch({region(copy, RegionKind::kFileCopy)});
  const PageSet both{{address + 3 * kPageBytes, 2}};
  EXPECT_EQ(written(), both);
  EXPECT_EQ(unwritten(), both);
  ASSERT_EQ(::madvise(copy + 3 * kPageBytes, kPageBytes, MADV_DONTNEED), 0);
  EXPECT_EQ(unwritten(), (PageSet{{address + 4 * kPageBytes, 1}}));
}

TEST_F(WriteTrackers, LeaveOutWhatTheyCannotFollow) {
  tracker_.emplace(make());
  WriteTracker other = make();
  ServedRegion shared = region(memory_, RegionKind::kSharedMemory);
  ServedRegion file = region(memory_, RegionKind::kAnonymous);
  file.is_all_data = true;
  const ServedRegion unmapped{.range = {page_of(0) - kPageBytes * 4096 * 1024, 1}};
  tracker_->watch({shared, file, unmapped});
  EXPECT_EQ(written(), PageSet());
  // Somebody else follows it already.
  other.watch({region(memory_, RegionKind::kAnonymous)});
  tracker_->watch({region(memory_, RegionKind::kAnonymous)});
  EXPECT_EQ(written(), PageSet());
}

TEST_F(WriteTrackers, LeaveNothingBehind) {
  written();
  tracker_.reset();
  write(1);
  tracker_.emplace(make());
  tracker_->watch({region(memory_, RegionKind::kAnonymous)});
  EXPECT_EQ(unwritten(), PageSet());
  EXPECT_EQ(written(), (PageSet{{page_of(0), 8}}));
}

}  // namespace
}  // namespace migrate
