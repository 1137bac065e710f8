#include "tests/libmigrate/restore/restored_world.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "base/file.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::test {

void RestoredTest::SetUp() {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "namespaces are root's to make";
  }
}

void RestoredTest::start(const std::function<void()>& prepare) {
  process_.emplace([&] {
    count({SIGUSR1, SIGUSR2});
    prepare();
  });
}

void RestoredTest::move(const RestoredProcess::Options& options) {
  restored_.emplace(here(), options);
  ASSERT_TRUE(restored_->source().valid());
  ASSERT_TRUE(restored_->outcome()) << restored_->outcome().error().message();
}

Error RestoredTest::move_that_fails(const RestoredProcess::Options& options) {
  restored_.emplace(here(), options);
  EXPECT_FALSE(restored_->outcome());
  const Error error = restored_->outcome() ? Error() : restored_->outcome().error();
  restored_.reset();
  const int before = counted(here(), SIGUSR1);
  ::kill(here(), SIGUSR1);
  EXPECT_TRUE(comes_true([&] { return counted(here(), SIGUSR1) > before; })) << "it does not run";
  return error;
}

void RestoredTest::expect_same_image() {
  CapturedProcess again(there(), restored_->known());
  ASSERT_TRUE(again.valid());
  EXPECT_EQ(difference(portable(restored_->source().image()), portable(again.image())), "");
}

void RestoredTest::expect_same_text(const std::string& name) {
  EXPECT_EQ(read_file("/proc/" + std::to_string(there()) + "/" + name).value(),
            read_file("/proc/" + std::to_string(here()) + "/" + name).value());
}

std::string RestoredTest::status(pid_t process, const std::string& key) {
  const std::string text = read_file("/proc/" + std::to_string(process) + "/status").value();
  return std::string(find_field(text, key + ":").value_or("none"));
}

void RestoredTest::expect_same_status(std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    EXPECT_EQ(status(there(), key), status(here(), key)) << key;
  }
}

void RestoredTest::expect_answer() {
  const int before = counted(there(), SIGUSR1);
  ::kill(there(), SIGUSR1);
  EXPECT_TRUE(comes_true([&] { return counted(there(), SIGUSR1) > before; })) << "it does not run";
}

void RestoredTest::expect_rest(pid_t process) {
  const std::string threads = "/proc/" + std::to_string(process) + "/task/";
  EXPECT_TRUE(comes_true([&] {
    const std::vector<std::string> names = list_directory(threads).value();
    return std::ranges::all_of(names, [&](const std::string& name) {
      const std::string call = read_file((threads + name).append("/syscall")).value_or("");
      return call.starts_with(std::to_string(SYS_pause) + " ");
    });
  })) << "it does not come to rest";
}

UniqueFd RestoredTest::fetch(int number) const {
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, there(), 0)));
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), number, 0)));
  EXPECT_TRUE(fd.valid()) << number;
  return fd;
}

}  // namespace migrate::test
