// Pages that come before their process is frozen at the source: what is used of them, and what a
// source may not do.
#include "pager/staging.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <optional>

#include "base/file.h"
#include "pager/round_sender.h"
#include "tests/pager/socket_link.h"

namespace migrate::test {
namespace {

constexpr std::uint64_t kStagedPages = 16;
constexpr std::uint64_t kStagedSource =
    0x10000000;  // Where the memory is in a source that is not there.

constexpr std::uint64_t source_page(std::uint64_t page) {
  return kStagedSource + page * kPageBytes;
}

/// Memory of this process that a pager has, all of which is owed.
class Stagings : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs CAP_SYS_PTRACE";
    }
    void* const mapped = ::mmap(nullptr, 3 * kStagedPages * kPageBytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(mapped, MAP_FAILED);
    memory_ = static_cast<std::byte*>(mapped) + kStagedPages * kPageBytes;
    auto userfault = Userfault::create_for_self();
    ASSERT_TRUE(userfault) << userfault.error().message();
    PagerOptions options;
    options.process = ::getpid();
    auto pager =
        Pager::create(std::move(options), std::move(*userfault), {region(kStagedPages)}, {});
    ASSERT_TRUE(pager) << pager.error().message();
    pager_ = std::move(*pager);
    std::tie(here_, there_) = make_link_pair();
    make_staging(kStagedPages);
  }

  void TearDown() override {
    pager_.reset();  // From here on what is missing is zero.
    if (memory_ != nullptr) {
      ::munmap(memory_ - kStagedPages * kPageBytes, 3 * kStagedPages * kPageBytes);
    }
  }

  PagerRegion region(std::uint64_t pages) const {
    return {.destination = {reinterpret_cast<std::uint64_t>(memory_), pages},
            .source_address = kStagedSource};
  }
  void make_staging(std::uint64_t most_pages) {
    auto memory = open_file("/proc/self/mem", O_RDWR | O_CLOEXEC);
    ASSERT_TRUE(memory);
    staging_.emplace(*pager_, std::move(*memory), most_pages);
  }

  template <class... Parts>
  Result<bool> take(const Parts&... parts) {
    std::vector<std::byte> message;
    (message.insert(message.end(), parts.begin(), parts.end()), ...);
    return staging_->take(*here_, message);
  }
  Result<bool> push(std::uint64_t first, std::uint32_t pages, char content,
                    PageKind kind = PageKind::kData) {
    PushHeader header;
    header.run_count = 1;
    const PushRun run{source_page(first), pages, kind};
    const std::vector<std::byte> bytes(kind == PageKind::kData ? pages * kPageBytes : 0,
                                       static_cast<std::byte>(content));
    return take(message_bytes(header), message_bytes(run), bytes);
  }
  Result<bool> keep(const PageSet& pages, bool last = true) {
    PresenceHeader header;
    header.type = MessageType::kKept;
    header.last = last ? 1 : 0;
    header.range_count = static_cast<std::uint32_t>(pages.size());
    header.covered_start = pages.empty() ? 0 : pages.front().start;
    header.covered_end = pages.empty() ? 0 : pages.back().end();
    return take(message_bytes(header), std::as_bytes(std::span(pages)));
  }
  Result<void> use(const PageSet& kept) {
    return pager_->keep_staged(kept, [this](const PageSet& pages) -> Result<void> {
      discarded_ = pages;
      for (const PageRange& range : pages) {
        ::madvise(memory_ + (range.start - region(0).destination.start), range.bytes(),
                  MADV_DONTNEED);
      }
      return {};
    });
  }
  char content(std::uint64_t page) const {
    return static_cast<char>(memory_[page * kPageBytes + 17]);
  }
  bool is_there(std::uint64_t page) const {
    unsigned char there = 0;
    ::mincore(memory_ + page * kPageBytes, kPageBytes, &there);
    return (there & 1U) != 0;
  }
  std::uint64_t address(std::uint64_t page) const {
    return region(0).destination.start + page * kPageBytes;
  }

  std::byte* memory_ = nullptr;
  std::unique_ptr<Pager> pager_;
  std::optional<Staging> staging_;
  std::unique_ptr<PageLink> here_;
  std::unique_ptr<PageLink> there_;
  PageSet discarded_;
};

TEST_F(Stagings, TheLastThatCameOfAPageCounts) {
  ASSERT_TRUE(push(0, 4, 'a'));
  ASSERT_TRUE(push(2, 4, 'b'));
  ASSERT_TRUE(push(3, 1, 0, PageKind::kZero));
  ASSERT_TRUE(push(8, 1, 0, PageKind::kZero));
  ASSERT_TRUE(push(9, 1, 0, PageKind::kZero));
  ASSERT_TRUE(push(9, 1, 'c'));
  const PageSet kept{{source_page(0), 6}, {source_page(8), 2}};
  const auto last = keep(kept);
  ASSERT_TRUE(last && *last);
  EXPECT_EQ(staging_->kept(), kept);
  ASSERT_TRUE(use(staging_->kept()));
  EXPECT_EQ(discarded_, PageSet());
  EXPECT_EQ(std::string({content(0), content(1), content(2), content(3), content(4), content(5)}),
            std::string("aab\0bb", 6));
  EXPECT_FALSE(is_there(8));  // Zero when it is touched.
  EXPECT_EQ(content(9), 'c');
  EXPECT_EQ(pager_->statistics().staged_pages, 8U);
  EXPECT_EQ(pager_->owed_pages(), kStagedPages - 8);
}

TEST_F(Stagings, WhatIsNotKeptIsOwedAgain) {
  ASSERT_TRUE(push(0, 8, 'a'));
  ASSERT_TRUE(push(8, 2, 0, PageKind::kZero));
  ASSERT_TRUE(use({{source_page(1), 2}, {source_page(6), 2}}));
  EXPECT_EQ(discarded_, (PageSet{{address(0), 1}, {address(3), 3}}));
  EXPECT_EQ(pager_->owed_pages(), kStagedPages - 4);
  for (const std::uint64_t page : {0, 3, 4, 5, 8, 9, 10}) {
    EXPECT_FALSE(is_there(page)) << page;
  }
  EXPECT_EQ(content(1), 'a');
  EXPECT_EQ(content(7), 'a');
  // They can come again, as any that are missing.
  const std::vector<std::byte> fresh(kPageBytes, std::byte{'z'});
  EXPECT_TRUE(pager_->install_starter(address(3), fresh));
  EXPECT_EQ(content(3), 'z');
}

TEST_F(Stagings, WhatAStarterPageHasCountsForMore) {
  ASSERT_TRUE(push(0, 2, 'a'));
  ASSERT_TRUE(use({{source_page(0), 2}}));
  const std::vector<std::byte> fresh(3 * kPageBytes, std::byte{'z'});
  ASSERT_TRUE(pager_->install_starter(address(1), fresh));
  EXPECT_EQ(std::string({content(0), content(1), content(2), content(3)}), "azzz");
}

TEST_F(Stagings, StayWhereTheRegionsDo) {
  ASSERT_TRUE(push(0, 8, 'a'));
  // It loses its end, then grows beyond what it was.
  ASSERT_TRUE(pager_->update_regions({region(4)}));
  ASSERT_EQ(::madvise(memory_ + 4 * kPageBytes, 4 * kPageBytes, MADV_DONTNEED), 0);
  ASSERT_TRUE(pager_->update_regions({region(kStagedPages + 4)}));
  EXPECT_EQ(pager_->owed_pages(), kStagedPages);
  EXPECT_EQ(use({{source_page(0), 5}}).error().code, ErrorCode::kCorrupt);
  ASSERT_TRUE(use({{source_page(0), 4}}));
  EXPECT_EQ(content(3), 'a');
  EXPECT_FALSE(is_there(4));
}

TEST_F(Stagings, SomebodysPageIsNotTakenForOneOfTheProcess) {
  ASSERT_TRUE(push(0, 2, 'a'));
  const auto used = pager_->keep_staged({{source_page(0), 1}}, [this](const PageSet&) {
    ::madvise(memory_ + kPageBytes, kPageBytes, MADV_DONTNEED);
    memory_[12 * kPageBytes] = std::byte{1};
    return Result<void>();
  });
  ASSERT_FALSE(used);
  EXPECT_EQ(used.error().code, ErrorCode::kRetry);
  EXPECT_EQ(used.error().address, address(12));
}

TEST_F(Stagings, ASourceMayNotSendWhatItHasNotOffered) {
  const auto is_refused = [](const Result<bool>& taken) {
    return !taken && taken.error().code == ErrorCode::kCorrupt;
  };
  EXPECT_TRUE(is_refused(push(kStagedPages, 1, 'a')));      // Outside,
  EXPECT_TRUE(is_refused(push(kStagedPages - 1, 2, 'a')));  // partly outside,
  EXPECT_TRUE(is_refused(push(0, 1, 'a', PageKind::kError)));
  make_staging(4);
  EXPECT_TRUE(is_refused(push(4, 5, 'a')));  // more than was agreed on,
  make_staging(4);
  EXPECT_TRUE(is_refused(push(10, 5, 0, PageKind::kZero)));  // whatever is in them.
  PageControl control;
  control.type = MessageType::kDone;
  EXPECT_TRUE(is_refused(take(message_bytes(control))));
  PresenceHeader presence;
  EXPECT_TRUE(is_refused(take(message_bytes(presence))));
}

TEST_F(Stagings, ASourceMayNotSendWhatIsOutOfOrder) {
  ASSERT_TRUE(push(0, 4, 'a'));
  ASSERT_TRUE(keep({{source_page(2), 1}}, false));
  EXPECT_FALSE(keep({{source_page(1), 1}}));
  EXPECT_FALSE(push(5, 1, 'a'));  // The rounds are over.
  const auto last = keep({{source_page(3), 1}});
  EXPECT_TRUE(last && *last);
  // Nor that it keeps what has not come.
  EXPECT_EQ(use({{source_page(0), 6}}).error().code, ErrorCode::kCorrupt);
}

TEST_F(Stagings, ARoundIsConfirmed) {
  PageControl end;
  end.type = MessageType::kPushEnd;
  end.sequence = 7;
  ASSERT_TRUE(take(message_bytes(end)));
  EXPECT_EQ(staging_->rounds(), 1U);
  const auto answer = there_->receive(0, 1000);
  ASSERT_TRUE(answer);
  const auto control = parse_control(*answer);
  ASSERT_TRUE(control);
  EXPECT_EQ(control->type, MessageType::kConfirm);
  EXPECT_EQ(control->sequence, 7U);
}

}  // namespace
}  // namespace migrate::test
