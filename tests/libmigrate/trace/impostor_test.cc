// A process whose user makes it run another program (execve) while we work on it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "libmigrate/trace/script.h"
#include "libmigrate/trace/tracee.h"
#include "pager/page_reader.h"

namespace migrate {
namespace {

class ImpostorTest : public testing::Test {
 protected:
  void SetUp() override {
    memory_ = static_cast<char*>(
        ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(memory_, MAP_FAILED);
    memory_[0] = 'a';
    ASSERT_EQ(::pipe2(go_.data(), O_CLOEXEC), 0);
    process_ = ::fork();
    if (process_ == 0) {
      char ignored = 0;
      static_cast<void>(::read(go_[0], &ignored, 1));
      ::execl("/bin/sleep", "sleep", "60", nullptr);
      ::_exit(1);
    }
    ASSERT_GT(process_, 0);
  }
  void TearDown() override {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, __WALL);
    ::close(go_[0]);
    ::close(go_[1]);
    ::munmap(memory_, kPageBytes);
  }

  void run_another_program() { ASSERT_EQ(::write(go_[1], "x", 1), 1); }
  void await_another_program() const {
    const std::string path = "/proc/" + std::to_string(process_) + "/comm";
    for (int look = 0; look < 5000 && read_file(path).value_or("") != "sleep\n"; ++look) {
      ::usleep(1000);
    }
    ASSERT_EQ(read_file(path).value_or(""), "sleep\n");
  }
  std::uint64_t address() const { return reinterpret_cast<std::uint64_t>(memory_); }

  char* memory_ = nullptr;
  std::array<int, 2> go_{};
  pid_t process_ = -1;
};

TEST_F(ImpostorTest, IsNeitherReadNorWritten) {
  ScriptArea area{process_, address(), kPageBytes};
  ASSERT_TRUE(area.open_memory());
  std::array<std::byte, 1> byte{};
  ASSERT_TRUE(area.read(address(), byte));
  EXPECT_EQ(byte[0], std::byte{'a'});
  ASSERT_TRUE(area.write(address(), byte));
  run_another_program();
  await_another_program();
  EXPECT_EQ(area.read(address(), byte).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(area.write(address(), byte).error().code, ErrorCode::kNotFound);
}

TEST_F(ImpostorTest, HasNoPagesToServe) {
  auto reader = ProcessPageReader::create(process_);
  ASSERT_TRUE(reader);
  const PageRange range{address(), 1};
  std::vector<std::byte> page(kPageBytes);
  ASSERT_EQ((*reader)->read(std::span(&range, 1), page), 1U);
  EXPECT_EQ(page[0], std::byte{'a'});
  run_another_program();
  await_another_program();
  const auto read = (*reader)->read(std::span(&range, 1), page);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, ErrorCode::kNotFound);
}

TEST_F(ImpostorTest, IsEndedByWhoeverWaitsForTheProcess) {
  ASSERT_TRUE(seize(process_));
  run_another_program();
  const auto stop = wait_stop(process_);
  ASSERT_FALSE(stop);
  EXPECT_EQ(stop.error().code, ErrorCode::kNotFound);
  EXPECT_NE(::kill(process_, 0), 0);
}

TEST_F(ImpostorTest, IsToldOfWhereAProcessIsNotOursYet) {
  ASSERT_TRUE(seize(process_));
  run_another_program();
  const auto stop = wait_any_stop(process_);
  ASSERT_TRUE(stop);
  EXPECT_NE(stop->event, 0);
  EXPECT_EQ(::kill(process_, 0), 0);
}

}  // namespace
}  // namespace migrate
