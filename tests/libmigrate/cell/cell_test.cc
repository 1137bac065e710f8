#include "libmigrate/cell/cell.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <optional>
#include <thread>

#include "libmigrate/state/session_file.h"
#include "tests/base/code_of.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

class CellTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "namespaces are root's to make";
    }
    std::filesystem::create_directory(SessionFile::directory(directory_.path()));
    file_.emplace(SessionFile::create(directory_.path(), "cell-1").value());
    CellOptions options;
    options.process_id = 300;
    options.socket_path = directory_.file("cell");
    options.session_file = file_->fd();
    auto cell = Cell::create(options);
    ASSERT_TRUE(cell) << cell.error().message();
    cell_.emplace(std::move(*cell));
  }
  void TearDown() override {
    if (cell_) {
      EXPECT_TRUE(cell_->end_and_wait());
    }
  }

  /// The first news that is not a wish to be asked again.
  Result<CellEvent> await_event() {
    for (int look = 0; look < 500; ++look) {
      auto event = cell_->read_event();
      if (event || event.error().code != ErrorCode::kRetry) {
        return event;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return fail(make_error(ErrorCode::kRetry, "wait for an event"));
  }

  test::TemporaryDirectory directory_;
  std::optional<SessionFile> file_;
  std::optional<Cell> cell_;
};

TEST_F(CellTest, HasTheSeedThatWasAskedFor) {
  EXPECT_EQ(cell_->process_id(), 300U);
  EXPECT_TRUE(cell_->take_userfault().valid());
  EXPECT_EQ(::kill(cell_->seed(), 0), 0);
  EXPECT_EQ(test::code_of(cell_->read_event()), ErrorCode::kRetry);
}

TEST_F(CellTest, IsOverOnlyWhenNothingOfItCanRunAnyMore) {
  // A tracer has to take note of the seed's end before the init can end: here it takes its time, as
  // the kernel does between closing the init's files and killing the seed.
  std::array<int, 2> go{};
  ASSERT_EQ(::pipe(go.data()), 0);
  const pid_t tracer = ::fork();
  if (tracer == 0) {
    char ignored = 0;
    const bool traces = ::ptrace(PTRACE_SEIZE, cell_->seed(), nullptr, nullptr) == 0 &&
                        ::kill(cell_->init(), SIGKILL) == 0;
    ::close(go[1]);
    static_cast<void>(::read(go[0], &ignored, 1));
    ::_exit(traces && ::waitpid(cell_->seed(), nullptr, __WALL) == cell_->seed() ? 0 : 1);
  }
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(300);
  while (std::chrono::steady_clock::now() < until) {
    const auto event = cell_->read_event();
    ASSERT_FALSE(event);
    ASSERT_EQ(event.error().code, ErrorCode::kRetry);
  }
  ::close(go[1]);
  int status = -1;
  ASSERT_EQ(::waitpid(tracer, &status, 0), tracer);
  EXPECT_EQ(status, 0);
  const auto event = await_event();
  ASSERT_FALSE(event);
  EXPECT_EQ(event.error().code, ErrorCode::kPeerLost);
  ::close(go[0]);
}

TEST_F(CellTest, ItsOwnTraceeDoesNotKeepItFromBeingOver) {
  ASSERT_EQ(::ptrace(PTRACE_SEIZE, cell_->seed(), nullptr, nullptr), 0);
  ASSERT_EQ(::kill(cell_->init(), SIGKILL), 0);
  const auto event = await_event();
  ASSERT_FALSE(event);
  EXPECT_EQ(event.error().code, ErrorCode::kPeerLost);
}

}  // namespace
}  // namespace migrate
