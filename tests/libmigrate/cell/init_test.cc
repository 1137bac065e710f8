// What the init of a cell does for its worker, and without one.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "libmigrate/cell/internal_protocol.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/trace/tracee.h"
#include "tests/base/code_of.h"
#include "tests/libmigrate/capture/captured_process.h"
#include "tests/libmigrate/capture/dying_worker.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

using test::comes_true;
using test::DyingWorker;
using test::LastWords;

constexpr Kept kUserfault{.kind = Kept::Kind::kUserfault, .number = 1};
constexpr Kept kRelay{.kind = Kept::Kind::kRelayIn, .number = 4};
constexpr Kept kOtherRelay{.kind = Kept::Kind::kRelayIn, .number = 5};

class InitTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "namespaces are root's to make";
    }
    std::filesystem::create_directory(SessionFile::directory(directory_.path()));
    file_.emplace(SessionFile::create(directory_.path(), "cell-1").value());
    options_.process_id = 300;
    options_.socket_path = directory_.file("cell");
    options_.session_file = file_->fd();
  }
  void TearDown() override {
    if (!file_) {
      return;  // It was skipped.
    }
    if (cell_) {
      EXPECT_TRUE(cell_->end_and_wait());
    }
    if (const pid_t init = mark().init; init > 0 && !has_ended(init)) {
      ::kill(init, SIGKILL);
      EXPECT_TRUE(comes_true([init] { return has_ended(init); }));
    }
    const auto own = open_file("/proc/self/ns/time", O_RDONLY);
    EXPECT_TRUE(own && ::setns(own->get(), CLONE_NEWTIME) == 0);
  }

  void make_cell() {
    auto cell = Cell::create(options_);
    ASSERT_TRUE(cell) << cell.error().message();
    cell_.emplace(std::move(*cell));
    note(cell_->init(), cell_->seed());
  }
  /// As a worker does, for those that take over.
  void note(pid_t init, pid_t seed) {
    mark().init = init;
    mark().init_start = start_time(init);
    mark().process = seed;
    mark().process_start = start_time(seed);
  }
  /// A worker makes the cell, gives the init `kept`, and dies.
  void lose_worker(const std::vector<Kept>& kept) {
    DyingWorker worker([&] {
      make_cell();
      if (!cell_) {
        return LastWords{};
      }
      for (const Kept& what : kept) {
        EXPECT_TRUE(cell_->keep(what, file_->fd()));
      }
      return LastWords{.process = cell_->seed(), .init = cell_->init()};
    });
    seed_ = worker.words().process;
    init_ = worker.words().init;
    ASSERT_GT(seed_, 0);
    ASSERT_GT(init_, 0);
    worker.die();
  }
  Result<void> adopt() {
    kept_.clear();
    cell_.emplace(MIGRATE_TRY(Cell::adopt(options_.socket_path, mark(), kept_)));
    return {};
  }
  SessionMark& mark() { return file_->mark(); }

  /// The next news; kPeerLost when the init is gone.
  Result<CellEvent> next_event() {
    Result<CellEvent> event = fail(make_error(ErrorCode::kRetry, "wait"));
    comes_true([&] {
      event = cell_->read_event();
      return event || event.error().code != ErrorCode::kRetry;
    });
    return event;
  }
  void expect_status(int wanted) {
    const auto event = next_event();
    ASSERT_TRUE(event) << event.error().message();
    EXPECT_EQ(event->kind, CellEvent::Kind::kStatus);
    EXPECT_EQ(event->wait_status, wanted);
  }
  void expect_empty() {
    const auto event = next_event();
    ASSERT_TRUE(event) << event.error().message();
    EXPECT_EQ(event->kind, CellEvent::Kind::kEmpty);
  }
  std::string status_of(pid_t process, const char* key) {
    const std::string text = read_file("/proc/" + std::to_string(process) + "/status").value();
    return std::string(find_field(text, key).value_or("none"));
  }
  bool is_in_pause(pid_t process) {
    const std::string path = "/proc/" + std::to_string(process) + "/syscall";
    return read_file(path).value_or("").starts_with(std::to_string(SYS_pause) + " ");
  }
  /// A process in the cell whose parent there has ended.
  pid_t make_orphan() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
    const UniqueFd ours(ends[0]);
    const UniqueFd theirs(ends[1]);
    const int yes = 1;
    ::setsockopt(ours.get(), SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes));
    const pid_t outside = ::fork();
    if (outside == 0) {
      const auto space = open_file("/proc/" + std::to_string(cell_->init()) + "/ns/pid", O_RDONLY);
      ::setns(space->get(), CLONE_NEWPID);
      const pid_t parent = ::fork();
      if (parent == 0) {
        if (::fork() != 0) {
          ::_exit(0);
        }
        while (::getppid() != 1) {  // Until its parent has ended.
          ::usleep(1000);
        }
        static_cast<void>(cell::send_message(theirs.get(), {}, {}));
        for (;;) {
          ::pause();
        }
      }
      int status = -1;
      ::waitpid(parent, &status, 0);
      ::_exit(status);
    }
    int status = -1;
    EXPECT_EQ(::waitpid(outside, &status, 0), outside);
    EXPECT_EQ(status, 0);
    return cell::receive_message(ours.get(), true).value().sender;
  }

  test::TemporaryDirectory directory_;
  std::optional<SessionFile> file_;
  CellOptions options_;
  std::optional<Cell> cell_;
  std::vector<KeptDescriptor> kept_;
  pid_t seed_ = 0;  // of a worker that was lost
  pid_t init_ = 0;
};

TEST_F(InitTest, TheSeedIsLikeNoProcessOfOurs) {
  test::hold_back({SIGUSR1});
  ::signal(SIGWINCH, SIG_IGN);
  options_.highest_descriptor = 200;
  ASSERT_NO_FATAL_FAILURE(make_cell());
  ::signal(SIGWINCH, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
  EXPECT_TRUE(comes_true([this] { return is_in_pause(cell_->seed()); }));
  EXPECT_EQ(status_of(cell_->seed(), "SigBlk:"), "0000000000000000");
  EXPECT_EQ(status_of(cell_->seed(), "SigIgn:"), "0000000000000000");
  EXPECT_EQ(status_of(cell_->seed(), "SigCgt:"), "0000000000000000");
  EXPECT_TRUE(status_of(cell_->seed(), "NSpid:").ends_with("\t300"));
  EXPECT_TRUE(status_of(cell_->seed(), "NSsid:").ends_with("\t300"));
  EXPECT_EQ(status_of(cell_->init(), "Name:"), kInitName);
  EXPECT_TRUE(status_of(cell_->init(), "NSpid:").ends_with("\t1"));
  EXPECT_GT(cell_->seed_descriptor(), 200U);
  EXPECT_EQ(list_directory("/proc/" + std::to_string(cell_->seed()) + "/fd").value(),
            std::vector<std::string>{std::to_string(cell_->seed_descriptor())});
  std::set<std::string> inside;
  const std::string proc = "/proc/" + std::to_string(cell_->init()) + "/root/proc";
  const std::vector<std::string> names = list_directory(proc).value();
  for (const std::string& name : names) {
    if (parse_number(name)) {
      inside.insert(name);
    }
  }
  EXPECT_EQ(inside, (std::set<std::string>{"1", "300"}));
}

TEST_F(InitTest, TheCellHasItsOwnTime) {
  options_.monotonic_offset_ns = 5 * kNanosecondsPerSecond + 7;
  options_.boottime_offset_ns = -3 * kNanosecondsPerSecond - 250;
  ASSERT_NO_FATAL_FAILURE(make_cell());
  const auto told = read_file("/proc/" + std::to_string(cell_->seed()) + "/timens_offsets");
  std::string_view text = told.value();
  std::string_view line = take_line(text);
  EXPECT_EQ(take_word(line), "monotonic");
  EXPECT_EQ(take_word(line), "5");
  EXPECT_EQ(take_word(line), "7");
  line = take_line(text);
  EXPECT_EQ(take_word(line), "boottime");
  EXPECT_EQ(take_word(line), "-4");
  EXPECT_EQ(take_word(line), "999999750");
}

TEST_F(InitTest, WhatCannotBeMadeIsToldWithItsReason) {
  for (const std::uint32_t id : {1U, 0x7fffffffU}) {  // The init's own, and none.
    options_.process_id = id;
    const auto cell = Cell::create(options_);
    ASSERT_FALSE(cell);
    EXPECT_EQ(cell.error().sys_errno, id == 1 ? EEXIST : EINVAL) << cell.error().message();
    EXPECT_NE(cell.error().message().find("process id"), std::string::npos);
    EXPECT_FALSE(std::filesystem::exists(options_.socket_path));
  }
  options_.process_id = 300;
  options_.highest_descriptor = 0x7ffffff0;
  const auto cell = Cell::create(options_);
  ASSERT_FALSE(cell);
  EXPECT_NE(cell.error().message().find("socket"), std::string::npos) << cell.error().message();
  options_.highest_descriptor = 0;
  ASSERT_NO_FATAL_FAILURE(make_cell());
}

TEST_F(InitTest, StopsAndGoingOnAreToldAndTheEndIsInTheMark) {
  ASSERT_NO_FATAL_FAILURE(make_cell());
  ASSERT_TRUE(cell_->keep(kUserfault, file_->fd()));
  mark().phase.enter(GuestPhase::kAwaitsRun);
  mark().phase.enter(GuestPhase::kTold);
  mark().phase.enter(GuestPhase::kMarked);
  mark().phase.enter(GuestPhase::kKept);
  mark().phase.enter(GuestPhase::kRan);
  cell_->signal_seed(SIGSTOP);
  expect_status((SIGSTOP << 8) | 0x7f);
  cell_->signal_seed(SIGCONT);
  expect_status(0xffff);
  siginfo_t information{};
  information.si_signo = SIGTERM;
  information.si_code = SI_QUEUE;
  cell_->signal_seed(SIGTERM, &information);
  expect_empty();  // That is all that is told when nothing is left.
  EXPECT_EQ(mark().phase.guest(), GuestPhase::kEnded);
  EXPECT_EQ(mark().phase.wait_status(), SIGTERM);
  EXPECT_EQ(test::code_of(cell_->read_event()), ErrorCode::kRetry);  // The init stays.
  EXPECT_FALSE(has_ended(cell_->init()));
}

TEST_F(InitTest, OrphansAreReapedAndOnlyTheProcessIsToldOf) {
  ASSERT_NO_FATAL_FAILURE(make_cell());
  ASSERT_TRUE(cell_->keep(kUserfault, file_->fd()));
  const pid_t first = make_orphan();
  const pid_t last = make_orphan();
  ::kill(first, SIGTERM);
  EXPECT_TRUE(comes_true([&] { return ::kill(first, 0) != 0 && errno == ESRCH; }));
  EXPECT_EQ(test::code_of(cell_->read_event()), ErrorCode::kRetry);
  cell_->signal_seed(SIGKILL);
  expect_status(SIGKILL);
  EXPECT_EQ(test::code_of(cell_->read_event()), ErrorCode::kRetry);
  ::kill(last, SIGKILL);
  expect_empty();
}

TEST_F(InitTest, WithoutAnythingKeptItEndsWithTheLastProcess) {
  ASSERT_NO_FATAL_FAILURE(make_cell());
  cell_->signal_seed(SIGKILL);
  expect_empty();
  EXPECT_EQ(test::code_of(next_event()), ErrorCode::kPeerLost);
}

TEST_F(InitTest, WithoutAnythingKeptItEndsWithItsWorker) {
  ASSERT_NO_FATAL_FAILURE(lose_worker({}));
  EXPECT_TRUE(comes_true([this] { return has_ended(init_) && has_ended(seed_); }));
  EXPECT_FALSE(adopt());
}

TEST_F(InitTest, WhatItKeepsIsTheNextWorkers) {
  ASSERT_NO_FATAL_FAILURE(lose_worker({kUserfault, kRelay}));
  ASSERT_TRUE(adopt());
  EXPECT_FALSE(has_ended(seed_));
  EXPECT_EQ(cell_->seed(), seed_);
  EXPECT_EQ(cell_->init(), init_);
  ASSERT_EQ(kept_.size(), 2U);
  EXPECT_EQ(kept_[0].what, kUserfault);
  EXPECT_EQ(kept_[1].what, kRelay);
  struct stat mine {};
  struct stat told {};
  ASSERT_EQ(::fstat(file_->fd(), &mine), 0);
  for (const KeptDescriptor& kept : kept_) {
    ASSERT_EQ(::fstat(kept.fd.get(), &told), 0);
    EXPECT_EQ(told.st_ino, mine.st_ino);
  }
  EXPECT_EQ(test::code_of(cell_->read_event()), ErrorCode::kRetry);
  cell_->signal_seed(SIGTERM);  // The one that it was told of by its mark.
  expect_empty();
}

TEST_F(InitTest, WhatIsDroppedIsKeptNoMore) {
  ASSERT_NO_FATAL_FAILURE(lose_worker({kUserfault, kRelay, kOtherRelay}));
  const auto kept_now = [this] {
    EXPECT_TRUE(adopt());
    std::vector<std::uint32_t> numbers;
    for (const KeptDescriptor& kept : kept_) {
      numbers.push_back(kept.what.number);
    }
    return numbers;
  };
  using Numbers = std::vector<std::uint32_t>;
  EXPECT_EQ(kept_now(), (Numbers{1, 4, 5}));
  ASSERT_TRUE(cell_->drop(kOtherRelay));
  ASSERT_TRUE(cell_->drop({.kind = Kept::Kind::kRelayOut, .number = 4}));  // It has none.
  EXPECT_EQ(kept_now(), (Numbers{1, 4}));
  ASSERT_TRUE(cell_->keep(kOtherRelay, 0));
  ASSERT_TRUE(cell_->drop({.kind = Kept::Kind::kRelayIn, .number = 0}));  // All of the kind.
  EXPECT_EQ(kept_now(), Numbers{1});
}

TEST_F(InitTest, WhatHappenedMeanwhileIsToldToTheNextWorker) {
  ASSERT_NO_FATAL_FAILURE(lose_worker({kUserfault}));
  for (const GuestPhase phase : {GuestPhase::kAwaitsRun, GuestPhase::kTold, GuestPhase::kMarked,
                                 GuestPhase::kKept, GuestPhase::kRan}) {
    mark().phase.enter(phase);
  }
  ::kill(seed_, SIGUSR2);
  EXPECT_TRUE(comes_true([this] { return mark().phase.guest() == GuestPhase::kEnded; }));
  ASSERT_TRUE(adopt());
  expect_status(SIGUSR2);
  expect_empty();
  ASSERT_TRUE(adopt());  // And to the one after that.
  expect_status(SIGUSR2);
  expect_empty();
}

TEST_F(InitTest, AStrangerWhoSaysNothingSensibleTakesNothingAway) {
  ASSERT_NO_FATAL_FAILURE(lose_worker({kUserfault}));
  for (const std::size_t length : {std::size_t{0}, std::size_t{1}, sizeof(cell::Message) - 1,
                                   sizeof(cell::Message) + 1, std::size_t{4096}}) {
    const UniqueFd stranger = connect_unix(options_.socket_path).value();
    const std::vector<char> bytes(length, '\xff');
    EXPECT_EQ(::send(stranger.get(), bytes.data(), length, MSG_NOSIGNAL),
              static_cast<ssize_t>(length));
  }
  ASSERT_TRUE(adopt());
  EXPECT_EQ(kept_.size(), 1U);
  EXPECT_FALSE(has_ended(seed_));
  cell_->signal_seed(SIGKILL);
  expect_empty();
}

TEST_F(InitTest, OfACellThatIsGoneNothingIsTold) {
  ASSERT_NO_FATAL_FAILURE(make_cell());
  const pid_t init = cell_->init();
  Cell gone = Cell::gone(options_.socket_path, mark());
  EXPECT_EQ(gone.seed(), cell_->seed());
  const auto event = gone.read_event();
  ASSERT_FALSE(event);
  EXPECT_NE(event.error().code, ErrorCode::kRetry);
  gone.signal_seed(SIGKILL);  // Reaches nobody.
  EXPECT_FALSE(has_ended(init));
  EXPECT_FALSE(gone.keep(kUserfault, 0));
}

TEST_F(InitTest, EndedItTakesAllWithItAndItsSocketIsGone) {
  ASSERT_NO_FATAL_FAILURE(make_cell());
  ASSERT_TRUE(cell_->keep(kUserfault, file_->fd()));
  const pid_t orphan = make_orphan();
  const pid_t seed = cell_->seed();
  EXPECT_TRUE(std::filesystem::exists(options_.socket_path));
  EXPECT_TRUE(cell_->end_and_wait());
  EXPECT_TRUE(has_ended(orphan));
  EXPECT_TRUE(has_ended(seed));
  EXPECT_FALSE(std::filesystem::exists(options_.socket_path));
}

}  // namespace
}  // namespace migrate
