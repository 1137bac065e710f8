#include "libmigrate/takeover/adoption.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "base/file.h"
#include "base/mapping.h"
#include "libmigrate/cell/cell.h"
#include "libmigrate/guest/clear_session.h"
#include "libmigrate/move/control_channel.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/proto/session.pb.h"
#include "libmigrate/state/registry.h"
#include "libmigrate/state/session_file.h"
#include "transport/handoff.h"
#include "transport/proof.h"
#include "transport/tcp.h"

namespace migrate {
namespace {

class AdoptionTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "adoptionXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    context_.state_directory = pattern;
    ASSERT_TRUE(SessionFile::prepare(pattern));
    init_ = fork();
    if (init_ == 0) {
      prctl(PR_SET_NAME, kInitName);
      for (;;) {
        pause();
      }
    }
  }
  void TearDown() override {
    kill(init_, SIGKILL);
    waitpid(init_, nullptr, 0);
    std::filesystem::remove_all(context_.state_directory);
  }

  /// Clears a session that names the init so; whether the init was killed.
  bool clear(std::uint64_t start) {
    SessionFile file =
        SessionFile::create(context_.state_directory, cell_session_name(to_hex(session_))).value();
    file.mark().init = init_;
    file.mark().init_start = start;
    clear_session(context_, file, session_);
    constexpr int kMs = 20;
    usleep(kMs * 1000);
    return waitpid(init_, nullptr, WNOHANG) == init_;
  }

  WorkerContext context_;
  SessionId session_ = random_session_id().value();
  pid_t init_ = 0;
};

TEST_F(AdoptionTest, ALaterInitWithThePidOfADeadOneLives) {
  EXPECT_FALSE(clear(start_time(init_) - 1));
}

TEST_F(AdoptionTest, TheInitOfAProcessThatNeverRanIsKilled) {
  EXPECT_TRUE(clear(start_time(init_)));
}

/// Who asks for a session of which no worker takes care: the answer decides whether the process
/// runs here, at its source, or nowhere.
class AnswerTest : public testing::Test {
 protected:
  static constexpr int kLookMs = 2000;
  static constexpr int kExited = 3 << 8;
  static constexpr const char* kToken = "secret";

  AnswerTest() {
    std::string pattern = "/dev/shm/answerXXXXXX";  // Not to wait for a disk at every answer.
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    context_.state_directory = pattern;
    EXPECT_TRUE(SessionFile::prepare(pattern));
    incarnation_ = SessionFile::incarnation(pattern).value();
  }
  ~AnswerTest() override { std::filesystem::remove_all(context_.state_directory); }

  std::string name() const { return cell_session_name(to_hex(session_)); }
  std::string path(const char* suffix = ".session") const {
    return SessionFile::directory(context_.state_directory) + "/" + name() + suffix;
  }
  bool has_file() const { return std::filesystem::exists(path()); }

  /// What a worker has noted: locked as long as the worker lives.
  SessionFile note(GuestPhase phase, int wait_status = kExited) {
    SessionFile file = SessionFile::create(context_.state_directory, name()).value();
    wire::CellSession text;
    text.set_token(kToken);
    EXPECT_TRUE(file.save(text.SerializeAsString()));
    EXPECT_EQ(file.mark().phase.enter(phase, wait_status), phase);
    return file;
  }
  /// The same, of a worker that has died.
  void leave(GuestPhase phase, int wait_status = kExited) {
    SessionFile file = note(phase, wait_status);
    file.mark().worker = 0;
    file.mark().worker_start = 0;
  }
  /// The init of its cell waits for a new worker.
  UnixListener cell() { return UnixListener::create(path(".socket"), S_IRUSR | S_IWUSR).value(); }

  using Answer = void (*)(const WorkerContext&, UniqueFd, const Preamble&);
  /// Has `answer` take a connection, and gives its other end. The answer ends with `answering`.
  std::unique_ptr<Channel> connect(Answer answer, const Preamble& preamble,
                                   std::jthread& answering) {
    auto listener = TcpListener::create({.scheme = "tcp", .host = "127.0.0.1", .port = 0}).value();
    UniqueFd ours = connect_tcp({"tcp", "127.0.0.1", listener.port()}, kLookMs).value();
    UniqueFd theirs = listener.accept(kLookMs).value().fd;
    answering = std::jthread([this, answer, preamble, fd = std::move(theirs)]() mutable {
      answer(context_, std::move(fd), preamble);
    });
    return TcpChannel::create(std::move(ours)).value();
  }
  /// What is answered to the source of the session, if anything is. `knows`: it says so.
  std::optional<wire::Verdict> ask(bool knows = false, const std::string& token = kToken) {
    const Preamble preamble{.purpose = Purpose::kResume, .session = session_};
    std::jthread answering;
    auto channel = connect(answer_resume, preamble, answering);
    static_cast<void>(give_proof(*channel, token, preamble, kLookMs));
    ControlChannel control(std::move(channel), "destination");
    const auto message = control.receive(0, kLookMs);
    if (!message) {
      EXPECT_NE(message.error().code, ErrorCode::kRetry) << "neither an answer nor the end";
      return std::nullopt;
    }
    EXPECT_TRUE(message->has_verdict());
    if (knows) {
      wire::ControlMessage goodbye;
      goodbye.mutable_goodbye();
      EXPECT_TRUE(control.send(goodbye));
    }
    return message->verdict();
  }

  WorkerContext context_;
  std::string incarnation_;
  const SessionId session_ = random_session_id().value();
};

/// What may be said of a process that came here, whose worker is dead. Nothing: not yet.
struct Right {
  GuestPhase phase;
  std::optional<wire::Verdict::Fate> with_cell;
  std::optional<wire::Verdict::Fate> without_cell;
  int wait_status = 0;  ///< Without a cell.
};

constexpr auto kNothing = std::nullopt;
constexpr std::array<Right, 15> kRight{{
    {GuestPhase::kPrepared, wire::Verdict::NEVER_RAN, wire::Verdict::NEVER_RAN},
    {GuestPhase::kAwaitsRun, wire::Verdict::NEVER_RAN, wire::Verdict::NEVER_RAN},
    {GuestPhase::kTold, wire::Verdict::NEVER_RAN, wire::Verdict::NEVER_RAN},
    {GuestPhase::kMarked, kNothing, wire::Verdict::ENDED, SIGKILL},
    {GuestPhase::kKept, kNothing, wire::Verdict::ENDED, SIGKILL},
    {GuestPhase::kRan, kNothing, wire::Verdict::ENDED, SIGKILL},
    {GuestPhase::kServing, kNothing, wire::Verdict::ENDED, SIGKILL},
    {GuestPhase::kIndependent, kNothing, wire::Verdict::ENDED, SIGKILL},
    {GuestPhase::kInDoubt, kNothing, wire::Verdict::ENDED, SIGKILL},
    {GuestPhase::kLeaving, kNothing, wire::Verdict::RUNS},
    {GuestPhase::kWentOn, wire::Verdict::RUNS, wire::Verdict::RUNS},
    {GuestPhase::kNeverRan, wire::Verdict::NEVER_RAN, wire::Verdict::NEVER_RAN},
    {GuestPhase::kEnded, kNothing, wire::Verdict::ENDED, 3 << 8},
    {GuestPhase::kEndedIndependent, kNothing, wire::Verdict::ENDED, 3 << 8},
    {GuestPhase::kOver, wire::Verdict::ENDED, wire::Verdict::ENDED, 3 << 8},
}};

/// Each phase in turn.
class AnswerByPhase : public AnswerTest, public testing::WithParamInterface<Right> {};

INSTANTIATE_TEST_SUITE_P(All, AnswerByPhase, testing::ValuesIn(kRight),
                         [](const auto& each) { return std::string(to_string(each.param.phase)); });

TEST_P(AnswerByPhase, NothingWhileItsWorkerIsThere) {
  const SessionFile locked = note(GetParam().phase);
  EXPECT_FALSE(ask());
  const UnixListener with_cell = cell();
  EXPECT_FALSE(ask());
  EXPECT_TRUE(has_file());
}

// The lock of a worker that dies goes before its hold on the threads that it traces.
TEST_P(AnswerByPhase, NothingWhileItsWorkerIsDying) {
  { const SessionFile unlocked = note(GetParam().phase); }
  EXPECT_FALSE(ask());
  const UnixListener with_cell = cell();
  EXPECT_FALSE(ask());
  EXPECT_TRUE(has_file());
}

TEST_P(AnswerByPhase, WhileItsCellIsThere) {
  leave(GetParam().phase);
  const UnixListener with_cell = cell();
  const auto answer = ask();
  ASSERT_EQ(answer.has_value(), GetParam().with_cell.has_value());
  if (answer) {
    EXPECT_EQ(answer->fate(), *GetParam().with_cell) << answer->reason();
    EXPECT_EQ(answer->incarnation(), incarnation_);
  }
  // What never ran is cleared away; all else is there for whoever takes over or asks again.
  EXPECT_EQ(has_file(), GetParam().with_cell != wire::Verdict::NEVER_RAN);
}

TEST_P(AnswerByPhase, WhenNothingIsThereAnyMore) {
  leave(GetParam().phase);
  const auto answer = ask();
  ASSERT_EQ(answer.has_value(), GetParam().without_cell.has_value());
  EXPECT_EQ(answer->fate(), *GetParam().without_cell) << answer->reason();
  EXPECT_EQ(answer->incarnation(), incarnation_);
  EXPECT_EQ(answer->wait_status(), GetParam().wait_status);
  EXPECT_EQ(answer->progress().done(), answer->fate() == wire::Verdict::RUNS);
  EXPECT_EQ(has_file(), GetParam().without_cell != wire::Verdict::NEVER_RAN);
}

TEST_F(AnswerTest, IsTheSameUntilTheSourceSaysThatItKnows) {
  leave(GuestPhase::kOver);
  EXPECT_EQ(ask().value().fate(), wire::Verdict::ENDED);
  EXPECT_EQ(ask(true).value().fate(), wire::Verdict::ENDED);
  EXPECT_FALSE(has_file());
}

// It was marked to run and killed with its tracer: until it is reaped nobody knows whether it ran.
TEST_F(AnswerTest, WaitsUntilItIsKnownWhetherItRan) {
  const pid_t process = ::fork();
  if (process == 0) {
    ::_exit(0);
  }
  siginfo_t ended{};
  ASSERT_EQ(::waitid(P_PID, process, &ended, WEXITED | WNOWAIT), 0);  // It is not reaped here.
  leave(GuestPhase::kKept);
  const UniqueFd file = open_file(path(), O_RDWR | O_CLOEXEC).value();
  Mapping words = Mapping::of_file(file.get(), sizeof(SessionMark)).value();
  SessionMark& mark = *reinterpret_cast<SessionMark*>(words.bytes().data());
  mark.process = process;
  std::jthread init([&mark] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));  // Who does not wait says "ended".
    mark.phase.note_end(SIGKILL);
  });
  const auto answer = ask();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->fate(), wire::Verdict::NEVER_RAN) << answer->reason();
  ::waitpid(process, nullptr, 0);
}

TEST_F(AnswerTest, ToWhoDoesNotKnowTheTokenIsNone) {
  leave(GuestPhase::kPrepared);
  EXPECT_FALSE(ask(true, "guess"));
  EXPECT_TRUE(has_file());
  EXPECT_TRUE(ask());
}

TEST_F(AnswerTest, OfASessionThatNobodyKnowsIsThatItNeverRan) {
  const auto answer = ask(true, "of its source");
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->fate(), wire::Verdict::NEVER_RAN);
  EXPECT_EQ(answer->incarnation(), incarnation_);
}

// The process may run here: nobody can say.
TEST_F(AnswerTest, OfASessionWhoseFileIsDamagedIsNone) {
  std::ofstream(path()) << "no mark";
  SessionFile::list(context_.state_directory);
  ASSERT_TRUE(SessionFile::is_damaged(context_.state_directory, name()));
  EXPECT_FALSE(ask());
}

// "It never ran" counts for the source only with it.
TEST_F(AnswerTest, WithoutAnIncarnationIsNone) {
  std::filesystem::remove_all(context_.state_directory);
  EXPECT_FALSE(ask());
}

/// The row of the process at its home.
class AnswerToGuestTest : public AnswerTest {
 protected:
  void write_row(ProcessRole role, ProcessState state) {
    auto registry = Registry::open(context_.state_directory).value();
    ProcessRecord row;
    row.process = to_hex(session_);
    row.role = role;
    row.state = state;
    row.worker = 1;
    ASSERT_TRUE(registry.upsert(row));
  }
  /// Whether the place of a process is told that its home knows of its end.
  bool knows_of_end() {
    const Preamble preamble{.purpose = Purpose::kHome, .session = session_};
    std::jthread answering;
    auto channel = connect(answer_guest, preamble, answering);
    static_cast<void>(give_proof(*channel, kToken, preamble, kLookMs));
    const auto bytes = channel->receive(0, kLookMs);
    wire::RelayMessage message;
    return bytes && message.ParseFromArray(bytes->data(), static_cast<int>(bytes->size())) &&
           message.has_exited_ack();
  }
};

TEST_F(AnswerToGuestTest, IsThatItsEndIsKnown) {
  write_row(ProcessRole::kHome, ProcessState::kExited);
  EXPECT_TRUE(knows_of_end());
}

TEST_F(AnswerToGuestTest, IsNoneUnlessItsEndIsKnownAtItsHome) {
  EXPECT_FALSE(knows_of_end());
  write_row(ProcessRole::kGuest, ProcessState::kExited);
  EXPECT_FALSE(knows_of_end());
  write_row(ProcessRole::kHome, ProcessState::kAway);
  EXPECT_FALSE(knows_of_end());
}

/// Of which sessions somebody has to take care.
class OrphansTest : public AnswerTest {
 protected:
  using Names = std::vector<std::string>;
  Names orphans() { return orphaned_sessions(context_.state_directory, closed_); }

  std::set<std::string> closed_;
};

TEST_F(OrphansTest, AreThoseOfDeadWorkersThatAreNotClosed) {
  for (const Right& each : kRight) {
    leave(each.phase);
    const bool is_closed = each.phase == GuestPhase::kWentOn || each.phase == GuestPhase::kOver;
    EXPECT_EQ(orphans(), is_closed ? Names() : Names{name()}) << to_string(each.phase);
    EXPECT_EQ(closed_.contains(name()), is_closed) << to_string(each.phase);
    closed_.clear();
    std::filesystem::remove(path());
  }
}

TEST_F(OrphansTest, AreNotThoseWhoseWorkerLives) {
  const SessionFile locked = note(GuestPhase::kServing);
  EXPECT_TRUE(orphans().empty());
  EXPECT_TRUE(closed_.empty());
}

TEST_F(OrphansTest, AreThoseOfHomesInEveryPhase) {
  const std::string home = home_session_name(to_hex(session_));
  { const auto file = SessionFile::create(context_.state_directory, home).value(); }
  EXPECT_EQ(orphans(), Names{home});
}

TEST_F(OrphansTest, AClosedOneIsNotLookedAtAgainUntilItIsGone) {
  leave(GuestPhase::kOver);
  EXPECT_TRUE(orphans().empty());
  const SessionFile opened = SessionFile::open(context_.state_directory, name()).value();
  EXPECT_TRUE(orphans().empty());
  EXPECT_TRUE(closed_.contains(name()));
  std::filesystem::remove(path());
  EXPECT_TRUE(orphans().empty());
  EXPECT_TRUE(closed_.empty());
}

// A worker that was forked to take over finds that another one was faster.
TEST_F(OrphansTest, OneWhoseWorkerLivesIsNotTakenOver) {
  const SessionFile locked = note(GuestPhase::kServing);
  run_adopted_worker(context_, name());
  EXPECT_EQ(locked.mark().phase.guest(), GuestPhase::kServing);
  EXPECT_TRUE(has_file());
}

}  // namespace
}  // namespace migrate
