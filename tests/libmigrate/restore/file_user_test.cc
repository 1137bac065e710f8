#include "libmigrate/restore/file_user.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <string>

#include "base/file.h"
#include "libmigrate/proc/file_identity.h"
#include "libmigrate/proc/terminal.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

constexpr uid_t kUser = 64011;

wire::Credentials user() {
  wire::Credentials credentials;
  credentials.set_uid_filesystem(kUser);
  credentials.set_gid_filesystem(kUser);
  return credentials;
}

/// A folder of the user's with a file of root's in it.
class FileUserTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root, to become others";
    }
    ASSERT_EQ(::chown(directory_.path().c_str(), kUser, kUser), 0);
    make(mine_, "what the process had");
    make(other_, "what it must not get");
    identity_ = identify_at(AT_FDCWD, mine_, mine_).value();
  }

  static void make(const std::string& path, const std::string& content) {
    const UniqueFd fd = open_file(path, O_CREAT | O_WRONLY, 0600).value();
    ASSERT_TRUE(write_all(fd.get(), std::as_bytes(std::span(content))));
  }

  Result<UniqueFd> open(bool trusted) {
    const FileUser as(user(), trusted);
    FileUser::Scope scope(as);
    return scope.open(identity_, O_RDONLY);
  }

  test::TemporaryDirectory directory_;
  std::string mine_ = directory_.path() + "/mine";
  std::string other_ = directory_.path() + "/other";
  wire::FileIdentity identity_;
};

TEST_F(FileUserTest, RootsFileIsOpenedForTheTrustedOnly) {
  EXPECT_FALSE(open(false));
  EXPECT_TRUE(open(true));
}

TEST_F(FileUserTest, AnotherFileOfRootsInItsPlaceIsNot) {
  std::filesystem::rename(other_, mine_);
  const auto opened = open(true);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kRefused) << opened.error().message();
}

// Whoever types ^C there would end the worker.
TEST_F(FileUserTest, ATerminalInItsPlaceIsNotTheWorkersThen) {
  const PseudoTerminal users = make_pseudo_terminal("/dev/ptmx", 0).value();
  const std::string name =
      std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(users.slave.get()));
  ASSERT_EQ(::fchown(users.slave.get(), kUser, kUser), 0);
  std::filesystem::remove(mine_);
  std::filesystem::create_symlink(name, mine_);
  const pid_t worker = ::fork();
  if (worker == 0) {
    ::setsid();
    const bool opened = open(false).has_value();
    ::_exit(opened || ::open("/dev/tty", O_RDWR) >= 0 ? 1 : 0);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(worker, &status, 0), worker);
  EXPECT_EQ(status, 0);
}

TEST_F(FileUserTest, NorIsALinkToIt) {
  std::filesystem::remove(mine_);
  std::filesystem::create_symlink(other_, mine_);
  EXPECT_FALSE(open(true));
}

TEST_F(FileUserTest, TheSameContentWillDoWhereItIsTold) {
  const UniqueFd fd = open_file(mine_, O_RDONLY).value();
  identity_.set_sha256(sha256_of_file(fd.get()).value());
  std::filesystem::remove(mine_);
  make(mine_, "what the process had");
  EXPECT_TRUE(open(true));
  std::filesystem::remove(mine_);
  make(mine_, "what the process hat");
  EXPECT_FALSE(open(true));
}

// What this process has open is not the user's to have, though he may read the file itself.
TEST_F(FileUserTest, ALinkThatProcMakesUpIsNotFollowed) {
  const std::string closed = directory_.path() + "/closed";
  ASSERT_EQ(::mkdir(closed.c_str(), 0700), 0);
  make(closed + "/readable", "what nobody else can reach");
  ASSERT_EQ(::chmod((closed + "/readable").c_str(), 0644), 0);
  const UniqueFd held = open_file(closed + "/readable", O_RDONLY).value();
  std::filesystem::remove(mine_);
  std::filesystem::create_symlink("/proc/self/fd/" + std::to_string(held.get()), mine_);
  identity_ = identify_at(AT_FDCWD, closed + "/readable", mine_).value();
  const auto opened = open(false);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().sys_errno, ELOOP) << opened.error().message();
}

/// A process of the user's that the kernel does not let the user look into.
class Victim {
 public:
  Victim() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe(ends.data()), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      const bool done = ::setresgid(kUser, kUser, kUser) == 0 &&
                        ::setresuid(kUser, kUser, kUser) == 0 && ::write(ends[1], "y", 1) == 1;
      if (!done) {
        ::_exit(1);
      }
      for (;;) {
        ::pause();
      }
    }
    char done = 'n';
    EXPECT_EQ(::read(ends[0], &done, 1), 1);
    ::close(ends[0]);
    ::close(ends[1]);
  }
  ~Victim() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Victim(const Victim&) = delete;
  Victim& operator=(const Victim&) = delete;

  std::string path(const std::string& name) const {
    return "/proc/" + std::to_string(pid_) + "/" + name;
  }

 private:
  pid_t pid_ = 0;
};

TEST_F(FileUserTest, WhatProcShowsOfOthersIsNotOpened) {
  const Victim victim;
  const std::string link = directory_.path() + "/link";
  for (const std::string& path :
       {victim.path("mem"), victim.path("maps"), victim.path("environ"), victim.path("cwd"),
        victim.path("root"), victim.path("ns/mnt"), std::string("/proc/self/maps"),
        std::string("/proc/self/root"), std::string("/proc/self/fd")}) {
    for (const bool trusted : {false, true}) {
      identity_.set_path(path);
      EXPECT_FALSE(open(trusted)) << path;
      std::filesystem::remove(link);
      std::filesystem::create_symlink(path, link);
      identity_.set_path(link);
      EXPECT_FALSE(open(trusted)) << link << " to " << path;
    }
  }
}

TEST_F(FileUserTest, CapabilitiesComeBack) {
  const std::string before = read_file("/proc/thread-self/status").value();
  static_cast<void>(open(true));
  const std::string after = read_file("/proc/thread-self/status").value();
  const auto capabilities = [](const std::string& status) {
    const std::size_t at = status.find("CapInh:");
    return status.substr(at, status.find("CapBnd:") - at);
  };
  EXPECT_EQ(capabilities(before), capabilities(after));
}

TEST_F(FileUserTest, WhatGrewIsTheSameFile) {
  const UniqueFd fd = open_file(mine_, O_WRONLY | O_APPEND).value();
  const std::string more = "more";
  ASSERT_TRUE(write_all(fd.get(), std::as_bytes(std::span(more))));
  EXPECT_EQ(open(true).has_value(), identity_.birth_ns() != 0);
}

}  // namespace
}  // namespace migrate
