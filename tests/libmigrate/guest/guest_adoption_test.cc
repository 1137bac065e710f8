// What a new worker makes of what a dead one left: each test is one state in which that died.
#include "libmigrate/guest/guest_adoption.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <future>
#include <thread>

#include "libmigrate/guest/guest_worker.h"
#include "libmigrate/state/registry.h"
#include "pager/page_ledger.h"
#include "tests/libmigrate/guest/adoption_world.h"

namespace migrate {
namespace {

constexpr std::uint64_t kOwedPages = 3;
constexpr auto kMoment = std::chrono::milliseconds(5);

class GuestAdoptionTest : public testing::Test {
 protected:
  void SetUp() override {
    guest_world_.adopt_move = [this](SourceMoveOptions, SourceMove::Hooks, std::uint64_t area,
                                     const wire::Outgoing&,
                                     EventSink&) -> Result<std::unique_ptr<Departure>> {
      asked_for_area_ = area;
      if (!parked_) {
        return fail(make_error(ErrorCode::kNotFound, "take over"));
      }
      return std::move(parked_);
    };
    guest_world_.clock = [this] { return now_us_ += tick_us_; };
  }

  /// Its memory, of which the dead worker's pager had noted that pages are owed.
  void hold_memory() {
    const PageRange pages{0x7000'0000'0000, kOwedPages};
    auto ledger = PageLedger::create({pages}).value();
    ASSERT_TRUE(ledger->save({{{.destination = pages, .source_address = pages.start}}, {}, {}}));
    hold_userfault();
    world_.hold({.kind = Kept::Kind::kLedger, .number = 1},
                UniqueFd(::fcntl(ledger->fd(), F_DUPFD_CLOEXEC, 0)));
  }
  void hold_userfault() {
    world_.hold({.kind = Kept::Kind::kUserfault, .number = 1},
                UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)));
  }

  /// Takes over what was left in `phase`; fails the test where nothing is left of that.
  std::unique_ptr<Guest> take_over(GuestPhase phase) {
    auto adopted =
        GuestAdoption(world_.context, world_.session, guest_world_).take_over(world_.leave(phase));
    EXPECT_TRUE(adopted) << adopted.error().message();
    EXPECT_TRUE(adopted && *adopted);
    return adopted && *adopted ? std::move((*adopted)->guest) : nullptr;
  }
  /// A whole worker, of what was left in `phase`; its home listens meanwhile.
  void work(GuestPhase phase) {
    SessionFile file = world_.leave(phase);
    std::atomic<bool> over = false;
    auto worker = std::async(std::launch::async, [&] {
      run_adopted_guest(world_.context, std::move(file), world_.session, guest_world_);
      over = true;
    });
    while (!over) {
      if (called_home_) {
        static_cast<void>(world_.home->handle());
      }
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    worker.get();
  }
  /// Lets workers of work() reach their home.
  void listen_at_home() {
    guest_world_.connect_home = [this, call = guest_world_.connect_home](
                                    const WorkerContext& context, const wire::CellSession& noted,
                                    int timeout_ms) {
      auto channel = call(context, noted, timeout_ms);
      called_home_ = true;
      return channel;
    };
  }
  void note_move_on() {
    wire::Outgoing& outgoing = *world_.noted.mutable_outgoing();
    outgoing.set_session(std::string(16, 'n'));
    outgoing.set_destination("tcp://127.0.0.1:7073");
    outgoing.set_mode("lazy");
  }
  bool file_exists() const { return std::filesystem::exists(world_.session_path()); }
  std::size_t rows() const {
    auto registry = Registry::open(world_.directory.path()).value();
    return registry.list().value().size();
  }

  AdoptionWorld world_;
  GuestWorld guest_world_ = world_.world();
  std::atomic<std::int64_t> now_us_ = 1'000'000'000;
  std::int64_t tick_us_ = 0;  // that pass with each look at the clock
  std::atomic<bool> called_home_ = false;
  std::unique_ptr<Departure> parked_;  // what is found of a noted move
  std::optional<std::uint64_t> asked_for_area_;
};

TEST_F(GuestAdoptionTest, OfAProcessThatWasNotToRunNothingIsLeft) {
  for (const GuestPhase phase :
       {GuestPhase::kPrepared, GuestPhase::kAwaitsRun, GuestPhase::kTold}) {
    const auto adopted =
        GuestAdoption(world_.context, world_.session, guest_world_).take_over(world_.leave(phase));
    ASSERT_TRUE(adopted);
    EXPECT_FALSE(*adopted);
    EXPECT_FALSE(file_exists());
  }
  int status = 0;
  EXPECT_EQ(::waitpid(world_.init.id(), &status, 0), world_.init.id());
  EXPECT_TRUE(WIFSIGNALED(status));
}

// It was marked to run and killed with its tracer: whether it ran is known when it is reaped.
TEST_F(GuestAdoptionTest, WaitsUntilItIsKnownWhetherItRan) {
  SessionFile file = world_.leave(GuestPhase::kKept);
  SessionMark& mark = *reinterpret_cast<SessionMark*>(world_.mark.bytes().data());
  world_.seed.kill();
  auto reaped = std::async(std::launch::async, [&] {
    while (mark.worker != ::getpid()) {
      std::this_thread::sleep_for(kMoment);
    }
    std::this_thread::sleep_for(kMoment);  // In which a worker that does not wait would judge.
    mark.phase.note_end(SIGKILL);
  });
  const auto adopted =
      GuestAdoption(world_.context, world_.session, guest_world_).take_over(std::move(file));
  reaped.get();
  ASSERT_TRUE(adopted);
  EXPECT_FALSE(*adopted);
  EXPECT_FALSE(file_exists());
}

TEST_F(GuestAdoptionTest, GoesOnServingFromTheLedger) {
  hold_memory();
  world_.start_init();
  const auto guest = take_over(GuestPhase::kRan);
  ASSERT_TRUE(guest);
  EXPECT_EQ(guest->phase(), GuestPhase::kServing);
  EXPECT_EQ(guest->pages().owed(), kOwedPages);
  EXPECT_TRUE(guest->pages().waits());  // For its source to come again.
  EXPECT_TRUE(world_.dropped().empty());
  EXPECT_FALSE(guest->exited());
  EXPECT_EQ(guest->name(), "subject");
  EXPECT_EQ(rows(), 1U);
}

TEST_F(GuestAdoptionTest, IsOwedNothingWithoutALedger) {
  hold_userfault();
  world_.start_init();
  const auto guest = take_over(GuestPhase::kServing);
  ASSERT_TRUE(guest);
  EXPECT_EQ(guest->phase(), GuestPhase::kIndependent);
  EXPECT_EQ(guest->pages().owed(), 0U);
  EXPECT_FALSE(world_.dropped().empty());
}

// The dead worker had noted that nothing is owed, and not come to tell the init: the process would
// wait for ever on a userfaultfd that nobody serves.
TEST_F(GuestAdoptionTest, TellsTheInitToLetGoOfWhatIsNotOwed) {
  hold_memory();
  world_.start_init();
  const auto guest = take_over(GuestPhase::kIndependent);
  ASSERT_TRUE(guest);
  EXPECT_EQ(guest->phase(), GuestPhase::kIndependent);
  EXPECT_EQ(guest->pages().owed(), 0U);
  const std::vector<Kept> dropped = world_.dropped();
  ASSERT_EQ(dropped.size(), 2U);
  EXPECT_EQ(dropped[0].kind, Kept::Kind::kUserfault);
  EXPECT_EQ(dropped[0].number, 0U);
  EXPECT_EQ(dropped[1].kind, Kept::Kind::kLedger);
}

TEST_F(GuestAdoptionTest, ACellWhoseInitIsDeadHasNothingInIt) {
  const auto guest = take_over(GuestPhase::kServing);
  ASSERT_TRUE(guest);
  const auto event = guest->cell()->read_event();
  ASSERT_FALSE(event);
  EXPECT_NE(event.error().code, ErrorCode::kRetry);
  EXPECT_FALSE(guest->exited());  // Home is still to hear of it.
}

// Else its end would be told to its home again, as that of what is left in the cell.
TEST_F(GuestAdoptionTest, KnowsThatItHasEnded) {
  world_.noted.mutable_relay()->mutable_exited()->set_wait_status(3 << 8);
  world_.start_init();
  const auto guest = take_over(GuestPhase::kEnded);
  ASSERT_TRUE(guest);
  EXPECT_TRUE(guest->exited());
  EXPECT_FALSE(guest->cell_over());
}

TEST_F(GuestAdoptionTest, TakesOverStreamsAndSharedFiles) {
  const std::vector<RelayStreamSpec> specs{{.id = 4, .directions = wire::RELAY_OUT}};
  *world_.noted.mutable_relay()->mutable_relay() = make_relay_state(specs);
  world_.noted.mutable_relay()->add_streams()->set_id(4);
  int pipe[2] = {-1, -1};
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC | O_NONBLOCK), 0);
  const UniqueFd of_process(pipe[1]);
  world_.hold({.kind = Kept::Kind::kRelayOut, .number = 5}, UniqueFd(pipe[0]));
  UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  ::lseek(file.get(), 12, SEEK_SET);
  world_.hold({.kind = Kept::Kind::kSharedFile, .number = 6}, std::move(file));
  world_.start_init();
  const auto guest = take_over(GuestPhase::kIndependent);
  ASSERT_TRUE(guest);
  const auto ends = guest->home().relay()->ends();
  ASSERT_EQ(ends.size(), 1U);
  EXPECT_EQ(ends[0].id, 4U);
  EXPECT_EQ(guest->objects().positions(), (std::map<std::uint64_t, std::uint64_t>{{6, 12}}));
  StandInCell cell(world_.seed.id());
  ASSERT_TRUE(guest->record().keep_ends(cell, *guest->home().relay()));
  EXPECT_TRUE(cell.kept.empty());  // The init holds it already.
}

TEST_F(GuestAdoptionTest, AWorkerHasNothingToDoForWhatNeverRan) {
  work(GuestPhase::kTold);
  EXPECT_FALSE(file_exists());
}

TEST_F(GuestAdoptionTest, HomeHearsOfACellThatWasKilled) {
  tick_us_ = 11'000'000;  // The source has no time to come back.
  listen_at_home();
  work(GuestPhase::kServing);
  ASSERT_TRUE(world_.exited);
  EXPECT_EQ(world_.exited->wait_status(), SIGKILL);
  EXPECT_NE(world_.exited->lost().find("was killed"), std::string::npos);
  EXPECT_EQ(world_.phase(), "Over");
  EXPECT_TRUE(file_exists());  // For the source.
}

TEST_F(GuestAdoptionTest, AMoveThatWasNotDecidedIsForgotten) {
  note_move_on();
  tick_us_ = 11'000'000;
  listen_at_home();
  work(GuestPhase::kIndependent);
  EXPECT_TRUE(asked_for_area_);
  EXPECT_TRUE(world_.exited);  // It was here, where its cell was killed.
}

// It runs elsewhere, and whoever served its pages here went with the cell.
TEST_F(GuestAdoptionTest, OfOneThatHasLeftANoteIsLeft) {
  note_move_on();
  work(GuestPhase::kLeaving);
  EXPECT_TRUE(asked_for_area_);
  EXPECT_FALSE(called_home_);
  EXPECT_EQ(world_.phase(), "WentOn");
  EXPECT_TRUE(file_exists());
  EXPECT_EQ(rows(), 0U);
}

TEST_F(GuestAdoptionTest, AMoveThatWasDecidedIsGoneOnWith) {
  note_move_on();
  tick_us_ = 11'000'000;
  listen_at_home();
  const std::int64_t since_us = 0;
  auto move = std::make_unique<StandInDeparture>(since_us);
  move->owes_nothing = true;
  parked_ = std::move(move);
  guest_world_.adopt_move = [adopt = guest_world_.adopt_move](
                                SourceMoveOptions options, SourceMove::Hooks hooks,
                                std::uint64_t area, const wire::Outgoing& noted, EventSink& sink) {
    EXPECT_EQ(options.destination.port, 7073);
    EXPECT_EQ(options.token, "token");
    EXPECT_EQ(noted.session(), std::string(16, 'n'));
    return adopt(std::move(options), std::move(hooks), area, noted, sink);
  };
  work(GuestPhase::kInDoubt);
  EXPECT_EQ(world_.phase(), "WentOn");
  EXPECT_FALSE(called_home_);  // Home speaks with the next place.
  EXPECT_EQ(rows(), 0U);
}

}  // namespace
}  // namespace migrate
