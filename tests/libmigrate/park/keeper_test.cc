// What becomes of a parked process that runs elsewhere: the deputy, and the keeper of its memory.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <sstream>
#include <thread>

#include "base/file.h"
#include "libmigrate/links/tcp_socket.h"
#include "libmigrate/trace/tracee.h"
#include "tests/libmigrate/park/park_world.h"

namespace migrate {
namespace {

using test::DyingWorker;
using test::LastWords;
using Numbers = std::set<std::uint32_t>;

constexpr std::uint64_t kPages = 1300;

/// A deputy with memory at place_, and descriptors 3, 4 and 5.
class DeputyTest : public test::ParkTest {
 protected:
  void SetUp() override {
    ParkTest::SetUp();
    void* const place = ::mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(place, MAP_FAILED);
    place_ = static_cast<char*>(place);
  }
  void TearDown() override { ::munmap(place_, kPages * kPageBytes); }

  void start_deputy() {
    start([this] {
      std::memset(place_, 7, kPages * kPageBytes);
      for (int i = 0; i < 3; ++i) {
        ::eventfd(0, 0);
      }
      std::thread([] {
        for (;;) {
          ::pause();
        }
      }).detach();
    });
  }
  void settle(const Numbers& kept) {
    ASSERT_NO_FATAL_FAILURE(capture_and_park());
    ASSERT_TRUE(parked_->settle(kept));
  }
  std::uint64_t address(std::uint64_t page) const {
    return reinterpret_cast<std::uint64_t>(place_) + page * kPageBytes;
  }
  int byte_of(pid_t process, std::uint64_t page) const {
    return byte_at(process, place_ + page * kPageBytes);
  }
  Numbers pipe() const {
    const std::string own =
        read_link("/proc/self/fd/" + std::to_string(parked_->signal_pipe())).value();
    Numbers numbers;
    for (const std::uint32_t number : descriptors(pid())) {
      const std::string path = "/proc/" + std::to_string(pid()) + "/fd/" + std::to_string(number);
      if (read_link(path).value() == own) {
        numbers.insert(number);
      }
    }
    return numbers;
  }
  Numbers but_the_pipe() const {
    Numbers numbers = descriptors(pid());
    for (const std::uint32_t number : pipe()) {
      numbers.erase(number);
    }
    return numbers;
  }

  char* place_ = nullptr;
};

TEST_F(DeputyTest, KeepsWhatItIsToldAndAnswersSignals) {
  start_deputy();
  settle({0, 4});
  EXPECT_EQ(but_the_pipe(), (Numbers{0, 4}));
  EXPECT_EQ(pipe().size(), 2U);
  EXPECT_EQ(list_directory("/proc/" + std::to_string(pid()) + "/task").value().size(), 1U);
  ::kill(pid(), SIGUSR2);
  EXPECT_EQ(next_signal().si_signo, SIGUSR2);
  ASSERT_TRUE(parked_->close({4}));
  EXPECT_EQ(but_the_pipe(), Numbers{0});
  EXPECT_EQ(byte_of(pid(), 0), 7);
  const auto back = unpark();
  ASSERT_FALSE(back);
  EXPECT_EQ(back.error().code, ErrorCode::kRefused);
}

TEST_F(DeputyTest, AcceptsConnectionsAboveWhatTheProcessHad) {
  start([] {
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    ::listen(listener, 2);
  });
  settle({3});
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid(), 0)));
  const UniqueFd listener(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), 3, 0)));
  const SocketName to = SocketName::loopback(SocketName::of(listener.get())->port());
  std::array<UniqueFd, 2> peers;
  for (UniqueFd& peer : peers) {
    peer.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(peer.get(), to.address(), to.size()), 0);
  }
  for (std::uint32_t i = 0; i < peers.size(); ++i) {
    const auto accepted = parked_->accept(3, 20, i);
    ASSERT_TRUE(accepted) << accepted.error().message();
    EXPECT_EQ(*accepted, 20 + i);
    const UniqueFd link(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), *accepted, 0)));
    EXPECT_EQ(*SocketName::of_peer(link.get()), *SocketName::of(peers[i].get()));
  }
  EXPECT_EQ(but_the_pipe(), (Numbers{3, 20, 21}));
  ASSERT_TRUE(parked_->close({20}));
  EXPECT_EQ(but_the_pipe(), (Numbers{3, 21}));
  const auto too_many = parked_->accept(3, 1U << 30U, 0);
  ASSERT_FALSE(too_many);
  EXPECT_EQ(too_many.error().code, ErrorCode::kRetry);
}

TEST_F(DeputyTest, IsHiddenFromItsUser) {
  constexpr uid_t kUser = 64011;
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root, to become another";
  }
  start([] {
    static_cast<void>(::setresuid(kUser, kUser, kUser));
    ::prctl(PR_SET_DUMPABLE, 1);
  });
  const auto owner = [this] {
    struct stat status {};
    EXPECT_EQ(::stat(("/proc/" + std::to_string(pid()) + "/maps").c_str(), &status), 0);
    return status.st_uid;
  };
  EXPECT_EQ(owner(), kUser);
  ASSERT_NO_FATAL_FAILURE(capture_and_park());
  EXPECT_EQ(owner(), kUser);
  ASSERT_TRUE(parked_->hide());
  EXPECT_EQ(owner(), 0U);
}

TEST_F(DeputyTest, GivesBackWhatIsConfirmedAndNothingElse) {
  start_deputy();
  ASSERT_NO_FATAL_FAILURE(capture_and_park());
  std::vector<PageRange> every_second;  // More than one script takes.
  for (std::uint64_t page = 0; page < kPages; page += 2) {
    every_second.push_back({address(page), 1});
  }
  ASSERT_TRUE(parked_->free(every_second));
  for (std::uint64_t page = 0; page < kPages; ++page) {
    ASSERT_EQ(byte_of(pid(), page), page % 2 == 0 ? 0 : 7) << page;
  }
  ASSERT_TRUE(parked_->free({}));
  ASSERT_TRUE(unpark());
  EXPECT_EQ(byte_of(pid(), 1), 7);
}

TEST_F(DeputyTest, WithoutItsMemoryStillAnswers) {
  start_deputy();
  settle({});
  ASSERT_TRUE(parked_->free_all());
  EXPECT_EQ(byte_of(pid(), 1), -1);
  std::istringstream maps(read_file("/proc/" + std::to_string(pid()) + "/maps").value());
  int others = 0;
  for (std::string line; std::getline(maps, line);) {
    const bool known = line.find("[v") != std::string::npos || line.ends_with("[stack]");
    others += known ? 0 : 1;
  }
  EXPECT_EQ(others, 1);  // The script area.
  ::kill(pid(), SIGUSR2);
  EXPECT_EQ(next_signal().si_signo, SIGUSR2);
}

TEST_F(DeputyTest, EndsAsTheProcessDid) {
  struct End {
    int status;
    int code;
    int value;
  };
  for (const End& end :
       {End{7 << 8, CLD_EXITED, 7}, End{0, CLD_EXITED, 0}, End{SIGTERM, CLD_KILLED, SIGTERM},
        End{SIGKILL, CLD_KILLED, SIGKILL}, End{SIGSEGV | 0x80, CLD_KILLED, SIGSEGV},
        End{SIGUSR1, CLD_KILLED, SIGUSR1}, End{SIGRTMIN + 3, CLD_KILLED, SIGRTMIN + 3}}) {
    start_deputy();
    DyingWorker worker([&] {  // Its parent, who waits for it, is another one.
      settle({});
      const auto ended = parked_->end_as(end.status);
      EXPECT_TRUE(ended) << ended.error().message();
      return LastWords{};
    });
    siginfo_t told{};
    ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(pid()), &told, WEXITED | WNOWAIT | WNOHANG), 0);
    EXPECT_EQ(told.si_pid, pid()) << end.status;
    EXPECT_EQ(told.si_code, end.code) << end.status;
    EXPECT_EQ(told.si_status, end.value) << end.status;
    process_.reset();
  }
}

/// The same, with a keeper.
class KeeperTest : public DeputyTest {
 protected:
  void TearDown() override {
    if (keeper_ > 0 && comm(keeper_) == "migrate-keeper\n") {
      ::kill(keeper_, SIGKILL);  // One that a test which failed has left.
    }
    DeputyTest::TearDown();
  }
  static std::string comm(pid_t process) {
    return read_file("/proc/" + std::to_string(process) + "/comm").value_or("");
  }
  std::string children() const {
    const std::string id = std::to_string(pid());
    return read_file("/proc/" + id + "/task/" + id + "/children").value();
  }

  pid_t keeper_ = 0;
};

TEST_F(KeeperTest, HasTheMemoryAndWhatItIsToldAndOutlivesTheDeputy) {
  start_deputy();
  settle({3, 4});
  auto keeper = parked_->make_keeper({4});
  ASSERT_TRUE(keeper) << keeper.error().message();
  const pid_t id = keeper_ = keeper->process();
  EXPECT_EQ(children(), std::to_string(id) + " ");
  EXPECT_EQ(descriptors(id), Numbers{4});
  EXPECT_EQ(comm(id), "migrate-keeper\n");
  EXPECT_EQ(read_link("/proc/" + std::to_string(id) + "/cwd").value(), "/");
  EXPECT_EQ(::syscall(SYS_kcmp, pid(), id, KCMP_VM, 0, 0), 0);
  EXPECT_EQ(but_the_pipe(), (Numbers{3, 4}));
  ::kill(pid(), SIGUSR2);  // The deputy still is one.
  EXPECT_EQ(next_signal().si_signo, SIGUSR2);
  ::kill(id, SIGTERM);  // To the keeper signals are nothing.
  EXPECT_EQ(keeper->check_state().value(), 0);
  ASSERT_TRUE(keeper->free({{address(1), 1}}));
  EXPECT_EQ(byte_of(pid(), 1), 0);
  ::kill(pid(), SIGKILL);
  EXPECT_TRUE(test::comes_true([this] { return parked_->check_state().value_or(-1) == -1; }));
  EXPECT_EQ(byte_of(id, 0), 7);
  EXPECT_EQ(byte_of(id, 1), 0);
  ASSERT_TRUE(keeper->free({{address(2), 1}}));
  EXPECT_EQ(byte_of(id, 2), 0);
  EXPECT_TRUE(keeper->memory());
  keeper->end();
  EXPECT_TRUE(has_ended(id));
}

TEST_F(KeeperTest, IsMadeWhereTheUserMayHaveNoMoreProcesses) {
  start_deputy();
  settle({});
  const rlimit none{0, 0};
  ASSERT_EQ(::prlimit(pid(), RLIMIT_NPROC, &none, nullptr), 0);
  auto keeper = parked_->make_keeper({});
  ASSERT_TRUE(keeper) << keeper.error().message();
  keeper->end();
}

TEST_F(KeeperTest, IsTakenOverWhenItsWorkerDies) {
  start_deputy();
  DyingWorker worker([&] {
    settle({3});
    return LastWords{.area = captured_->frozen().area().address,
                     .process = parked_->make_keeper({3}).value().process()};
  });
  worker.die();
  const LastWords& words = worker.words();
  ASSERT_GT(words.process, 0);
  keeper_ = words.process;
  wire::Image image;
  EXPECT_FALSE(ParkedProcess::adopt_keeper(words.process, words.area, SessionId{}, image));
  auto keeper = ParkedProcess::adopt_keeper(words.process, words.area, session_, image);
  ASSERT_TRUE(keeper) << keeper.error().message();
  EXPECT_EQ(only_process(image).process_id(), static_cast<std::uint32_t>(pid()));
  ASSERT_TRUE(keeper->free({{address(0), 1}}));
  EXPECT_EQ(byte_of(words.process, 0), 0);
  EXPECT_EQ(byte_of(words.process, 1), 7);
  keeper->end();
  EXPECT_TRUE(has_ended(words.process));
}

TEST_F(KeeperTest, OfWhichNobodyTookNoteIsEndedAndOtherChildrenAreNot) {
  start_deputy();
  DyingWorker worker([&] {
    settle({});
    return LastWords{.process = parked_->make_keeper({}).value().process()};
  });
  worker.die();
  ASSERT_GT(worker.words().process, 0);
  keeper_ = worker.words().process;
  wire::Image image;
  ASSERT_EQ(comm(worker.words().process), "migrate-keeper\n");
  ParkedProcess::end_children(::getpid());  // This process's children share nothing with it.
  EXPECT_FALSE(has_ended(pid()));
  ParkedProcess::end_children(pid());
  EXPECT_TRUE(test::comes_true([&] { return has_ended(worker.words().process); }));
  EXPECT_FALSE(has_ended(pid()));
  EXPECT_FALSE(
      ParkedProcess::adopt_keeper(worker.words().process, worker.words().area, session_, image));
}

}  // namespace
}  // namespace migrate
