// A process that is inspected, frozen, captured and parked, without a destination.
#include "libmigrate/move/frozen_source.h"

#include <gtest/gtest.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cstring>
#include <set>
#include <thread>

#include "base/file.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/move/source_move.h"
#include "libmigrate/pages/channel_link.h"
#include "libmigrate/program/layout.h"
#include "libmigrate/requests/requests.h"
#include "libmigrate/trace/tracee.h"
#include "pager/page_protocol.h"
#include "tests/libmigrate/inspect/held_process.h"
#include "transport/memory_channel.h"

namespace migrate {
namespace {

constexpr std::uint64_t kPages = 4;
#ifdef __SANITIZE_THREAD__
constexpr bool kOfThreadSanitizer = true;
#elif defined(__has_feature)
constexpr bool kOfThreadSanitizer = __has_feature(thread_sanitizer);
#else
constexpr bool kOfThreadSanitizer = false;
#endif

/// Takes what is sent until a round ends, and confirms that.
std::vector<PushRun> confirm_one_round(std::unique_ptr<Channel> channel) {
  ChannelLink link(std::move(channel));
  std::vector<PushRun> runs;
  for (PushView push;;) {
    const auto message = link.receive(0, 10'000);
    if (!message) {
      return {};
    }
    if (parse_push(*message, push)) {
      runs.insert(runs.end(), push.runs.begin(), push.runs.end());
      continue;
    }
    auto control = parse_control(*message);
    if (!control || control->type != MessageType::kPushEnd) {
      return {};
    }
    control->type = MessageType::kConfirm;
    const std::span<const std::byte> part = message_bytes(*control);
    return link.send(std::span(&part, 1)) ? runs : std::vector<PushRun>();
  }
}

bool has(const std::vector<PushRun>& runs, PageRange range) {
  std::vector<PageRange> ranges;
  for (const PushRun& run : runs) {
    ranges.push_back(run.range());
  }
  return without({range}, page_set(std::move(ranges))).empty();
}

void wait_for_a_futex(int) {
  static std::uint32_t word = 0;
  const timespec length{1000, 0};
  ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &length, nullptr, 0);
}

class FrozenSourceTest : public testing::Test {
 protected:
  FrozenSourceTest()
      : place_(::mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
        process_([this] { std::memset(place_, 7, kPages * kPageBytes); }) {
    options_.pid = process_.pid();
    options_.request.asker = {.user = 0, .group = 0, .capabilities = ~std::uint64_t{0}};
    options_.context = &context_;
    session_.fill(std::byte{5});
  }
  ~FrozenSourceTest() override { ::munmap(place_, kPages * kPageBytes); }

  void SetUp() override {
    if (kOfThreadSanitizer) {
      GTEST_SKIP() << "ThreadSanitizer maps files that it has deleted, which is refused";
    }
  }

  /// As far as before the parking record is written.
  Result<void> capture(FrozenSource& source) {
    source.begin();
    report_.begin();
    MIGRATE_TRY(source.inspect());
    MIGRATE_TRY(source.freeze());
    MIGRATE_TRY(source.complete_image(77));
    return source.take_judgement();
  }
  Result<void> park(FrozenSource& source) {
    MIGRATE_TRY(capture(source));
    source.serialise_image();
    MIGRATE_TRY(source.prepare_to_park(session_));
    MIGRATE_TRY(source.park());
    source.end_freeze();
    return {};
  }

  std::string proc(const char* name) const {
    return "/proc/" + std::to_string(process_.pid()) + "/" + name;
  }
  /// Its memory is registered with a userfaultfd for writes.
  bool is_followed() const {
    return read_file(proc("smaps")).value().find(" uw") != std::string::npos;
  }

  std::uint64_t start() const { return reinterpret_cast<std::uint64_t>(place_); }
  /// The first byte of a page of the process: 7 until it was given back.
  int first_byte(std::uint64_t page) const {
    std::byte byte{};
    EXPECT_TRUE(read_memory(process_.pid(), start() + page * kPageBytes, std::span(&byte, 1)));
    return std::to_integer<int>(byte);
  }
  PageRange pages(std::uint64_t first, std::uint64_t count) const {
    return {start() + first * kPageBytes, count};
  }
  bool is_traced() const {
    const std::string path = "/proc/" + std::to_string(process_.pid()) + "/status";
    return read_file(path).value().find("TracerPid:\t0") == std::string::npos;
  }
  std::function<void(std::uint64_t)> note_area() {
    return [this](std::uint64_t area) { area_ = area; };
  }

  void* place_;
  test::HeldProcess process_;
  WorkerContext context_;
  SourceMoveOptions options_;
  MoveReport report_{std::chrono::milliseconds(0)};
  SessionId session_{};
  std::uint64_t area_ = 0;
};

TEST_F(FrozenSourceTest, IsDescribedInTheOffer) {
  options_.command = "job";
  FrozenSource source(options_, note_area(), report_);
  ASSERT_TRUE(source.inspect()) << test::text(source.refusals());
  const auto offer = source.describe({.monotonic_ns = 3, .boottime_ns = 4});
  ASSERT_TRUE(offer);
  EXPECT_EQ(offer->command(), "job");
  EXPECT_EQ(only_process(offer->draft()).process_id(), static_cast<std::uint32_t>(process_.pid()));
  EXPECT_EQ(offer->monotonic_offset_ns(), 3);
  EXPECT_EQ(offer->boottime_offset_ns(), 4);
  EXPECT_GE(offer->memory_bytes(), kPages * kPageBytes);
}

TEST_F(FrozenSourceTest, RunsOnWhenTheFreezeEndsWithoutAMove) {
  FrozenSource source(options_, note_area(), report_);
  ASSERT_TRUE(capture(source));
  EXPECT_TRUE(is_traced());
  EXPECT_EQ(only_process(source.image()).clock_offset_ns(), 77);
  source.end_freeze();
  EXPECT_FALSE(is_traced());
  ASSERT_TRUE(capture(source));  // Once more.
  source.end_freeze();
  EXPECT_FALSE(is_traced());
}

TEST_F(FrozenSourceTest, IsWatchedWhileItRunsForAsLongAsThatIsWanted) {
  FrozenSource source(options_, note_area(), report_);
  ASSERT_TRUE(source.inspect()) << test::text(source.refusals());
  const auto seen = source.sample(std::chrono::milliseconds(2), [] { return Result<void>(); });
  ASSERT_TRUE(seen) << seen.error().message();
  EXPECT_GE(seen->pages, kPages);
  EXPECT_EQ(seen->writes.seen.size(), 3U);
  EXPECT_FALSE(is_traced());
  EXPECT_FALSE(is_followed());
  const auto off = source.sample(std::chrono::seconds(60), []() -> Result<void> {
    return fail(make_error(ErrorCode::kCancelled, "move"));
  });
  EXPECT_EQ(off.error().code, ErrorCode::kCancelled);
}

// Nothing of it is read for whom the kernel would not let read it.
TEST_F(FrozenSourceTest, IsWatchedInTheRightsOfWhoAsks) {
  options_.request.asker = {.user = 4711, .group = 4711};
  FrozenSource source(options_, note_area(), report_);
  ASSERT_FALSE(source.inspect());
  EXPECT_FALSE(source.sample(std::chrono::milliseconds(2), [] { return Result<void>(); }));
  EXPECT_EQ(test::codes(source.refusals()), (std::set<std::string>{"NOT_PERMITTED"}));
}

TEST_F(FrozenSourceTest, WritesAreFollowedAfterAStopThatLeavesNothing) {
  if (!WriteTracker::check_support()) {
    GTEST_SKIP() << "needs Linux 6.7";
  }
  FrozenSource source(options_, note_area(), report_);
  ASSERT_TRUE(source.inspect(true)) << test::text(source.refusals());
  const auto maps = read_file(proc("maps")).value();
  const auto files = list_directory(proc("fd")).value();
  ASSERT_TRUE(source.watch_writes()) << test::text(source.refusals());
  EXPECT_FALSE(is_traced());
  EXPECT_EQ(list_directory(proc("fd")).value(), files);
  EXPECT_TRUE(is_followed());
  source.end_watch();
  EXPECT_FALSE(is_followed());
  EXPECT_EQ(read_file(proc("maps")).value(), maps);
}

// Who may move it is judged on the stopped process, before anything of it is read.
TEST_F(FrozenSourceTest, WritesAreFollowedInTheRightsOfWhoAsks) {
  if (!WriteTracker::check_support()) {
    GTEST_SKIP() << "needs Linux 6.7";
  }
  options_.request.asker = {.user = 4711, .group = 4711};
  FrozenSource source(options_, note_area(), report_);
  ASSERT_FALSE(source.inspect(true));
  ASSERT_FALSE(source.watch_writes());
  EXPECT_EQ(test::codes(source.refusals()), (std::set<std::string>{"NOT_PERMITTED"}));
  EXPECT_EQ(source.ahead(), nullptr);
  EXPECT_FALSE(is_followed());
  EXPECT_FALSE(is_traced());
}

TEST_F(FrozenSourceTest, WhatWasSentAheadCountsIfItWasNotWrittenSince) {
  if (!WriteTracker::check_support()) {
    GTEST_SKIP() << "needs Linux 6.7";
  }
  FrozenSource source(options_, note_area(), report_);
  report_.begin();
  ASSERT_TRUE(source.inspect(true)) << test::text(source.refusals());
  ASSERT_TRUE(source.watch_writes()) << test::text(source.refusals());
  auto [ours, theirs] = make_memory_channels().value();
  std::vector<PushRun> came;
  std::thread destination([&came, channel = std::move(theirs)]() mutable {
    came = confirm_one_round(std::move(channel));
  });
  ChannelLink link(std::move(ours));
  const auto sent = source.ahead()->run(link, {.limits = {.most = 1},
                                               .most_pages = 1U << 20U,
                                               .still_wanted = [] { return Result<void>(); }});
  destination.join();
  ASSERT_TRUE(sent) << sent.error().message();
  EXPECT_TRUE(has(came, pages(0, kPages)));
  // As any that has the right to: a debugger.
  const std::byte written{9};
  ASSERT_TRUE(write_memory(process_.pid(), start() + kPageBytes, std::span(&written, 1)));
  ASSERT_TRUE(source.freeze());
  ASSERT_TRUE(source.complete_image(0));
  ASSERT_TRUE(source.find_kept());
  EXPECT_EQ(common(source.ahead()->kept(), {pages(0, kPages)}),
            (PageSet{pages(0, 1), pages(2, 2)}));
  source.end_freeze();
}

TEST_F(FrozenSourceTest, TheRecordHoldsTheImageAsItWasSent) {
  FrozenSource source(options_, note_area(), report_);
  ASSERT_TRUE(capture(source));
  const std::string bytes(source.serialise_image());
  wire::Image sent;
  ASSERT_TRUE(sent.ParseFromString(bytes));
  EXPECT_EQ(only_process(sent).process_id(), static_cast<std::uint32_t>(process_.pid()));
  ASSERT_TRUE(source.prepare_to_park(session_));
  ASSERT_NE(area_, 0U);
  std::string area;
  std::array<char, kPageBytes> page{};
  while (
      read_memory(process_.pid(), area_ + area.size(), std::as_writable_bytes(std::span(page)))) {
    area.append(page.data(), page.size());
  }
  EXPECT_NE(area.find(bytes), std::string::npos);
  source.end_freeze();
}

TEST_F(FrozenSourceTest, ComesBackFromWhereItIsParked) {
  FrozenSource source(options_, note_area(), report_);
  ASSERT_TRUE(park(source));
  EXPECT_TRUE(source.is_parked());
  EXPECT_TRUE(is_traced());
  EXPECT_GT(report_.phase_us("park"), 0);
  source.unpark();
  EXPECT_FALSE(source.is_parked());
  EXPECT_FALSE(is_traced());
  EXPECT_EQ(first_byte(0), 7);
}

// Before it is parked it is stopped again; afterwards it is ended. It never runs here.
TEST_F(FrozenSourceTest, WhatStartsElsewhereStartsThereOrNowhere) {
  const auto is_stopped = [this] {
    return read_file(proc("status")).value().find("State:\tT (stopped)") != std::string::npos;
  };
  ::kill(process_.pid(), SIGSTOP);
  while (!is_stopped()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  options_.request.starts = true;
  {
    FrozenSource source(options_, note_area(), report_);
    ASSERT_TRUE(capture(source)) << test::text(source.refusals());
    source.end_freeze();
  }
  while (!is_stopped()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  FrozenSource source(options_, note_area(), report_);
  ASSERT_TRUE(park(source)) << test::text(source.refusals());
  EXPECT_FALSE(is_stopped());
  ASSERT_TRUE(source.resume());
  while (!has_ended(process_.pid())) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

TEST_F(FrozenSourceTest, KnowsAWaitAgainAfterAFreezeThatCameToNothing) {
  const test::HeldProcess waiting([] { ::signal(SIGTERM, wait_for_a_futex); });
  options_.pid = waiting.pid();
  const auto await_call = [&waiting](int call) {
    const std::string path = "/proc/" + std::to_string(waiting.pid()) + "/syscall";
    while (!read_file(path).value().starts_with(std::to_string(call) + " ")) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  };
  ::kill(waiting.pid(), SIGTERM);
  await_call(SYS_futex);
  FrozenSource source(options_, note_area(), report_);
  for (int attempt = 0; attempt < 3; ++attempt) {
    ASSERT_TRUE(capture(source)) << test::text(source.refusals());
    const wire::Thread& thread = only_process(source.image()).threads(0);
    arch::GeneralRegisters registers{};
    thread.general_registers().copy(reinterpret_cast<char*>(&registers), sizeof(registers));
    EXPECT_EQ(arch::interrupted_call(registers).number, SYS_futex);
    EXPECT_GT(thread.wait_remaining_ns(), 0U);
    source.end_freeze();
    await_call(SYS_restart_syscall);
  }
}

TEST_F(FrozenSourceTest, GivesBackWhatItsOnlyHandoverHasConfirmed) {
  FrozenSource source(options_, note_area(), report_);
  ASSERT_TRUE(park(source));
  source.note_confirmed(0, {pages(1, 2)});
  EXPECT_EQ(first_byte(0), 7);
  EXPECT_EQ(first_byte(1), 0);
  EXPECT_EQ(first_byte(2), 0);
  EXPECT_EQ(first_byte(3), 7);
  EXPECT_EQ(source.original(), Original::kHere);
}

TEST_F(FrozenSourceTest, GivesBackWhatAllHandoversHaveConfirmed) {
  FrozenSource source(options_, note_area(), report_, 2);
  ASSERT_TRUE(park(source));
  source.note_confirmed(0, {pages(0, 2)});
  EXPECT_EQ(first_byte(0), 7);
  source.note_confirmed(1, {pages(1, 2)});
  EXPECT_EQ(first_byte(0), 7);
  EXPECT_EQ(first_byte(1), 0);
  EXPECT_EQ(first_byte(2), 7);
  source.leave(0);
  source.note_confirmed(1, {});
  EXPECT_EQ(first_byte(2), 0);
  EXPECT_EQ(first_byte(3), 7);
}

TEST_F(FrozenSourceTest, BeforeItIsParkedNothingIsGivenBack) {
  FrozenSource source(options_, note_area(), report_);
  ASSERT_TRUE(capture(source));
  source.note_confirmed(0, {pages(0, kPages)});
  EXPECT_EQ(first_byte(0), 7);
  source.end_freeze();
  EXPECT_EQ(first_byte(0), 7);
}

TEST_F(FrozenSourceTest, IsGoneForGood) {
  FrozenSource source(options_, note_area(), report_);
  ASSERT_TRUE(park(source));
  ::kill(process_.pid(), SIGKILL);
  while (!has_ended(process_.pid())) {
    ::usleep(1000);
  }
  source.note_confirmed(0, {pages(0, 1)});
  EXPECT_EQ(source.original(), Original::kGone);
  source.note_confirmed(0, {pages(1, 1)});
  EXPECT_EQ(source.original(), Original::kGone);
  EXPECT_FALSE(source.make_feed({}));
}

/// A process whose program says of itself that a thread waits at its point for request 7, and asks
/// with 9.
void say_wish() {
  void* const page =
      ::mmap(std::bit_cast<void*>(program::kBlockAddresses[0]), program::kBlockBytes,
             PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  auto* const block = static_cast<program::Block*>(page);
  block->magic = program::kBlockMagic;
  block->version = program::kBlockVersion;
  block->process = static_cast<std::uint32_t>(::getpid());
  block->at_point = 7;
  block->asked = 9;
}

class FrozenProgramTest : public FrozenSourceTest {
 protected:
  FrozenProgramTest() : program_(say_wish) { options_.pid = program_.pid(); }

  /// Whether it is taken for that; if not, it must run on.
  testing::AssertionResult is_taken() {
    FrozenSource source(options_, note_area(), report_);
    const auto captured = capture(source);
    source.end_freeze();
    EXPECT_EQ(read_file("/proc/" + std::to_string(program_.pid()) + "/status")
                      .value()
                      .find("TracerPid:\t0") == std::string::npos,
              false);
    if (!captured) {
      EXPECT_EQ(captured.error().code, ErrorCode::kNotFound);
    }
    return captured ? testing::AssertionSuccess()
                    : testing::AssertionFailure() << captured.error().message();
  }

  test::HeldProcess program_;
};

TEST_F(FrozenProgramTest, IsTakenAtThePointThatItWasWaitedFor) {
  options_.request.at_point = 7;
  EXPECT_TRUE(is_taken());
}

// It came to its point and went on before it was frozen, and may be anywhere now.
TEST_F(FrozenProgramTest, IsNotTakenOnceItHasLeftItsPoint) {
  options_.request.at_point = 8;
  EXPECT_FALSE(is_taken());
}

TEST_F(FrozenProgramTest, IsNotTakenAtThePointOfAProgramThatSaysNothing) {
  options_.pid = process_.pid();
  options_.request.at_point = 7;
  EXPECT_FALSE(is_taken());
}

TEST_F(FrozenProgramTest, IsTakenForWhatItAsksAndNoOtherThing) {
  options_.request.asked = 9;
  EXPECT_TRUE(is_taken());
  options_.request.asked = 10;
  EXPECT_FALSE(is_taken());
}

TEST_F(FrozenSourceTest, IsNotFrozenForWhoMayNotAttach) {
  options_.request.asker = {.user = 4711, .group = 4711};
  FrozenSource source(options_, note_area(), report_);
  const auto inspected = source.inspect();
  ASSERT_FALSE(inspected);
  EXPECT_EQ(inspected.error().code, ErrorCode::kRefused);
  ASSERT_EQ(source.refusals().size(), 1U);
  EXPECT_EQ(source.refusals()[0].code(), "NOT_PERMITTED");
}

TEST_F(FrozenSourceTest, ThatIsInAJobControlStopIsRefused) {
  FrozenSource source(options_, note_area(), report_);
  ASSERT_TRUE(source.inspect());
  ::kill(process_.pid(), SIGSTOP);
  ::usleep(20'000);
  const auto frozen = source.freeze();
  source.end_freeze();
  ASSERT_FALSE(frozen);
  EXPECT_EQ(frozen.error().code, ErrorCode::kRefused);
  ASSERT_EQ(source.refusals().size(), 1U);
  EXPECT_EQ(source.refusals()[0].code(), "STOPPED");
  EXPECT_FALSE(is_traced());
}

// In whose name the destination has prepared is another one then.
TEST_F(FrozenSourceTest, ThatHasBecomeAnotherUsersIsInspectedAnew) {
  const test::HeldProcess process(
      [] { ::signal(SIGUSR1, [](int) { static_cast<void>(::setresuid(4711, 4711, 4711)); }); });
  options_.pid = process.pid();
  FrozenSource source(options_, note_area(), report_);
  ASSERT_TRUE(source.inspect()) << test::text(source.refusals());
  ::kill(process.pid(), SIGUSR1);
  const std::string path = "/proc/" + std::to_string(process.pid()) + "/status";
  constexpr int kLooks = 2000;
  for (int look = 0; look < kLooks && read_file(path).value().find("Uid:\t0") != std::string::npos;
       ++look) {
    ::usleep(1000);
  }
  const auto frozen = source.freeze();
  source.end_freeze();
  ASSERT_FALSE(frozen);
  EXPECT_EQ(frozen.error().code, ErrorCode::kRetry) << frozen.error().message();
}

TEST_F(FrozenSourceTest, ThatWasParkedBeforeIsAdopted) {
  FrozenSource source(options_, note_area(), report_);
  ASSERT_TRUE(park(source));
  FrozenSource adopted(options_, note_area(), report_);
  adopted.adopt(std::move(source.parked()), source.image());
  EXPECT_TRUE(adopted.is_parked());
  adopted.note_confirmed(0, {pages(0, 1)});
  EXPECT_EQ(first_byte(0), 0);
  ASSERT_TRUE(adopted.resume());
  EXPECT_FALSE(is_traced());
}

class SourceMoveTest : public FrozenSourceTest {
 protected:
  SourceMoveTest() {
    options_.destination = {.scheme = "tcp", .host = "127.0.0.1", .port = 1};
    options_.host_clocks = clock_offsets(0).value();
    hooks_.freeze_relay = [](const wire::Image&) { return wire::RelayState(); };
    hooks_.on_outgoing = [this](const wire::Outgoing&) {
      ++noted_;
      return Result<void>();
    };
  }

  SourceMove::Hooks hooks_;
  EventSink nobody_;
  int noted_ = 0;
};

TEST_F(SourceMoveTest, WithoutADestinationRunsOnHere) {
  SourceMove move(options_, hooks_, nobody_);
  EXPECT_EQ(move.attempt_for(0), MoveOutcome::kFailed);
  EXPECT_EQ(move.error().code, ErrorCode::kPeerLost) << move.error().message();
  EXPECT_TRUE(move.refusals().empty());
  EXPECT_EQ(noted_, 0);
  EXPECT_FALSE(is_traced());
  EXPECT_EQ(move.handle(), Original::kHere);
  EXPECT_FALSE(move.done());
}

TEST_F(SourceMoveTest, ARefusalOfThisSideIsToldWithoutADestination) {
  options_.request.asker = {.user = 4711, .group = 4711};
  SourceMove move(options_, hooks_, nobody_);
  EXPECT_EQ(move.attempt_for(0), MoveOutcome::kRefused);
  ASSERT_EQ(move.refusals().size(), 1U);
  EXPECT_EQ(move.refusals()[0].code(), "NOT_PERMITTED");
}

TEST_F(SourceMoveTest, ACheckOfThisSideOnlyConnectsToNobody) {
  options_.destination.host.clear();
  options_.request.plan = check_plan();
  SourceMove move(options_, {}, nobody_);
  const auto refusals = move.check();
  ASSERT_TRUE(refusals) << refusals.error().message();
  EXPECT_TRUE(refusals->empty());
}

TEST_F(SourceMoveTest, ACheckOfADestinationThatIsNotThereFails) {
  options_.request.plan = check_plan();
  SourceMove move(options_, {}, nobody_);
  EXPECT_FALSE(move.check());
}

TEST_F(SourceMoveTest, OfAProcessThatHasEndedFails) {
  options_.pid = 0x3ffffff;
  SourceMove move(options_, hooks_, nobody_);
  EXPECT_EQ(move.attempt_for(0), MoveOutcome::kFailed);
  EXPECT_EQ(move.error().code, ErrorCode::kNotFound) << move.error().message();
}

TEST_F(SourceMoveTest, TellsWhatItIs) {
  wire::Outgoing outgoing;
  outgoing.set_session(std::string(16, 5));
  outgoing.set_confirmed(true);
  outgoing.set_done(true);
  const auto move = SourceMove::adopt(options_, hooks_, nobody_, std::nullopt, {}, outgoing);
  EXPECT_TRUE(move->done());
  EXPECT_EQ(move->fate(), Fate::kRuns);
  const nlohmann::json result = move->result();
  EXPECT_EQ(result["id"], to_hex(session_));
  EXPECT_EQ(result["destination"], "tcp://127.0.0.1:1");
  EXPECT_EQ(result["mode"], "lazy");
  EXPECT_EQ(result["transport"], "tcp");
  EXPECT_EQ(result["state"], "done");
}

}  // namespace
}  // namespace migrate
