#include "libmigrate/inspect/internal/process_facts.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "tests/transport/temporary_directory.h"

namespace migrate::inspect {
namespace {

/// A folder like /proc/PID/task, of the threads that a test puts there.
class ReadThreads : public testing::Test {
 protected:
  ReadThreads() {
    view_.pid = 7;
    view_.tasks = open_file(tasks_.path(), O_RDONLY | O_DIRECTORY).value();
  }

  void add(const std::string& thread, const std::string& ids) {
    std::filesystem::create_directory(tasks_.file(thread));
    std::ofstream(tasks_.file(thread) + "/status") << "Name:\tx\nNSpid:\t" << ids << "\n";
  }

  test::TemporaryDirectory tasks_;
  ProcessView view_;
};

TEST_F(ReadThreads, GivesTheInnermostIdsLeaderFirst) {
  add("3", "3\t2");
  add("7", "7\t1");
  EXPECT_EQ(read_threads(view_, {}).value(), (ThreadIds{{7, 1}, {3, 2}}));
}

TEST_F(ReadThreads, OneThatIsEndingIsNoThreadAnyMore) {
  add("7", "7\t1");
  add("8", "0\t0");
  EXPECT_EQ(read_threads(view_, {}).value(), (ThreadIds{{7, 1}}));
}

TEST_F(ReadThreads, WithoutItsLeaderThereIsNoProcess) {
  add("7", "0\t0");
  add("8", "8\t2");
  EXPECT_EQ(read_threads(view_, {}).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace migrate::inspect
