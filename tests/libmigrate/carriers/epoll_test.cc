#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/file.h"
#include "libmigrate/carriers/epoll_watch.h"
#include "libmigrate/proc/proc_text.h"
#include "tests/libmigrate/carriers/hosts.h"
#include "tests/libmigrate/inspect/held_process.h"
#include "tests/libmigrate/trace/freeze.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

constexpr std::uint64_t kData = 0x1234567890;

UniqueFd watching(int target) {
  UniqueFd set(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event watch{EPOLLIN | EPOLLET, {.u64 = kData}};
  EXPECT_EQ(::epoll_ctl(set.get(), EPOLL_CTL_ADD, target, &watch), 0);
  return set;
}

TEST(EpollCarrier, FindsWhatIsWatched) {
  const UniqueFd counter(::eventfd(0, 0));
  const UniqueFd set = watching(counter.get());
  test::Source source;
  ASSERT_EQ(source.find(set.get()), 0);
  source.settle();
  EXPECT_EQ(source.refusals(), Refusals{});
  const wire::OpenFile& file = source.file(0);
  EXPECT_EQ(file.kind(), wire::OpenFile::EPOLL);
  ASSERT_EQ(file.watches_size(), 1);
  EXPECT_EQ(file.watches(0).target(), static_cast<std::uint32_t>(counter.get()));
  EXPECT_EQ(file.watches(0).data(), kData);
  EXPECT_EQ(file.watches(0).events() & (EPOLLIN | EPOLLET), EPOLLIN | EPOLLET);
}

TEST(EpollCarrier, AWatchWhoseNumberIsAnotherFilesByNowIsRefused) {
  UniqueFd counter(::eventfd(0, 0));
  const UniqueFd keeps_it_open(::dup(counter.get()));
  const UniqueFd set = watching(counter.get());
  const int number = counter.get();
  test::Source source;
  ASSERT_EQ(source.find(set.get()), 0);
  counter.reset();
  source.settle();
  EXPECT_EQ(source.refusals(), Refusals{"EPOLL_STALE"});
  const UniqueFd another(::eventfd(0, 0));
  const UniqueFd in_its_place(::dup2(another.get(), number));
  source.settle();
  EXPECT_EQ(source.refusals(), (Refusals{"EPOLL_STALE", "EPOLL_STALE"}));
}

TEST(EpollCarrier, IsMadeEmpty) {
  wire::Objects objects;
  wire::OpenFile& file = *objects.add_files();
  file.set_kind(wire::OpenFile::EPOLL);
  file.add_watches()->set_target(4);
  EXPECT_EQ(test::flaw_in(objects), "");
  const auto made = test::Destination(objects).make(file);
  ASSERT_TRUE(made);
  test::Source source;
  ASSERT_EQ(source.find(made->get()), 0);
  EXPECT_EQ(source.file(0).watches_size(), 0);
}

// The process itself watches, for a watch is of its own descriptors.
TEST(EpollCarrier, TheProcessWatchesAgainWhenAllIsThere) {
  const test::HeldProcess process([] {
    ::eventfd(1, 0);                 // 3
    ::epoll_create1(EPOLL_CLOEXEC);  // 4
  });
  wire::OpenFile file;
  wire::EpollWatch& watch = *file.add_watches();
  watch.set_target(3);
  watch.set_events(EPOLLIN);
  watch.set_data(kData);
  FrozenProcess frozen = test::freeze(process.pid());
  Script script(frozen.area());
  carriers::carrier_of(wire::OpenFile::EPOLL).connect(script, 4, file);
  const auto ran =
      script.run(frozen.leader().host_id, frozen.leader().registers, frozen.leader().signal_mask);
  ASSERT_TRUE(ran) << ran.error().message();
  const std::string details =
      read_file("/proc/" + std::to_string(process.pid()) + "/fdinfo/4").value();
  const auto seen = find_field(details, "tfd:");
  ASSERT_TRUE(seen) << details;
  EXPECT_TRUE(seen->starts_with("3")) << *seen;
  EXPECT_NE(details.find("1234567890"), std::string::npos) << details;
  EXPECT_TRUE(frozen.thaw());
}

int fired_watch_of(int target, std::uint32_t events) {
  const int set = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event watch{events | EPOLLONESHOT, {.u64 = kData}};
  epoll_event happened{};
  EXPECT_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, target, &watch), 0);
  EXPECT_EQ(::epoll_wait(set, &happened, 1, 0), 1);
  return set;
}

TEST(EpollCarrier, KnowsWhatAFiredWatchCanBeFiredByAgain) {
  const UniqueFd full(::eventfd(1, EFD_CLOEXEC));
  const UniqueFd set(fired_watch_of(full.get(), EPOLLIN));
  test::Source source;
  ASSERT_EQ(source.find(full.get()), 0);
  ASSERT_EQ(source.find(set.get()), 1);
  source.settle();
  ASSERT_EQ(source.file(1).watches_size(), 1);
  EXPECT_TRUE(carriers::has_fired(source.file(1).watches(0)));
  EXPECT_EQ(source.file(1).watches(0).ready(), EPOLLIN | EPOLLOUT);
  epoll_event again{EPOLLIN | EPOLLONESHOT, {.u64 = kData}};
  ASSERT_EQ(::epoll_ctl(set.get(), EPOLL_CTL_MOD, full.get(), &again), 0);
  test::Source later;
  ASSERT_EQ(later.find(full.get()), 0);
  ASSERT_EQ(later.find(set.get()), 1);
  later.settle();
  EXPECT_FALSE(carriers::has_fired(later.file(1).watches(0)));
  EXPECT_EQ(later.file(1).watches(0).ready(), 0U);
}

// A source could have what the rules refuse in `events` (EPOLLWAKEUP) set so.
TEST(EpollCarrier, NothingButReadinessFiresAWatch) {
  wire::Objects objects;
  wire::OpenFile& file = *objects.add_files();
  file.set_kind(wire::OpenFile::EPOLL);
  wire::EpollWatch& watch = *file.add_watches();
  watch.set_events(EPOLLONESHOT);
  watch.set_ready(EPOLLIN | EPOLLOUT);
  EXPECT_EQ(test::flaw_in(objects), "");
  watch.set_ready(EPOLLIN | EPOLLWAKEUP);
  EXPECT_EQ(test::flaw_in(objects), "ready of an epoll watch");
  watch.set_ready(EPOLLIN);
  watch.set_events(EPOLLONESHOT | EPOLLOUT);  // It has not fired.
  EXPECT_EQ(test::flaw_in(objects), "ready of an epoll watch");
}

// Else it would tell of an error that nobody has asked for.
TEST(EpollCarrier, AWatchThatHasFiredIsSilentAgain) {
  const test::HeldProcess process([] {
    ::eventfd(1, 0);                 // 3
    ::epoll_create1(EPOLL_CLOEXEC);  // 4
    ::eventfd(1, 0);                 // 5
  });
  wire::OpenFile file;
  for (const std::uint32_t target : {5U, 3U}) {
    wire::EpollWatch& watch = *file.add_watches();
    watch.set_target(target);
    watch.set_events(target == 3 ? EPOLLONESHOT : EPOLLONESHOT | EPOLLIN);
    watch.set_ready(target == 3 ? EPOLLIN : 0U);
  }
  FrozenProcess frozen = test::freeze(process.pid());
  Script script(frozen.area());
  carriers::carrier_of(wire::OpenFile::EPOLL).connect(script, 4, file);
  const auto ran =
      script.run(frozen.leader().host_id, frozen.leader().registers, frozen.leader().signal_mask);
  ASSERT_TRUE(ran) << ran.error().message();
  const std::string details =
      read_file("/proc/" + std::to_string(process.pid()) + "/fdinfo/4").value();
  EXPECT_NE(details.find("tfd:        3 events: 40000000"), std::string::npos) << details;
  EXPECT_NE(details.find("tfd:        5 events: 40000019"), std::string::npos) << details;
  EXPECT_TRUE(frozen.thaw());
}

TEST(EpollCarrier, AWatchOfNothingIsToldByItsNumber) {
  const test::HeldProcess process([] { ::epoll_create1(EPOLL_CLOEXEC); });  // 3
  wire::OpenFile file;
  file.add_watches()->set_target(77);
  FrozenProcess frozen = test::freeze(process.pid());
  Script script(frozen.area());
  carriers::carrier_of(wire::OpenFile::EPOLL).connect(script, 3, file);
  const auto ran =
      script.run(frozen.leader().host_id, frozen.leader().registers, frozen.leader().signal_mask);
  ASSERT_FALSE(ran);
  EXPECT_EQ(ran.error().object, "descriptor 77");
  EXPECT_TRUE(frozen.thaw());
}

}  // namespace
}  // namespace migrate
