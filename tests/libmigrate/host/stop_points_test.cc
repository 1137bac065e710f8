#include "libmigrate/host/stop_points.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "base/file.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

/// A process that reaches the step twice. Gives its status: 0 if it was never stopped.
int status_of_one_that_reaches(const StopPoints& stops, const char* step, pid_t& pid) {
  pid = ::fork();
  if (pid == 0) {
    stops.reach(step);
    stops.reach(step);
    ::_exit(0);
  }
  int status = -1;
  EXPECT_EQ(::waitpid(pid, &status, WUNTRACED), pid);
  return status;
}

TEST(StopPointsTest, WhoReachesAnArmedStepStopsOnceAndSaysWhoItWas) {
  const test::TemporaryDirectory directory;
  ASSERT_TRUE(open_file(directory.file("source.parked"), O_CREAT | O_WRONLY));
  const StopPoints stops(directory.path());
  pid_t pid = 0;
  EXPECT_EQ(status_of_one_that_reaches(stops, "source.frozen", pid), 0);
  const int stopped = status_of_one_that_reaches(stops, "source.parked", pid);
  ASSERT_TRUE(WIFSTOPPED(stopped)) << stopped;
  EXPECT_FALSE(std::filesystem::exists(directory.file("source.parked")));
  EXPECT_TRUE(std::filesystem::exists(directory.file("source.parked." + std::to_string(pid))));
  ::kill(pid, SIGCONT);
  int status = -1;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(status_of_one_that_reaches(stops, "source.parked", pid), 0);
}

TEST(StopPointsTest, WithoutADirectoryNobodyStops) {
  pid_t pid = 0;
  EXPECT_EQ(status_of_one_that_reaches(StopPoints(), "source.parked", pid), 0);
}

}  // namespace
}  // namespace migrate
