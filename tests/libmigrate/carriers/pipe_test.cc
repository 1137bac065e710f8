#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>

#include "base/file.h"
#include "tests/libmigrate/carriers/hosts.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

struct Ends {
  UniqueFd reader;
  UniqueFd writer;
};

Ends pipe_with(const std::string& content, int flags = 0) {
  std::array<int, 2> ends{};
  EXPECT_EQ(::pipe2(ends.data(), flags), 0);
  EXPECT_EQ(::write(ends[1], content.data(), content.size()), static_cast<ssize_t>(content.size()));
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

TEST(PipeCarrier, TravelsWithWhatIsInItWhichStaysThere) {
  const Ends ends = pipe_with("abc", O_NONBLOCK);
  ASSERT_GT(::fcntl(ends.writer.get(), F_SETPIPE_SZ, 16384), 0);
  test::Source source;
  ASSERT_EQ(source.find(ends.reader.get()), 0);
  ASSERT_EQ(source.find(ends.writer.get()), 1);
  source.settle();
  ASSERT_TRUE(source.capture());
  ASSERT_EQ(source.objects().pipes_size(), 1);
  EXPECT_EQ(source.file(0).object(), 0U);
  EXPECT_EQ(source.file(1).object(), 0U);
  EXPECT_EQ(source.objects().pipes(0).content(), "abc");
  EXPECT_EQ(source.objects().pipes(0).capacity_bytes(), 16384U);
  EXPECT_TRUE(source.private_pipes.contains(source.objects().pipes(0).inode()));
  EXPECT_EQ(test::flaw_in(source.objects()), "");
  EXPECT_EQ(test::read_now(ends.reader.get()), "abc");

  test::Destination destination(source.objects());
  const UniqueFd reader = destination.make(source.file(0)).value();
  const UniqueFd writer = destination.make(source.file(1)).value();
  EXPECT_EQ(::fcntl(reader.get(), F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDONLY | O_NONBLOCK);
  EXPECT_EQ(::fcntl(writer.get(), F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_WRONLY | O_NONBLOCK);
  EXPECT_EQ(::fcntl(reader.get(), F_GETPIPE_SZ), 16384);
  ASSERT_EQ(::write(writer.get(), "def", 3), 3);
  EXPECT_EQ(test::read_now(reader.get()), "abcdef");
}

// open(2) would add O_LARGEFILE.
TEST(PipeCarrier, ItsFlagsAreThoseThatItHad) {
  const Ends ends = pipe_with("abc", O_NONBLOCK);
  const std::string name = "/proc/self/fd/" + std::to_string(ends.reader.get());
  const UniqueFd second = open_file(name, O_RDONLY).value();
  test::Source source;
  for (const UniqueFd* end : {&ends.reader, &ends.writer, &second}) {
    ASSERT_GE(source.find(end->get()), 0);
  }
  source.settle();
  ASSERT_TRUE(source.capture());
  test::Destination destination(source.objects());
  std::vector<UniqueFd> made;
  for (int i = 0; i < 3; ++i) {
    made.push_back(destination.make(source.file(i)).value());
  }
  EXPECT_EQ(::fcntl(made[0].get(), F_GETFL), ::fcntl(ends.reader.get(), F_GETFL));
  EXPECT_EQ(::fcntl(made[1].get(), F_GETFL), ::fcntl(ends.writer.get(), F_GETFL));
  EXPECT_EQ(::fcntl(made[2].get(), F_GETFL), ::fcntl(second.get(), F_GETFL));
  EXPECT_EQ(test::read_now(made[2].get()), "abc");
}

TEST(PipeCarrier, AFullPipeIsFullAgain) {
  const Ends ends = pipe_with(std::string(65536, 'x'), O_NONBLOCK);
  test::Source source;
  ASSERT_EQ(source.find(ends.reader.get()), 0);
  ASSERT_EQ(source.find(ends.writer.get()), 1);
  source.settle();
  ASSERT_TRUE(source.capture());
  test::Destination destination(source.objects());
  const UniqueFd writer = destination.make(source.file(1)).value();
  EXPECT_EQ(::write(writer.get(), "y", 1), -1);
}

TEST(PipeCarrier, TwoPipesStayTwo) {
  const Ends one = pipe_with("one");
  const Ends two = pipe_with("two");
  test::Source source;
  for (const UniqueFd* end : {&one.reader, &two.reader, &one.writer, &two.writer}) {
    ASSERT_GE(source.find(end->get()), 0);
  }
  source.settle();
  ASSERT_TRUE(source.capture());
  ASSERT_EQ(source.objects().pipes_size(), 2);
  test::Destination destination(source.objects());
  const UniqueFd first = destination.make(source.file(0)).value();
  const UniqueFd second = destination.make(source.file(1)).value();
  EXPECT_EQ(test::read_now(first.get()), "one");
  EXPECT_EQ(test::read_now(second.get()), "two");
}

TEST(PipeCarrier, AnEndWhoseOtherIsOutsideIsRelayed) {
  const Ends ends = pipe_with("abc");
  test::Source source;
  ASSERT_EQ(source.find(ends.reader.get()), 0);
  source.settle();
  EXPECT_EQ(source.file(0).kind(), wire::OpenFile::RELAY);
  EXPECT_EQ(source.file(0).object(), 1U);
  EXPECT_TRUE(source.file(0).identity().path().starts_with("pipe:["));
  EXPECT_EQ(source.objects().pipes_size(), 0);
  EXPECT_TRUE(source.private_pipes.empty());
}

TEST(PipeCarrier, OfAGuestAnEndWhoseOtherIsOutsideIsRefused) {
  const Ends ends = pipe_with("abc");
  test::Source source;
  source.guest = true;
  ASSERT_EQ(source.find(ends.reader.get()), 0);
  source.settle();
  EXPECT_EQ(source.refusals(), Refusals{"PIPE_ABROAD"});
}

TEST(PipeCarrier, AnEndForBothReadsAndWrites) {
  const Ends ends = pipe_with("abc");
  const UniqueFd both =
      open_file("/proc/self/fd/" + std::to_string(ends.reader.get()), O_RDWR | O_NONBLOCK).value();
  test::Source source;
  ASSERT_EQ(source.find(both.get()), 0);
  source.settle();
  ASSERT_TRUE(source.capture());
  EXPECT_EQ(source.file(0).kind(), wire::OpenFile::PIPE);
  test::Destination destination(source.objects());
  const UniqueFd made = destination.make(source.file(0)).value();
  EXPECT_EQ(test::read_now(made.get()), "abc");
}

TEST(PipeCarrier, PacketsAreRefused) {
  const Ends ends = pipe_with("", O_DIRECT);
  test::Source source;
  EXPECT_EQ(source.find(ends.writer.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"UNKNOWN_DESCRIPTOR"});
}

TEST(PipeCarrier, AnEndOfNoPipeIsMalformed) {
  wire::Objects objects;
  objects.add_files()->set_kind(wire::OpenFile::PIPE);
  EXPECT_NE(test::flaw_in(objects), "");
  objects.add_pipes();
  EXPECT_EQ(test::flaw_in(objects), "");
  objects.mutable_files(0)->set_object(~0ULL);
  EXPECT_NE(test::flaw_in(objects), "");
}

TEST(PipeCarrier, ThereIsRoomForAllThatMayBeInItByThen) {
  wire::Objects objects;
  const auto most = carriers::carrier_of(wire::OpenFile::PIPE).most_content_bytes;
  EXPECT_EQ(most(objects), 0U);
  objects.add_pipes()->set_capacity_bytes(4096);
  EXPECT_GE(most(objects), 1U << 20U) << "an unprivileged process can make it as large as that";
}

}  // namespace
}  // namespace migrate
