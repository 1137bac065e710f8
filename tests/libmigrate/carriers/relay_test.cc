#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

#include "base/file.h"
#include "tests/libmigrate/carriers/hosts.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

std::uint64_t inode_of(int fd) {
  struct stat status {};
  EXPECT_EQ(::fstat(fd, &status), 0);
  return status.st_ino;
}

TEST(RelayCarrier, ANamedPipeGetsAStream) {
  const test::TemporaryDirectory directory;
  ASSERT_EQ(::mkfifo(directory.file("fifo").c_str(), 0600), 0);
  const UniqueFd fifo = open_file(directory.file("fifo"), O_RDWR).value();
  test::Source source;
  ASSERT_EQ(source.find(fifo.get()), 0);
  source.settle();
  EXPECT_EQ(source.file(0).kind(), wire::OpenFile::RELAY);
  EXPECT_EQ(source.file(0).object(), 1U);
}

TEST(RelayCarrier, ANamedPipeThatAGuestHasOpenedIsRefused) {
  const test::TemporaryDirectory directory;
  ASSERT_EQ(::mkfifo(directory.file("fifo").c_str(), 0600), 0);
  const UniqueFd fifo = open_file(directory.file("fifo"), O_RDWR).value();
  test::Source source;
  source.guest = true;
  EXPECT_EQ(source.find(fifo.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"PIPE_ABROAD"});
}

TEST(RelayCarrier, AnEndOfAnEarlierMoveKeepsItsStream) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  test::Source source;
  source.known_relays[inode_of(reader.get())] = 17;
  ASSERT_EQ(source.find(reader.get()), 0);
  source.settle();
  EXPECT_EQ(source.file(0).kind(), wire::OpenFile::RELAY);
  EXPECT_EQ(source.file(0).object(), 17U);
}

TEST(RelayCarrier, TheProcessGetsADescriptorOfTheEnd) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  wire::Objects objects;
  wire::OpenFile& file = *objects.add_files();
  file.set_kind(wire::OpenFile::RELAY);
  file.set_object(17);
  file.set_flags(O_RDONLY | O_NONBLOCK);
  test::Destination destination(objects);
  destination.relays[17] = reader.get();
  const UniqueFd made = destination.make(file).value();
  EXPECT_NE(made.get(), reader.get());
  EXPECT_NE(::fcntl(made.get(), F_GETFL) & O_NONBLOCK, 0);
  ASSERT_EQ(::write(writer.get(), "abc", 3), 3);
  EXPECT_EQ(test::read_now(made.get()), "abc");
}

TEST(RelayCarrier, AStreamThatIsNotThereIsAnError) {
  wire::Objects objects;
  wire::OpenFile& file = *objects.add_files();
  file.set_kind(wire::OpenFile::RELAY);
  file.set_object(17);
  const auto made = test::Destination(objects).make(file);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace migrate
