// A running process is looked at: what it writes shows, and nothing of it changes.
#include "libmigrate/advisor/memory_sample.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "base/mapping.h"

namespace migrate {
namespace {

constexpr std::uint64_t kStart = 0x10000;

/// Memory of a process that is none: pages have numbers.
class StandInReader final : public PageReader {
 public:
  Result<std::uint64_t> read(std::span<const PageRange> ranges,
                             std::span<std::byte> bytes) override {
    ++reads;
    if (gone) {
      return fail(make_error(ErrorCode::kNotFound, "read memory"));
    }
    const std::uint64_t page = (ranges[0].start - kStart) / kPageBytes;
    std::memset(bytes.data(), 0, bytes.size());
    std::memcpy(bytes.data(), &writes[page], sizeof(writes[page]));
    return unreadable ? 0 : 1;
  }
  Result<void> scan(const ServedRegion& region, std::vector<PageRange>& present) override {
    largest_scan = std::max(largest_scan, region.range.page_count);
    present.push_back(region.range);
    return {};
  }

  std::map<std::uint64_t, std::uint64_t> writes;
  std::uint64_t largest_scan = 0;
  int reads = 0;
  bool gone = false;
  bool unreadable = false;
};

ServedRegion region(std::uint64_t first_page, std::uint64_t pages) {
  return {.range = {kStart + first_page * kPageBytes, pages}};
}

TEST(MemorySample, SeesWhatIsWrittenInEachPieceOfTime) {
  StandInReader reader;
  std::uint64_t now = 1000;
  const auto wait = [&](std::chrono::microseconds time) -> Result<void> {
    now += static_cast<std::uint64_t>(time.count());
    const std::uint64_t until = now > 150'000 ? 2000 : now > 50'000 ? 1000 : 200;
    for (std::uint64_t page = 0; page < until; ++page) {
      ++reader.writes[page];
    }
    return {};
  };
  const auto facts =
      sample_memory(reader, {region(0, 4000), region(4000, 6000)},
                    {.time = std::chrono::microseconds(160'000), .wait = wait, .clock = [&now] {
                       return static_cast<std::int64_t>(now);
                     }});
  ASSERT_TRUE(facts);
  EXPECT_EQ(facts->pages, 10'000U);
  EXPECT_EQ(reader.reads, 4 * 2048);
  ASSERT_EQ(facts->writes.seen.size(), 3U);
  EXPECT_EQ(facts->writes.seen[0].us, 10'000);
  EXPECT_NEAR(facts->writes.seen[0].share, 0.02, 0.005);
  EXPECT_EQ(facts->writes.seen[1].us, 80'000);
  EXPECT_NEAR(facts->writes.seen[1].share, 0.1, 0.01);
  EXPECT_EQ(facts->writes.watched_us(), 160'000);
  EXPECT_NEAR(facts->writes.whole(), 0.2, 0.01);
}

TEST(MemorySample, OfLittleMemoryReadsEveryPage) {
  StandInReader reader;
  const auto wait = [&](std::chrono::microseconds) -> Result<void> {
    reader.writes[2] = 1;
    return {};
  };
  const auto facts = sample_memory(reader, {region(0, 4)}, {.wait = wait});
  ASSERT_TRUE(facts);
  EXPECT_EQ(reader.reads, 16);
  EXPECT_EQ(facts->writes.seen[0].share, 0.25);
  EXPECT_EQ(facts->writes.whole(), 0.25);
}

TEST(MemorySample, FilesThatAreSentAreNeitherReadNorWritten) {
  StandInReader reader;
  ServedRegion file = region(4, 12);
  file.is_all_data = true;
  const auto wait = [&](std::chrono::microseconds) -> Result<void> {
    for (std::uint64_t page = 0; page < 16; ++page) {
      ++reader.writes[page];
    }
    return {};
  };
  const auto facts = sample_memory(reader, {region(0, 4), file}, {.wait = wait});
  ASSERT_TRUE(facts);
  EXPECT_EQ(facts->pages, 16U);
  EXPECT_EQ(facts->writes.whole(), 0.25);
}

TEST(MemorySample, ScansInPieces) {
  StandInReader reader;
  const auto wait = [](std::chrono::microseconds) { return Result<void>(); };
  const auto facts = sample_memory(reader, {region(0, 1U << 20U)}, {.wait = wait});
  ASSERT_TRUE(facts);
  EXPECT_EQ(facts->pages, 1U << 20U);
  EXPECT_EQ(reader.largest_scan, 1U << 14U);
}

TEST(MemorySample, OfNoTimeOnlyCounts) {
  StandInReader reader;
  const auto facts =
      sample_memory(reader, {region(0, 4)}, {.time = std::chrono::microseconds(0), .wait = {}});
  ASSERT_TRUE(facts);
  EXPECT_EQ(facts->pages, 4U);
  EXPECT_TRUE(facts->writes.seen.empty());
  EXPECT_EQ(reader.reads, 0);
}

TEST(MemorySample, EndsWithTheProcessAndWithWhoWaits) {
  StandInReader reader;
  const auto cancelled = [](std::chrono::microseconds) -> Result<void> {
    return fail(make_error(ErrorCode::kCancelled, "move"));
  };
  EXPECT_EQ(sample_memory(reader, {region(0, 4)}, {.wait = cancelled}).error().code,
            ErrorCode::kCancelled);
  reader.unreadable = true;
  const auto wait = [](std::chrono::microseconds) { return Result<void>(); };
  EXPECT_EQ(sample_memory(reader, {region(0, 4)}, {.wait = wait})->writes.whole(), 0);
  reader.gone = true;
  EXPECT_EQ(sample_memory(reader, {region(0, 4)}, {.wait = wait}).error().code,
            ErrorCode::kNotFound);
}

// The pages that are there, and no others, are read: nothing comes to be there by that.
TEST(MemorySample, OfARealProcessMakesNoPages) {
  Mapping memory = Mapping::create(64 * kPageBytes).value();
  for (std::size_t page = 0; page < 64; page += 2) {
    memory.bytes()[page * kPageBytes] = std::byte{1};
  }
  const auto start = reinterpret_cast<std::uint64_t>(memory.bytes().data());
  auto reader = ProcessPageReader::create(::getpid()).value();
  const std::vector<ServedRegion> regions = {{.range = {start, 64}}};
  const auto wait = [&](std::chrono::microseconds) -> Result<void> {
    memory.bytes()[0] ^= std::byte{1U << 7U};
    return {};
  };
  const auto facts = sample_memory(*reader, regions, {.wait = wait});
  ASSERT_TRUE(facts) << facts.error().message();
  EXPECT_EQ(facts->pages, 32U);
  EXPECT_NEAR(facts->writes.whole(), 1.0 / 32, 1e-9);
  std::vector<PageRange> present;
  ASSERT_TRUE(reader->scan(regions[0], present));
  EXPECT_EQ(present.size(), 32U);
}

}  // namespace
}  // namespace migrate
