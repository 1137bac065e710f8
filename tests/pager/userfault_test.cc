#include "pager/userfault.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>

namespace migrate {
namespace {

constexpr std::uint64_t kPages = 16;

void* pointer(std::uint64_t address) {
  return reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr)
}

// Two places side by side, the first of which can be used. The kernel maps from the top: others
// find room above them, and not in the place that is empty just now (a sanitizer's runtime did).
std::uint64_t map_two_places() {
  constexpr std::uint64_t kRoomBytes = 1U << 30U;
  constexpr std::uint64_t kUsedBytes = 2 * kPages * kPageBytes;
  void* const room = ::mmap(nullptr, kRoomBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_NE(room, MAP_FAILED);
  const auto start = reinterpret_cast<std::uint64_t>(room);
  EXPECT_EQ(::munmap(pointer(start + kUsedBytes), kRoomBytes - kUsedBytes), 0);
  EXPECT_EQ(::mprotect(room, kPages * kPageBytes, PROT_READ | PROT_WRITE), 0);
  return start;
}

bool move(std::uint64_t from, std::uint64_t to) {
  return ::mremap(pointer(from), kPages * kPageBytes, kPages * kPageBytes,
                  MREMAP_MAYMOVE | MREMAP_FIXED, pointer(to)) == pointer(to);
}

// What is moved at this moment is not where it was, and not yet where it will be told to be: a page
// for it must be tried again, not dropped.
TEST(Userfault, MemoryThatIsBeingMovedIsNotGone) {
  constexpr int kMoves = 20000;
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs CAP_SYS_PTRACE";
  }
  auto userfault = Userfault::create_for_self();
  ASSERT_TRUE(userfault) << userfault.error().message();
  const std::uint64_t here = map_two_places();
  const std::uint64_t there = here + kPages * kPageBytes;
  ASSERT_TRUE(userfault->register_range({here, kPages}));

  std::atomic<bool> over = false;
  std::atomic<bool> moved = true;
  std::thread mover([&] {
    for (int i = 0; i < kMoves && moved; ++i) {
      moved = i % 2 == 0 ? move(here, there) : move(there, here);
    }
    over = true;
  });
  std::uint64_t at = here;
  int gone = 0;
  std::array<uffd_msg, 8> events{};
  const std::array<std::byte, kPageBytes> content{};
  for (std::uint64_t page = 0; !over; page = (page + 1) % kPages) {
    const auto count = userfault->read_events(events);
    for (std::size_t i = 0; count && i < *count; ++i) {
      if (events.at(i).event == UFFD_EVENT_REMAP) {
        at = events.at(i).arg.remap.to;
      }
    }
    const InstallResult result = userfault->copy(at + page * kPageBytes, content);
    gone += result.outcome == InstallOutcome::kGone ? 1 : 0;
  }
  mover.join();
  EXPECT_TRUE(moved);
  EXPECT_EQ(gone, 0);
}

}  // namespace
}  // namespace migrate
