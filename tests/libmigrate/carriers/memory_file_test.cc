#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "libmigrate/carriers/memory_content.h"
#include "tests/libmigrate/carriers/hosts.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

UniqueFd memory_with(const std::string& content, unsigned flags = MFD_ALLOW_SEALING) {
  UniqueFd fd(::memfd_create("memory", flags));
  EXPECT_EQ(::write(fd.get(), content.data(), content.size()),
            static_cast<ssize_t>(content.size()));
  return fd;
}

std::string content_of(int fd) {
  std::string content(100, '\0');
  const ssize_t count = ::pread(fd, content.data(), content.size(), 0);
  content.resize(static_cast<std::size_t>(count > 0 ? count : 0));
  return content;
}

TEST(MemoryFileCarrier, TravelsWithItsBytesPositionAndSeals) {
  const UniqueFd memory = memory_with("abcdef");
  ASSERT_EQ(::lseek(memory.get(), 4, SEEK_SET), 4);
  ASSERT_EQ(::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_GROW), 0);
  test::Source source;
  ASSERT_EQ(source.find(memory.get()), 0);
  EXPECT_EQ(source.file(0).kind(), wire::OpenFile::MEMFD);
  EXPECT_TRUE(source.objects().shared_memories(0).open_descriptor());
  ASSERT_TRUE(source.capture());
  EXPECT_EQ(source.content(), "abcdef");
  EXPECT_EQ(test::flaw_in(source.objects()), "");
  test::Destination destination(source.objects(), source.content());
  const UniqueFd made = destination.make(source.file(0)).value();
  EXPECT_EQ(content_of(made.get()), "abcdef");
  EXPECT_EQ(::lseek(made.get(), 0, SEEK_CUR), 4);
  EXPECT_EQ(::fcntl(made.get(), F_GET_SEALS), F_SEAL_GROW);
  EXPECT_EQ(::ftruncate(made.get(), 7), -1);
}

TEST(MemoryFileCarrier, PagesThatWereNeverWrittenDoNotTravel) {
  const UniqueFd memory = memory_with("abc");
  ASSERT_EQ(::ftruncate(memory.get(), 1 << 20), 0);
  test::Source source;
  ASSERT_EQ(source.find(memory.get()), 0);
  ASSERT_TRUE(source.capture());
  EXPECT_EQ(source.content().substr(0, 3), "abc");
  EXPECT_LE(source.content().size(), 4096U);
  EXPECT_EQ(source.objects().shared_memories(0).size_bytes(), 1U << 20U);
  test::Destination destination(source.objects(), source.content());
  const UniqueFd made = destination.make(source.file(0)).value();
  EXPECT_EQ(::lseek(made.get(), 0, SEEK_END), 1 << 20);
}

TEST(MemoryFileCarrier, OneThatWritesAtOnceStaysSo) {
  const UniqueFd memory = memory_with("abc");
  const UniqueFd synchronous =
      open_file("/proc/self/fd/" + std::to_string(memory.get()), O_RDWR | O_SYNC).value();
  test::Source source;
  ASSERT_EQ(source.find(synchronous.get()), 0);
  ASSERT_TRUE(source.capture());
  test::Destination destination(source.objects(), source.content());
  const UniqueFd made = destination.make(source.file(0)).value();
  EXPECT_EQ(::fcntl(made.get(), F_GETFL), ::fcntl(synchronous.get(), F_GETFL));
}

TEST(MemoryFileCarrier, TwoOpenFilesOfOneStayOfOne) {
  const UniqueFd memory = memory_with("abc");
  const UniqueFd again =
      open_file("/proc/self/fd/" + std::to_string(memory.get()), O_WRONLY).value();
  test::Source source;
  ASSERT_EQ(source.find(again.get()), 0) << "and it can be read though it is open for writing";
  ASSERT_EQ(source.find(memory.get()), 1);
  ASSERT_TRUE(source.capture());
  ASSERT_EQ(source.objects().shared_memories_size(), 1);
  EXPECT_EQ(source.content().substr(0, 3), "abc");
  test::Destination destination(source.objects(), source.content());
  const UniqueFd writer = destination.make(source.file(0)).value();
  const UniqueFd reader = destination.make(source.file(1)).value();
  EXPECT_EQ(::fcntl(writer.get(), F_GETFL) & O_ACCMODE, O_WRONLY);
  ASSERT_EQ(::pwrite(writer.get(), "x", 1, 0), 1);
  EXPECT_EQ(content_of(reader.get()), "xbc");
}

TEST(MemoryFileCarrier, OneThatCannotBeSealedIsMadeToo) {
  const UniqueFd memory = memory_with("abc", 0);
  test::Source source;
  ASSERT_EQ(source.find(memory.get()), 0);
  ASSERT_TRUE(source.capture());
  EXPECT_EQ(source.objects().shared_memories(0).seals(), static_cast<std::uint32_t>(F_SEAL_SEAL));
  test::Destination destination(source.objects(), source.content());
  const UniqueFd made = destination.make(source.file(0)).value();
  EXPECT_EQ(::fcntl(made.get(), F_ADD_SEALS, F_SEAL_GROW), -1);
}

// Java's ZGC has its heap so.
TEST(MemoryFileCarrier, ALargeOneTravelsInPieces) {
  constexpr int kMebibytes = 65;
  const UniqueFd memory = memory_with("");
  std::string chunk(1 << 20, 'x');
  for (int i = 0; i < kMebibytes; ++i) {
    chunk[0] = static_cast<char>(i);
    ASSERT_EQ(::write(memory.get(), chunk.data(), chunk.size()), 1 << 20);
  }
  test::Source source;
  ASSERT_EQ(source.find(memory.get()), 0);
  EXPECT_EQ(source.objects().shared_memories(0).data_bytes(), std::uint64_t{kMebibytes} << 20U);
  ASSERT_TRUE(source.capture());
  EXPECT_LT(source.objects().ByteSizeLong(), 4096U) << "the image has none of it";
  ASSERT_EQ(source.content().size(), std::size_t{kMebibytes} << 20U);
  test::Destination destination(source.objects(), source.content());
  const UniqueFd made = destination.make(source.file(0)).value();
  for (int i = 0; i < kMebibytes; ++i) {
    ASSERT_EQ(::pread(made.get(), chunk.data(), chunk.size(), off_t{i} << 20), 1 << 20);
    EXPECT_EQ(chunk[0], static_cast<char>(i));
    EXPECT_EQ(chunk.find_first_not_of('x', 1), std::string::npos);
  }
}

// As the double mapping of a just-in-time compiler (.NET) is.
TEST(MemoryFileCarrier, WhatWasNeverWrittenDoesNotTravel) {
  constexpr off_t kTerabyte = off_t{1} << 40;
  const UniqueFd memory = memory_with("abc");
  ASSERT_EQ(::ftruncate(memory.get(), 2 * kTerabyte), 0);
  ASSERT_EQ(::pwrite(memory.get(), "middle", 6, kTerabyte + 5), 6);
  ASSERT_EQ(::pwrite(memory.get(), "end", 3, 2 * kTerabyte - 3), 3);
  ASSERT_EQ(::lseek(memory.get(), 2, SEEK_SET), 2);
  test::Source source;
  ASSERT_EQ(source.find(memory.get()), 0);
  ASSERT_TRUE(source.capture());
  EXPECT_EQ(::lseek(memory.get(), 0, SEEK_CUR), 2) << "whoever looks does not change it";
  const wire::SharedMemory& kept = source.objects().shared_memories(0);
  EXPECT_EQ(kept.extents_size(), 6);
  EXPECT_LE(source.content().size(), 3U * 4096);
  EXPECT_TRUE(carriers::has_sound_extents(kept));
  test::Destination destination(source.objects(), source.content());
  const UniqueFd made = destination.make(source.file(0)).value();
  EXPECT_EQ(content_of(made.get()).substr(0, 4), std::string("abc\0", 4));
  std::string end(8, 'x');
  EXPECT_EQ(::pread(made.get(), end.data(), 8, 2 * kTerabyte - 4), 4);
  EXPECT_EQ(end.substr(0, 4), std::string("\0end", 4));
  EXPECT_EQ(::pread(made.get(), end.data(), 8, kTerabyte + 4), 8);
  EXPECT_EQ(end, std::string("\0middle\0", 8));
}

TEST(MemoryFileCarrier, ExtentsOfAnotherShapeAreMalformed) {
  const auto sound = [](std::vector<std::uint64_t> extents) {
    wire::SharedMemory memory;
    memory.set_size_bytes(100);
    memory.mutable_extents()->Add(extents.begin(), extents.end());
    return carriers::has_sound_extents(memory);
  };
  EXPECT_TRUE(sound({}));
  EXPECT_TRUE(sound({0, 10, 10, 5, 90, 10}));
  EXPECT_FALSE(sound({0}));
  EXPECT_FALSE(sound({0, 0}));
  EXPECT_FALSE(sound({10, 5, 0, 5}));
  EXPECT_FALSE(sound({0, 10, 5, 10}));
  EXPECT_FALSE(sound({91, 10}));
  EXPECT_FALSE(sound({101, 1}));
  EXPECT_FALSE(sound({50, ~std::uint64_t{0}}));
}

// Each byte of a hostile image takes a page of memory here, or a huge one.
TEST(MemoryFileCarrier, WhatContentTakesAreThePagesThatItTouches) {
  wire::SharedMemory memory;
  memory.set_size_bytes(std::uint64_t{1} << 40U);
  for (std::uint64_t page = 0; page <= carriers::kMaxExtents; ++page) {
    EXPECT_TRUE(page < carriers::kMaxExtents || carriers::has_sound_extents(memory));
    memory.add_extents(page * 8192 + 4095);
    memory.add_extents(2);
  }
  EXPECT_EQ(carriers::bytes_touched(memory), (carriers::kMaxExtents + 1) * 8192);
  EXPECT_FALSE(carriers::has_sound_extents(memory)) << "they are too many";
}

TEST(MemoryFileCarrier, MoreContentThanTheExtentsHaveIsAnError) {
  wire::Objects objects;
  objects.add_shared_memories();
  wire::SharedMemory& memory = *objects.add_shared_memories();
  memory.set_size_bytes(100);
  for (const std::uint64_t number : {10, 2, 50, 3}) {
    memory.add_extents(number);
  }
  std::vector<UniqueFd> files;
  files.push_back(memory_with(""));
  files.push_back(memory_with(""));
  carriers::ContentPlace place(objects);
  ASSERT_TRUE(carriers::write_content(place, files, "a"));
  ASSERT_TRUE(carriers::write_content(place, files, "bcd"));
  EXPECT_FALSE(place.at_end());
  EXPECT_EQ(carriers::write_content(place, files, "ef").error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(content_of(files[1].get()).substr(10, 2), "ab");
  EXPECT_EQ(content_of(files[1].get()).substr(50), "cde");
  EXPECT_EQ(content_of(files[0].get()), "");
}

// A program that writes ahead of whoever looks would keep it for ever.
TEST(MemoryFileCarrier, NoMoreDataIsLookedForThanCanTravel) {
  const UniqueFd memory = memory_with("");
  const auto pages = static_cast<off_t>(carriers::kMaxExtents) + 100;
  for (off_t page = 0; page < pages; ++page) {
    ASSERT_EQ(::pwrite(memory.get(), "x", 1, page * 8192), 1);
  }
  const auto data =
      carriers::data_of(memory.get(), static_cast<std::uint64_t>(pages) * 8192).value();
  EXPECT_EQ(data.size(), carriers::kMaxExtents + 1);
  test::Source source;
  EXPECT_EQ(source.find(memory.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"LARGE_MEMFD"});
}

TEST(MemoryFileCarrier, HugePagesAreRefused) {
  const UniqueFd memory = memory_with("abc");
  test::Source source;
  source.huge_pages = true;
  EXPECT_EQ(source.find(memory.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"HUGETLB"});
}

TEST(MemoryFileCarrier, OneOfNoMemoryIsMalformed) {
  wire::Objects objects;
  objects.add_files()->set_kind(wire::OpenFile::MEMFD);
  EXPECT_NE(test::flaw_in(objects), "");
  objects.add_shared_memories();
  EXPECT_EQ(test::flaw_in(objects), "");
  objects.mutable_files(0)->set_object(1);
  EXPECT_NE(test::flaw_in(objects), "");
}

TEST(MemoryFileCarrier, RoomIsNeededForThoseWithADescriptorOnly) {
  wire::Objects objects;
  objects.add_shared_memories()->set_size_bytes(1000);
  wire::SharedMemory& opened = *objects.add_shared_memories();
  opened.set_size_bytes(20);
  opened.set_data_bytes(10);
  opened.set_open_descriptor(true);
  const auto most = carriers::carrier_of(wire::OpenFile::MEMFD).most_content_bytes;
  EXPECT_EQ(most(objects), 12U) << "where its one page is";
  opened.set_size_bytes(std::uint64_t{1} << 40U);
  EXPECT_EQ(most(objects), 12U * 1000) << "and a little that is written meanwhile";
  opened.set_data_bytes(std::uint64_t{1} << 40U);
  EXPECT_EQ(most(objects), 12U * carriers::kMaxExtents);
}

}  // namespace
}  // namespace migrate
