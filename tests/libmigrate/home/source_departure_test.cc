// A real process leaves its home, and a new worker finds what is left of it when the first has
// died.
#include "libmigrate/home/source_departure.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <mutex>
#include <thread>

#include "base/file.h"
#include "base/mapping.h"
#include "libmigrate/links/tcp_listener.h"
#include "libmigrate/relay/socket_end.h"
#include "tests/libmigrate/inspect/held_process.h"
#include "tests/libmigrate/move/held_state.h"
#include "tests/libmigrate/move/loopback_destination.h"
#include "tests/libmigrate/move/stand_ins.h"

namespace migrate::home_testing {
namespace {

using handover_testing::blocked_signals;
using Body = handover_testing::Body;
using handover_testing::is_traced;

class SourceDepartureTest : public testing::Test {
 protected:
  SourceDepartureTest() : process_([] {}) {
    std::string pattern = "/dev/shm/departureXXXXXX";
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    context_.state_directory = pattern;
    EXPECT_TRUE(SessionFile::prepare(pattern));
    request_.pid = process_.pid();
    request_.uid = kUser;
    request_.asker = {.user = 0, .group = 0, .capabilities = ~std::uint64_t{0}};
    request_.destination = there_.address().to_string();
    record_.emplace(HomeRecord::create(pattern, request_).value());
    there_.expect_token(record_->token());
    EXPECT_TRUE(record_->save());
  }
  ~SourceDepartureTest() override {
    there_.stop();
    std::filesystem::remove_all(context_.state_directory);
  }

  void SetUp() override {
    if (handover_testing::kIsThreadSanitizer) {
      GTEST_SKIP() << "ThreadSanitizer maps files that it has deleted, which is refused";
    }
  }

  bool is_parked() const { return handover_testing::is_parked(process_.pid(), record_->area()); }
  /// The whole text of the session's file, as it is on the disk.
  std::string file() const {
    const std::string name = home_session_name(to_hex(record_->process())) + ".session";
    return read_file(SessionFile::directory(context_.state_directory) + "/" + name)
        .value_or(std::string());
  }
  std::string session_noted() const { return record_->text().outgoing().session(); }

  /// What a worker does: the thread is the tracer, and what it traces is nobody's when it ends.
  static void as_worker(const std::function<void()>& act) { std::thread(act).join(); }
  /// A worker moves the process, does that, and dies.
  void move_and_die(
      MoveOutcome expected, const std::function<void(Departed&)>& act = [](Departed&) {}) {
    there_.start();
    as_worker([&] {
      auto leaving = create();
      ASSERT_EQ(leaving->attempt(), expected);
      Departed departed = leaving->depart();
      act(departed);
    });
  }
  std::unique_ptr<SourceLeaving> create() {
    return SourceLeaving::create(context_, request_, *record_, files_, nobody_).value();
  }
  SourceRemains remains() { return {context_, *record_, nobody_}; }
  void kill_process() {
    ::kill(process_.pid(), SIGKILL);
    while (start_time(process_.pid()) != 0) {
      ::usleep(1000);
    }
  }

  static constexpr uid_t kUser = 12;
  test::HeldProcess process_;
  handover_testing::LoopbackDestination there_;
  WorkerContext context_;
  MoveRequest request_;
  RealFiles files_;
  EventSink nobody_;
  std::optional<HomeRecord> record_;
};

TEST_F(SourceDepartureTest, NeedsAnAddressToLeaveFor) {
  request_.destination = "tcp://:no";
  const auto leaving = SourceLeaving::create(context_, request_, *record_, files_, nobody_);
  ASSERT_FALSE(leaving);
  EXPECT_EQ(leaving.error().code, ErrorCode::kInvalid);
}

// A worker that dies from then on is asked about, or asks.
TEST_F(SourceDepartureTest, ItsMoveIsOnTheDiskBeforeTheImageLeaves) {
  std::string at_final;
  there_.when(Body::kFinal, [&] { at_final = file(); });
  move_and_die(MoveOutcome::kCommitted);
  ASSERT_FALSE(session_noted().empty());
  EXPECT_NE(at_final.find(session_noted()), std::string::npos);
  EXPECT_NE(at_final.find(there_.address().to_string()), std::string::npos);
  EXPECT_NE(record_->area(), 0U);
  EXPECT_TRUE(record_->text().outgoing().confirmed());
  EXPECT_EQ(record_->text().user(), ::getuid());  // Whose it is now, not who it was.
}

TEST_F(SourceDepartureTest, ThatCameToNothingIsTold) {
  there_.answer(Body::kFinal, {handover_testing::failed()});
  there_.start();
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const UniqueFd read_end(ends[0]);
  as_worker([&, write_end = ends[1]] {
    EventSink client((UniqueFd(write_end)));
    auto leaving = create();
    ASSERT_EQ(leaving->attempt(), MoveOutcome::kFailed);
    leaving->tell_not_moved(client, MoveOutcome::kFailed);
  });
  std::array<char, 4096> text{};
  ASSERT_GT(::read(read_end.get(), text.data(), text.size() - 1), 0);
  EXPECT_NE(std::string(text.data()).find("no room"), std::string::npos);
  EXPECT_FALSE(is_parked());
}

/// This thread is told from now on that there is no room for a descriptor of another process.
void refuse_fetching() {
  std::array<sock_filter, 4> program{
      sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_getfd, 0, 1),
      sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EMFILE),
      sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  ASSERT_EQ(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
}

// What the worker has no room for nobody would ever close in the deputy.
TEST_F(SourceDepartureTest, ASocketThatCannotBeFetchedIsNotLeftInTheDeputy) {
  move_and_die(MoveOutcome::kCommitted, [&](Departed& departed) {
    ASSERT_TRUE(departed.deputy->settle({}));
    there_.stop();
    const auto make = [&] {
      return departed.deputy->make_socket(SOCK_DGRAM, SocketName::loopback(0), nullptr, {});
    };
    const std::string folder = "/proc/" + std::to_string(process_.pid()) + "/fd";
    const std::size_t before = list_directory(folder).value().size();
    EXPECT_TRUE(make());
    EXPECT_EQ(list_directory(folder).value().size(), before + 1);
    refuse_fetching();
    const auto failed = make();
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().sys_errno, EMFILE) << failed.error().message();
    EXPECT_EQ(list_directory(folder).value().size(), before + 1);
  });
}

TEST_F(SourceDepartureTest, TheDeputyListensInThePlaceOfTheProcess) {
  there_.start();
  auto leaving = create();
  ASSERT_EQ(leaving->attempt(), MoveOutcome::kCommitted);
  Departed departed = leaving->depart();
  ASSERT_TRUE(departed.deputy->settle({}));
  there_.stop();
  const UniqueFd taken(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::listen(taken.get(), 1), 0);
  const std::string folder = "/proc/" + std::to_string(process_.pid()) + "/fd";
  const std::size_t before = list_directory(folder).value().size();
  wire::RelayListening wanted;
  wanted.set_name(SocketName::of(taken.get())->to_bytes());
  wanted.set_backlog(7);
  const auto refused = departed.deputy->listen(wanted, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().sys_errno, EADDRINUSE) << refused.error().message();
  EXPECT_EQ(list_directory(folder).value().size(), before);
  wanted.set_name(SocketName::loopback(0).to_bytes());
  const auto made = departed.deputy->listen(wanted, {});
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(backlog_of(made->real.get()).value_or(0), 7U);
  const SocketName name = *SocketName::of(made->real.get());
  const UniqueFd peer(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::connect(peer.get(), name.address(), name.size()), 0);
  const auto accepted = departed.deputy->accept(1U << 30U, made->descriptor, {made->descriptor});
  ASSERT_TRUE(accepted) << accepted.error().message();
  EXPECT_EQ(*SocketName::of_peer(accepted->real.get()), *SocketName::of(peer.get()));
  EXPECT_EQ(list_directory(folder).value().size(), before + 2);
}

TEST_F(SourceDepartureTest, TheDeputyKeepsAJournal) {
  const std::string folder = "/proc/" + std::to_string(process_.pid()) + "/fd";
  std::uint32_t descriptor = 0;
  move_and_die(MoveOutcome::kCommitted, [&](Departed& departed) {
    ASSERT_TRUE(departed.deputy->settle({}));
    const std::size_t before = list_directory(folder).value().size();
    const auto made = departed.deputy->make_journal({});
    ASSERT_TRUE(made) << made.error().message();
    descriptor = made->descriptor;
    EXPECT_EQ(list_directory(folder).value().size(), before + 1);
    const UniqueFd journal = SocketEnd::open_journal_of(made->real.get()).value();
    ASSERT_EQ(::write(journal.get(), "abc", 3), 3);
    ASSERT_TRUE(departed.deputy->settle({descriptor}));  // It is kept with what was accepted.
    there_.stop();
  });
  // What was in it is there when the worker has died.
  const UniqueFd end = fetch_descriptor(process_.pid(), descriptor).value();
  const UniqueFd journal = SocketEnd::open_journal_of(end.get()).value();
  std::array<char, 8> bytes{};
  EXPECT_EQ(::read(journal.get(), bytes.data(), bytes.size()), 3);
  EXPECT_STREQ(bytes.data(), "abc");
  struct stat status {};
  ASSERT_EQ(::fstat(end.get(), &status), 0);
  // Of what was noted it is found by its number, if it is that one.
  wire::HomeRelayState noted;
  wire::HomeRelayState::Stream& stream = *noted.add_streams();
  stream.set_id(1);
  stream.set_journal_descriptor(descriptor);
  for (const std::uint64_t inode :
       {std::uint64_t{status.st_ino}, std::uint64_t{status.st_ino} + 1}) {
    stream.set_journal_inode(inode);
    RealFiles files;
    files.note_streams(noted);
    files.fetch_journals(process_.pid(), noted);
    EXPECT_EQ(files.take_streams().front().journal.valid(), inode == status.st_ino);
  }
}

TEST_F(SourceDepartureTest, LeavesADeputyWhichEndsWithIt) {
  there_.start();
  auto leaving = create();
  ASSERT_EQ(leaving->attempt(), MoveOutcome::kCommitted);
  Departed departed = leaving->depart();
  ASSERT_TRUE(departed.deputy);
  EXPECT_FALSE(departed.keeper);
  EXPECT_EQ(departed.move->fate(), Fate::kRuns);
  EXPECT_EQ(departed.deputy->process(), process_.pid());
  ASSERT_TRUE(departed.deputy->settle({}));
  EXPECT_EQ(departed.deputy->check_state().value(), 0);
  EXPECT_TRUE(departed.deputy->let_attach(request_.asker));
  EXPECT_TRUE(departed.deputy->let_signal(request_.asker));
  EXPECT_FALSE(departed.deputy->let_signal({.user = kUser, .group = kUser}));
  EXPECT_TRUE(departed.deputy->free_all());
  ASSERT_TRUE(departed.deputy->end_as(3 << 8));
  EXPECT_EQ(start_time(process_.pid()), 0U);
}

TEST_F(SourceDepartureTest, FindsThatTheProcessRunsOn) {
  auto found = remains().find();  // It was never moved.
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_EQ(*found, Found::kRunsOn);
  there_.answer(Body::kFinal, {handover_testing::failed()});
  there_.start();
  as_worker([&] { ASSERT_EQ(create()->attempt(), MoveOutcome::kFailed); });
  found = remains().find();  // It was brought back.
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_EQ(*found, Found::kRunsOn);
  EXPECT_FALSE(is_traced(process_.pid()));
}

TEST_F(SourceDepartureTest, FindsThatTheProcessIsGone) {
  kill_process();
  const auto found = remains().find();
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_EQ(*found, Found::kGone);
}

// Its pid is another's by now, of which nothing may be said.
TEST_F(SourceDepartureTest, ALaterProcessWithItsPidIsNotIt) {
  const std::string path = SessionFile::directory(context_.state_directory) + "/" +
                           home_session_name(to_hex(record_->process())) + ".session";
  const UniqueFd file = open_file(path, O_RDWR | O_CLOEXEC).value();
  Mapping words = Mapping::of_file(file.get(), sizeof(SessionMark)).value();
  reinterpret_cast<SessionMark*>(words.bytes().data())->process_start =
      start_time(process_.pid()) - 1;
  EXPECT_EQ(remains().find().value(), Found::kGone);
}

TEST_F(SourceDepartureTest, FindsThatWhatWasParkedIsGone) {
  move_and_die(MoveOutcome::kCommitted);
  kill_process();
  SourceRemains left = remains();
  EXPECT_EQ(left.find().value(), Found::kGone);
  const Departed departed = left.go_on().value();
  EXPECT_FALSE(departed.deputy);
  EXPECT_EQ(departed.move->fate(), Fate::kRuns);
  EXPECT_EQ(departed.move->destination(), there_.address().to_string());
}

TEST_F(SourceDepartureTest, FindsWhatIsParkedAndGoesOnInDoubt) {
  there_.cut(Body::kRun);
  const std::string mask = blocked_signals(process_.pid());
  move_and_die(MoveOutcome::kInDoubt);
  EXPECT_FALSE(is_traced(process_.pid()));
  EXPECT_TRUE(is_parked());
  SourceRemains left = remains();
  ASSERT_EQ(left.find().value(), Found::kParked);
  const Departed departed = left.go_on().value();
  ASSERT_TRUE(departed.deputy);
  EXPECT_EQ(departed.deputy->process(), process_.pid());
  EXPECT_EQ(departed.move->fate(), Fate::kUnknown);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(departed.move->session().data()),
                        departed.move->session().size()),
            session_noted());
  ASSERT_TRUE(departed.move->resume_here());
  EXPECT_FALSE(is_traced(process_.pid()));
  EXPECT_FALSE(is_parked());
  EXPECT_EQ(blocked_signals(process_.pid()), mask);
}

// Another one has it: whoever says that it runs on here lets it run twice.
TEST_F(SourceDepartureTest, NobodyCanSayOfWhatSomebodyElseTraces) {
  std::timed_mutex over;
  over.lock();
  std::atomic<bool> moved = false;
  there_.start();
  std::thread worker([&] {
    auto leaving = create();
    EXPECT_EQ(leaving->attempt(), MoveOutcome::kCommitted);
    const Departed departed = leaving->depart();
    EXPECT_TRUE(departed.deputy->settle({}));  // Not stopped by its tracer: it waits for signals.
    moved = true;
    over.lock();
    over.unlock();
  });
  while (!moved) {
    ::usleep(1000);
  }
  const auto found = remains().find();
  EXPECT_FALSE(found);
  over.unlock();
  worker.join();
  EXPECT_EQ(remains().find().value(), Found::kParked);
}

TEST_F(SourceDepartureTest, FindsTheKeeperOfItsChildren) {
  std::atomic<pid_t> keeper_id = 0;
  move_and_die(MoveOutcome::kCommitted, [&](Departed& departed) {
    ASSERT_TRUE(departed.deputy->settle({}));
    auto keeper = departed.deputy->make_keeper({});
    ASSERT_TRUE(keeper) << keeper.error().message();
    keeper_id = (*keeper)->process();
    wire::Keeper& noted = *record_->text().mutable_keeper();
    noted.set_pid(keeper_id);
    noted.set_start(start_time(keeper_id));
    ASSERT_TRUE(departed.deputy->end_as(0));
    departed.deputy.reset();
  });
  SourceRemains left = remains();
  ASSERT_EQ(left.find().value(), Found::kGone);
  ASSERT_TRUE(left.find_keeper().value());
  Departed departed = left.go_on().value();
  EXPECT_FALSE(departed.deputy);
  ASSERT_TRUE(departed.keeper);
  EXPECT_EQ(departed.keeper->process(), keeper_id);
  EXPECT_EQ(departed.keeper->check_state().value(), 0);
  EXPECT_TRUE(departed.keeper->free_all());
  departed.keeper->end();
  EXPECT_EQ(start_time(keeper_id), 0U);
  EXPECT_FALSE(remains().find_keeper().value());
}

// Its pid is another's by now.
TEST_F(SourceDepartureTest, ALaterProcessWithThePidOfTheKeeperIsNone) {
  wire::Keeper& noted = *record_->text().mutable_keeper();
  noted.set_pid(process_.pid());
  noted.set_start(start_time(process_.pid()) - 1);
  EXPECT_FALSE(remains().find_keeper().value());
}

TEST_F(SourceDepartureTest, AsksTheDestinationWhatBecameOfIt) {
  wire::Outgoing& noted = *record_->text().mutable_outgoing();
  noted.set_session(std::string(16, 's'));
  noted.set_destination(there_.address().to_string());
  noted.set_incarnation("first");
  there_.answer_resume({handover_testing::verdict(wire::Verdict::NEVER_RAN, "first")});
  there_.start();
  SourceRemains left = remains();
  const auto verdict = left.ask_verdict();
  ASSERT_TRUE(verdict) << verdict.error().message();
  EXPECT_EQ(verdict->fate(), wire::Verdict::NEVER_RAN);
  noted.set_incarnation("an earlier one");
  EXPECT_FALSE(left.ask_verdict());  // It cannot know.
}

TEST_F(SourceDepartureTest, ADamagedNoteIsNotGoneOnWith) {
  record_->text().mutable_outgoing()->set_destination("tcp://:no");
  const auto departed = remains().go_on();
  ASSERT_FALSE(departed);
  EXPECT_EQ(departed.error().code, ErrorCode::kInvalid);
}

}  // namespace
}  // namespace migrate::home_testing
