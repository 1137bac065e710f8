#include "libmigrate/program/program.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/unique_fd.h"
#include "libmigrate/program/layout.h"
#include "tests/base/code_of.h"

namespace migrate {
namespace {

using nlohmann::json;
using program::Block;
using test::code_of;

/// This process as a program with a block, at one address or the other.
class ProgramTest : public testing::Test {
 protected:
  void TearDown() override {
    for (const std::uint64_t address : program::kBlockAddresses) {
      ::munmap(at(address), program::kBlockBytes);
    }
  }

  static void* at(std::uint64_t address) { return reinterpret_cast<void*>(address); }
  /// Maps a page there; null if that is not possible.
  static Block* map(std::uint64_t address, int flags, int fd) {
    void* place = ::mmap(at(address), program::kBlockBytes, PROT_READ | PROT_WRITE,
                         MAP_FIXED_NOREPLACE | flags, fd, 0);
    return place == at(address) ? static_cast<Block*>(place) : nullptr;
  }
  static Block* map_own(std::uint64_t address) {
    return map(address, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  }
  static void begin(Block& block) {
    block.magic = program::kBlockMagic;
    block.version = program::kBlockVersion;
    block.process = static_cast<std::uint32_t>(::getpid());
  }
  static Block* map_file(std::uint64_t address, int flags) {
    const UniqueFd file(::memfd_create("block", MFD_CLOEXEC));
    EXPECT_EQ(::ftruncate(file.get(), program::kBlockBytes), 0);
    return map(address, flags, file.get());
  }
  static std::optional<ErrorCode> code() { return code_of(Program::open(::getpid())); }

  static constexpr std::uint64_t kFirst = program::kBlockAddresses[0];
  static constexpr std::uint64_t kSecond = program::kBlockAddresses[1];
};

TEST_F(ProgramTest, WhoDoesNotUseTheLibraryHasNone) {
  EXPECT_EQ(code(), ErrorCode::kNotFound);
  ASSERT_NE(map_own(kFirst), nullptr);
  EXPECT_EQ(code(), ErrorCode::kNotFound) << "a page that nobody has written to";
}

TEST_F(ProgramTest, SaysWhatItWishes) {
  Block* block = map_own(kFirst);
  ASSERT_NE(block, nullptr);
  begin(*block);
  block->holds = 2;
  block->asked = 77;
  const ProgramWish wish = Program::open(::getpid()).value().read().value();
  EXPECT_EQ(wish.address, kFirst);
  EXPECT_EQ(wish.holds, 2U);
  EXPECT_EQ(wish.asked, 77U);
}

TEST_F(ProgramTest, ABlockOfAnotherProcessIsNotItsOwn) {
  Block* block = map_own(kFirst);
  ASSERT_NE(block, nullptr);
  begin(*block);
  block->process += 1;
  EXPECT_EQ(code(), ErrorCode::kNotFound);
}

TEST_F(ProgramTest, ACopyBeginsAnewWithTheHooksOfTheOther) {
  EXPECT_TRUE(Program::begin_anew(::getpid())) << "it has no block";
  Block* block = map_own(kFirst);
  ASSERT_NE(block, nullptr);
  begin(*block);
  block->process += 1;
  block->holds = 2;
  block->asked = 77;
  block->hooks = 1;
  ASSERT_TRUE(Program::begin_anew(::getpid()));
  const ProgramWish wish = Program::open(::getpid()).value().read().value();
  EXPECT_EQ(wish.holds, 0U);
  EXPECT_EQ(wish.asked, 0U);
  EXPECT_EQ(wish.hooks, 1U);
}

// Reading a file could wait for whoever serves it: its page is not even looked at.
TEST_F(ProgramTest, AFileIsNoBlockWhateverIsInIt) {
  Block* shared = map_file(kFirst, MAP_SHARED);
  ASSERT_NE(shared, nullptr);
  begin(*shared);
  EXPECT_EQ(code(), ErrorCode::kNotFound);
  Block* block = map_own(kSecond);
  ASSERT_NE(block, nullptr);
  begin(*block);
  const Program program = Program::open(::getpid()).value();
  EXPECT_EQ(program.read().value().address, kSecond);
  const Program adopted = Program::adopt(UniqueFd(::dup(program.memory()))).value();
  EXPECT_EQ(adopted.read().value().address, kSecond);
}

TEST_F(ProgramTest, ABlockThatBecameAFileIsReadNoMore) {
  Block* block = map_own(kFirst);
  ASSERT_NE(block, nullptr);
  begin(*block);
  const Program program = Program::open(::getpid()).value();
  ASSERT_EQ(::munmap(at(kFirst), program::kBlockBytes), 0);
  Block* shared = map_file(kFirst, MAP_SHARED);
  ASSERT_NE(shared, nullptr);
  begin(*shared);
  EXPECT_EQ(code_of(program.read()), ErrorCode::kNotFound);
  EXPECT_EQ(code_of(program.answer(1, "{}")), ErrorCode::kNotFound);
  EXPECT_EQ(shared->answered, 0U);
}

TEST_F(ProgramTest, HearsWhatItAskedFor) {
  Block* block = map_own(kFirst);
  ASSERT_NE(block, nullptr);
  begin(*block);
  block->point = 9;
  const Program program = Program::open(::getpid()).value();
  ASSERT_TRUE(program.answer(9, R"({"exit":3})"));
  EXPECT_EQ(block->answered, 9U);
  EXPECT_EQ(std::string(block->answer, block->answer_bytes), R"({"exit":3})");
  EXPECT_EQ(block->point, 0U) << "nobody waits for a point any more";
  EXPECT_EQ(block->news, 1U);
}

TEST_F(ProgramTest, AnAnswerThatIsTooLongLosesRefusalsFromTheEnd) {
  Block* block = map_own(kFirst);
  ASSERT_NE(block, nullptr);
  begin(*block);
  json answer = {{"exit", 3}, {"refusals", json::array()}};
  constexpr int kMany = 100;
  for (int i = 0; i < kMany; ++i) {
    answer["refusals"].push_back({{"code", "SOCKET"}, {"object", std::string(100, 'x')}, {"n", i}});
  }
  ASSERT_TRUE(Program::open(::getpid()).value().answer(1, answer.dump()));
  const json heard = json::parse(std::string(block->answer, block->answer_bytes));
  EXPECT_EQ(heard["refusals"][0]["n"], 0);
  EXPECT_EQ(static_cast<int>(heard["refusals"].size()) + heard["refusals_left_out"].get<int>(),
            kMany);
}

}  // namespace
}  // namespace migrate
