#include "libmigrate/proc/pagemap.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <vector>

#include "base/file.h"
#include "pager/page_range.h"
#include "tests/transport/temporary_directory.h"

namespace migrate::inspect {
namespace {

constexpr std::uint64_t kPages = 8;

std::uint64_t address_of(const void* place) {
  return reinterpret_cast<std::uint64_t>(place);
}

/// A private mapping of a file, of which nothing was touched yet.
class PrivatePages : public testing::Test {
 protected:
  void SetUp() override {
    const std::vector<std::byte> content(kPages * kPageBytes, std::byte{'f'});
    const UniqueFd file = open_file(directory_.file("mapped"), O_RDWR | O_CREAT).value();
    ASSERT_TRUE(write_all(file.get(), content));
    void* const place =
        ::mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.get(), 0);
    ASSERT_NE(place, MAP_FAILED);
    memory_ = static_cast<char*>(place);
  }
  void TearDown() override { ::munmap(memory_, kPages * kPageBytes); }

  /// Of pages [first, last).
  bool has_private(std::uint64_t first, std::uint64_t last) const {
    const std::uint64_t start = address_of(memory_);
    return has_private_pages(pagemap_.get(), start + first * kPageBytes, start + last * kPageBytes)
        .value();
  }

  test::TemporaryDirectory directory_;
  UniqueFd pagemap_ = open_file("/proc/self/pagemap", O_RDONLY).value();
  char* memory_ = nullptr;
};

TEST_F(PrivatePages, AreThoseThatWereWrittenTo) {
  EXPECT_FALSE(has_private(0, kPages));
  const volatile char* const read_only = memory_;
  for (std::uint64_t page = 0; page < kPages; ++page) {
    EXPECT_EQ(read_only[page * kPageBytes], 'f');
  }
  EXPECT_FALSE(has_private(0, kPages));  // Read, they are still the file's.
  memory_[3 * kPageBytes] = 'p';
  EXPECT_TRUE(has_private(0, kPages));
  EXPECT_TRUE(has_private(3, 4));
  EXPECT_FALSE(has_private(0, 3));
  EXPECT_FALSE(has_private(4, kPages));
}

TEST_F(PrivatePages, AreNoneAgainWhenTheyWereGivenBack) {
  memory_[5 * kPageBytes] = 'p';
  EXPECT_TRUE(has_private(0, kPages));
  ASSERT_EQ(::madvise(memory_, kPages * kPageBytes, MADV_DONTNEED), 0);
  EXPECT_FALSE(has_private(0, kPages));
}

TEST_F(PrivatePages, AreReadEntryByEntryWhereTheKernelCannotScan) {
  // A file that is no pagemap has no scan either, and is read: entries as proc(5) describes them.
  constexpr std::uint64_t kPresent = std::uint64_t{1} << 63U;
  constexpr std::uint64_t kSwapped = std::uint64_t{1} << 62U;
  constexpr std::uint64_t kFile = std::uint64_t{1} << 61U;
  std::vector<std::uint64_t> entries(1100, 0);  // More than one read takes.
  entries[1] = kPresent | kFile;
  entries[2] = kSwapped | kFile;
  entries[3] = kFile | 0x1234;
  entries[700] = kSwapped;
  entries[1000] = kPresent | 0x1234;
  const UniqueFd file = open_file(directory_.file("entries"), O_RDWR | O_CREAT).value();
  ASSERT_TRUE(write_all(file.get(), std::as_bytes(std::span(entries))));
  const auto look = [&](std::uint64_t first, std::uint64_t last) {
    return has_private_pages(file.get(), first * kPageBytes, last * kPageBytes);
  };
  EXPECT_FALSE(look(0, 700).value());
  EXPECT_TRUE(look(0, 701).value());
  EXPECT_TRUE(look(700, 701).value());
  EXPECT_FALSE(look(701, 1000).value());
  EXPECT_TRUE(look(701, 1001).value());
  EXPECT_FALSE(look(1001, 1100).value());
  EXPECT_FALSE(look(1001, 1101));  // It ends before the range does.
}

TEST(ScanPiece, IsSmallerWhereItTakesLong) {
  ScanPiece piece;
  const std::uint64_t before = piece.bytes();
  piece.note(std::chrono::milliseconds(2));
  EXPECT_LT(piece.bytes(), before);
  for (int i = 0; i < 100; ++i) {
    piece.note(std::chrono::seconds(1));
  }
  EXPECT_GT(piece.bytes(), 0U);
  EXPECT_EQ(piece.bytes() % (512 * kPageBytes), 0U);
}

TEST(ScanPiece, IsLargerWhereThereIsLittle) {
  ScanPiece piece;
  const std::uint64_t before = piece.bytes();
  for (int i = 0; i < 100; ++i) {
    piece.note(std::chrono::microseconds(1));
    EXPECT_GE(piece.bytes(), before);
  }
  EXPECT_GT(piece.bytes(), before);
  EXPECT_LE(piece.bytes(), kAddressLimit);
}

TEST(GuardRegions, AreToldOfManyPieces) {
  constexpr int kGuardInstall = 102;
  constexpr std::uint64_t kLength = std::uint64_t{1} << 34U;  // Of addresses.
  void* const place = ::mmap(nullptr, kLength, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(place, MAP_FAILED);
  const UniqueFd pagemap = open_file("/proc/self/pagemap", O_RDONLY).value();
  const std::uint64_t start = address_of(place);
  const std::vector<std::uint64_t> places{0, kLength / 3 / kPageBytes * kPageBytes,
                                          kLength - kPageBytes};
  bool made = true;
  for (const std::uint64_t offset : places) {
    made = made && ::madvise(static_cast<char*>(place) + offset, kPageBytes, kGuardInstall) == 0;
  }
  const auto guards = guard_regions(pagemap.get(), start, start + kLength).value();
  ::munmap(place, kLength);
  if (!made || guards.empty()) {
    GTEST_SKIP() << "the kernel has no guard regions, or does not tell of them (before 6.15)";
  }
  ASSERT_EQ(guards.size(), places.size());
  for (std::size_t i = 0; i < places.size(); ++i) {
    EXPECT_EQ(guards[i].start, start + places[i]);
  }
}

TEST(GuardRegions, AreToldHoweverManyThereAre) {
  constexpr int kGuardInstall = 102;      // MADV_GUARD_INSTALL, Linux 6.13
  constexpr std::uint64_t kGuards = 150;  // More than one scan tells of.
  constexpr std::uint64_t kLength = 2 * kGuards * kPageBytes;
  void* const place =
      ::mmap(nullptr, kLength, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(place, MAP_FAILED);
  const UniqueFd pagemap = open_file("/proc/self/pagemap", O_RDONLY).value();
  const std::uint64_t start = address_of(place);
  EXPECT_TRUE(guard_regions(pagemap.get(), start, start + kLength).value().empty());
  char* const memory = static_cast<char*>(place);
  bool made = true;
  for (std::uint64_t i = 0; i < kGuards; ++i) {
    made = made && ::madvise(memory + 2 * i * kPageBytes, kPageBytes, kGuardInstall) == 0;
  }
  const auto guards = guard_regions(pagemap.get(), start, start + kLength).value();
  const auto some = guard_regions(pagemap.get(), start + kPageBytes, start + 3 * kPageBytes);
  ::munmap(place, kLength);
  if (!made || guards.empty()) {
    GTEST_SKIP() << "the kernel has no guard regions, or does not tell of them (before 6.15)";
  }
  ASSERT_EQ(guards.size(), kGuards);
  for (std::uint64_t i = 0; i < kGuards; ++i) {
    EXPECT_EQ(guards[i].start, start + 2 * i * kPageBytes);
    EXPECT_EQ(guards[i].page_count, 1U);
  }
  ASSERT_EQ(some.value().size(), 1U);
  EXPECT_EQ(some.value()[0].start, start + 2 * kPageBytes);
}

TEST(GuardRegions, AreNoneWhereNothingCanBeAsked) {
  const test::TemporaryDirectory directory;
  const UniqueFd file = open_file(directory.file("none"), O_RDWR | O_CREAT).value();
  EXPECT_TRUE(guard_regions(file.get(), 0, kPageBytes).value().empty());
}

}  // namespace
}  // namespace migrate::inspect
