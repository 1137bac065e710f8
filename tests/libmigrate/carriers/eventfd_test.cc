#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/libmigrate/carriers/hosts.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

TEST(EventfdCarrier, ACounterIsMadeWithItsCountAndFlags) {
  const UniqueFd counter(::eventfd(7, EFD_NONBLOCK));
  test::Source source;
  const int index = source.find(counter.get());
  ASSERT_EQ(index, 0);
  EXPECT_EQ(source.file(index).kind(), wire::OpenFile::EVENTFD);
  EXPECT_EQ(source.file(index).event_count(), 7U);
  EXPECT_EQ(test::flaw_in(source.objects()), "");
  test::Destination destination(source.objects());
  const auto made = destination.make(source.file(index));
  ASSERT_TRUE(made);
  EXPECT_EQ(test::description(made->get()), test::description(counter.get()));
  std::uint64_t count = 0;
  ASSERT_EQ(::read(made->get(), &count, sizeof count), 8);
  EXPECT_EQ(count, 7U);
}

TEST(EventfdCarrier, ASemaphoreStaysOne) {
  const UniqueFd counter(::eventfd(3, EFD_SEMAPHORE));
  test::Source source;
  ASSERT_EQ(source.find(counter.get()), 0);
  test::Destination destination(source.objects());
  const auto made = destination.make(source.file(0));
  ASSERT_TRUE(made);
  EXPECT_EQ(test::description(made->get()), test::description(counter.get()));
  std::uint64_t count = 0;
  ASSERT_EQ(::read(made->get(), &count, sizeof count), 8);
  EXPECT_EQ(count, 1U);
}

TEST(EventfdCarrier, TheLargestCountIsMadeAndALargerOneIsMalformed) {
  wire::Objects objects;
  wire::OpenFile& file = *objects.add_files();
  file.set_kind(wire::OpenFile::EVENTFD);
  file.set_event_count(~0ULL - 1);
  EXPECT_EQ(test::flaw_in(objects), "");
  test::Destination destination(objects);
  EXPECT_TRUE(destination.make(file));
  file.set_event_count(~0ULL);
  EXPECT_NE(test::flaw_in(objects), "");
}

TEST(EventfdCarrier, WithoutItsStateItIsRefused) {
  test::Source source;
  wire::OpenFile file;
  EXPECT_FALSE(
      source.find({.number = 3, .link = "anon_inode:[eventfd]", .details = "pos: 0\n"}, file));
  EXPECT_EQ(source.refusals(), Refusals{"UNKNOWN_DESCRIPTOR"});
}

TEST(EventfdCarrier, ItsCountBelongsToAllWhoHaveIt) {
  EXPECT_TRUE(carriers::carrier_of(wire::OpenFile::EVENTFD).has_state(wire::OpenFile()));
}

}  // namespace
}  // namespace migrate
