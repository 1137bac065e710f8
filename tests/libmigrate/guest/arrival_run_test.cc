// How a process arrives whose offer is taken: each test is one trace of what its source, its cell
// and others do until it runs here, or does not.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <future>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "libmigrate/guest/arrival.h"
#include "libmigrate/host/mailbox_path.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/proc/file_identity.h"
#include "libmigrate/rules/host_policy.h"
#include "pager/page_protocol.h"
#include "pager/userfault.h"
#include "tests/libmigrate/guest/arrival_world.h"

namespace migrate {
namespace {

class ArrivalRunTest : public testing::Test {
 protected:
  /// Takes the process in, while its source does that.
  std::optional<Arrival::Arrived> take_in(const std::function<void()>& script) {
    PeerTrust::Peer peer = world_.connect_source();
    auto source = std::async(std::launch::async, [&] {
      script();
      world_.close_pages();
    });
    auto arrived = Arrival(
                       world_.context, std::move(peer), world_.session,
                       [this](int) { ++world_.workers; }, guest_world_)
                       .take_in();
    source.get();
    return arrived;
  }
  void hand_over_and_run() {
    world_.hand_over();
    world_.send_run();
    const auto running = world_.hear();
    EXPECT_TRUE(running && running->has_running());
  }
  /// What the source hears at last: why it failed; empty if it is told nothing.
  std::string failure() const {
    const auto told = world_.source->try_receive();
    return told && *told && (*told)->has_failed() ? (*told)->failed().reason() : std::string();
  }
  void expect_nothing_is_left() const {
    EXPECT_TRUE(world_.has("end the cell"));
    EXPECT_FALSE(world_.has("release"));
    EXPECT_FALSE(std::filesystem::exists(world_.session_path()));
    EXPECT_NE(failure(), "");
  }

  ArrivalWorld world_;
  const GuestWorld guest_world_ = world_.world();
};

// The promise that it runs in one place: whoever takes over finds in the record at every moment
// whether the process may run, and the init holds its memory before it does.
TEST_F(ArrivalRunTest, EveryStepToRunIsNotedBeforeItIsTaken) {
  auto arrived = take_in([this] { hand_over_and_run(); });
  ASSERT_TRUE(arrived);
  EXPECT_EQ(world_.steps_to_run(), (std::vector<std::string>{"keep the userfaultfd in Marked",
                                                             "release in Kept", "run in Ran"}));
  EXPECT_EQ(arrived->guest->phase(), GuestPhase::kServing);
  EXPECT_EQ(world_.workers, 1);
}

TEST_F(ArrivalRunTest, ASourceHearsOnceThatItRuns) {
  auto arrived = take_in([this] { hand_over_and_run(); });
  ASSERT_TRUE(arrived);
  const auto more = world_.source->try_receive();
  EXPECT_TRUE(more && !*more);
  EXPECT_TRUE(arrived->guest->source().connected());
}

TEST_F(ArrivalRunTest, WhatAFollowingWorkerNeedsIsThereBeforeItRuns) {
  world_.on_step = [this](const std::string& step) {
    if (step != "release") {
      return;
    }
    EXPECT_EQ(world_.cell->kept.back().kind, Kept::Kind::kUserfault);
    const auto* mark = reinterpret_cast<const SessionMark*>(world_.mark.bytes().data());
    EXPECT_TRUE(mark->process_identity().is_alive());
    EXPECT_EQ(mark->init, world_.init.id());
  };
  auto arrived = take_in([this] { hand_over_and_run(); });
  ASSERT_TRUE(arrived);
  EXPECT_TRUE(world_.has("release"));
  const wire::CellSession noted = read_noted(arrived->guest->record().file()).value();
  EXPECT_EQ(noted.token(), "token");
  EXPECT_EQ(noted.command(), "sub ject");  // No line break reaches a terminal.
  EXPECT_TRUE(noted.trusted());
}

/// Messages of a source that sends pages ahead.
PageControl round_end(std::uint64_t sequence) {
  PageControl end;
  end.type = MessageType::kPushEnd;
  end.sequence = sequence;
  return end;
}
PresenceHeader nothing_kept() {
  PresenceHeader kept;
  kept.type = MessageType::kKept;
  kept.last = 1;
  return kept;
}

// What comes ahead is taken in before the image, and the connection goes on to be that of the
// pager.
TEST_F(ArrivalRunTest, PagesMayComeAheadOfIt) {
  auto arrived = take_in([this] {
    wire::Offer offer = world_.offer();
    offer.set_mode("hybrid");
    offer.set_memory_bytes(10 * kPageBytes);
    world_.send_offer(offer);
    world_.connect_pages();
    for (const std::uint64_t round : {0, 1}) {
      world_.send_bulk(message_bytes(round_end(round)));
      const auto confirmed = parse_control(world_.hear_bulk());
      ASSERT_TRUE(confirmed);
      EXPECT_EQ(confirmed->type, MessageType::kConfirm);
      EXPECT_EQ(confirmed->sequence, round);
    }
    world_.send_bulk(message_bytes(nothing_kept()));
    world_.send_final();
    const auto restored = world_.hear();
    ASSERT_TRUE(restored && restored->has_restored());
    world_.send_run();
    const auto running = world_.hear();
    EXPECT_TRUE(running && running->has_running());
    PresenceHeader presence;
    presence.last = 1;
    world_.send_bulk(message_bytes(presence));
    const auto done = parse_control(world_.hear_bulk());
    EXPECT_TRUE(done && done->type == MessageType::kDone);
  });
  ASSERT_TRUE(arrived);
  EXPECT_FALSE(world_.has("discard"));
}

TEST_F(ArrivalRunTest, ItIsNotRunIfWhatComesAheadIsNotAsOffered) {
  EXPECT_FALSE(take_in([this] {
    wire::Offer offer = world_.offer();
    offer.set_mode("precopy");
    world_.send_offer(offer);
    world_.connect_pages();
    PushHeader header;
    header.run_count = 1;
    const PushRun run{0x10000, 1, PageKind::kZero};
    std::vector<std::byte> message(sizeof(header) + sizeof(run));
    std::memcpy(message.data(), &header, sizeof(header));
    std::memcpy(message.data() + sizeof(header), &run, sizeof(run));
    world_.send_bulk(message);
    EXPECT_TRUE(world_.hear_bulk().empty());
  }));
  expect_nothing_is_left();
}

TEST_F(ArrivalRunTest, ItIsNotRunIfItsSourceGoesWhilePagesComeAhead) {
  EXPECT_FALSE(take_in([this] {
    wire::Offer offer = world_.offer();
    offer.set_mode("hybrid");
    world_.send_offer(offer);
    world_.connect_pages();
    world_.send_bulk(message_bytes(round_end(0)));
    EXPECT_FALSE(world_.hear_bulk().empty());
  }));
  expect_nothing_is_left();
}

TEST_F(ArrivalRunTest, ItIsNotRunIfTheSourceFails) {
  EXPECT_FALSE(take_in([this] {
    world_.hand_over();
    wire::ControlMessage failed;
    failed.mutable_failed()->set_reason("it could not be parked");
    EXPECT_TRUE(world_.source->send(failed));
  }));
  expect_nothing_is_left();
}

TEST_F(ArrivalRunTest, ItIsNotRunIfTheSourceIsLostBeforeRun) {
  EXPECT_FALSE(take_in([this] {
    world_.hand_over();
    world_.source.reset();
  }));
  EXPECT_TRUE(world_.has("end the cell"));
  EXPECT_FALSE(world_.has("release"));
  EXPECT_FALSE(std::filesystem::exists(world_.session_path()));
}

TEST_F(ArrivalRunTest, ItRunsOnIfTheSourceIsLostAfterRun) {
  std::promise<void> sent;
  world_.on_step = [&](const std::string& step) {
    if (step == "run") {
      sent.get_future().wait();
      world_.source.reset();
    }
  };
  auto arrived = take_in([&] {
    world_.hand_over();
    world_.send_run();
    sent.set_value();
  });
  ASSERT_TRUE(arrived);
  EXPECT_FALSE(world_.cell->ended);
  EXPECT_EQ(arrived->guest->phase(), GuestPhase::kServing);
}

TEST_F(ArrivalRunTest, TheCellOfAProcessThatRunsIsLeftAlone) {
  auto arrived = take_in([this] { hand_over_and_run(); });
  ASSERT_TRUE(arrived);
  EXPECT_FALSE(world_.has("end the cell"));
}

TEST_F(ArrivalRunTest, AProcessThatAFollowingWorkerWouldLoseIsNotRun) {
  world_.kind_to_fail = Kept::Kind::kUserfault;
  EXPECT_FALSE(take_in([this] {
    world_.hand_over();
    world_.send_run();
  }));
  expect_nothing_is_left();
}

TEST_F(ArrivalRunTest, NorOneWhoseLedgerIsNotKept) {
  world_.kind_to_fail = Kept::Kind::kLedger;
  const auto arrived = take_in([this] {
    world_.hand_over();
    wire::ControlMessage run;
    run.mutable_run();
    static_cast<void>(world_.source->send(run));  // The worker may have hung up by then.
  });
  // Nothing is owed here: where the pager knows that in time, there is no ledger to be kept.
  EXPECT_NE(arrived.has_value(), world_.has("fail to keep"));
  if (!arrived) {
    expect_nothing_is_left();
  }
}

TEST_F(ArrivalRunTest, WhatCannotBeReleasedNeverRan) {
  world_.step_to_fail = "release";
  EXPECT_FALSE(take_in([this] {
    world_.hand_over();
    world_.send_run();
  }));
  EXPECT_TRUE(world_.has("end the cell"));
  EXPECT_FALSE(std::filesystem::exists(world_.session_path()));
  EXPECT_NE(failure(), "");
}

// Some of its threads may have run: the source must not hear that it never did.
TEST_F(ArrivalRunTest, WhatWasReleasedMayHaveRun) {
  world_.step_to_fail = "run";
  EXPECT_FALSE(take_in([this] {
    world_.hand_over();
    world_.send_run();
  }));
  EXPECT_EQ(failure(), "");
  EXPECT_EQ(world_.phase(), "Over");
  EXPECT_TRUE(std::filesystem::exists(world_.session_path()));
}

TEST_F(ArrivalRunTest, NoSourceTakesBackWhatMayStillBeThere) {
  world_.cell_ends = false;
  EXPECT_FALSE(take_in([this] {
    world_.hand_over();
    wire::ControlMessage failed;
    failed.mutable_failed();
    EXPECT_TRUE(world_.source->send(failed));
  }));
  EXPECT_EQ(failure(), "");
  EXPECT_TRUE(std::filesystem::exists(world_.session_path()));
}

TEST_F(ArrivalRunTest, WhatFailsOnTheWayIsToldToTheSource) {
  for (const char* step : {"make the cell", "prepare"}) {
    world_.steps.clear();
    world_.step_to_fail = step;
    EXPECT_FALSE(take_in([this] { world_.send_offer(world_.offer()); }));
    EXPECT_NE(failure().find(step), std::string::npos) << failure();
    EXPECT_FALSE(std::filesystem::exists(world_.session_path()));
  }
  for (const char* step : {"adapt", "finish"}) {
    world_.step_to_fail = step;
    EXPECT_FALSE(take_in([this] {
      world_.send_offer(world_.offer());
      world_.connect_pages();
      world_.send_final();
    }));
    EXPECT_NE(failure().find(step), std::string::npos) << failure();
    EXPECT_FALSE(std::filesystem::exists(world_.session_path()));
  }
}

// Its user may have put it into the place of a file, after that was looked at; nobody ever writes.
TEST_F(ArrivalRunTest, ANamedPipeThatIsToBeAFileKeepsNobodyWaiting) {
  constexpr uid_t kUser = 65534;
  if (::getuid() != 0 || !HostPolicy::parse({"nobody@*"})) {
    GTEST_SKIP() << "only root can act as another user";
  }
  world_.context.policy = HostPolicy::parse({"nobody@*"}).value();
  const std::string path = "/tmp/pipe-" + std::to_string(::getpid());
  ASSERT_EQ(::mkfifo(path.c_str(), 0666), 0);
  wire::Offer offer = world_.offer();
  offer.set_mode("check");
  offer.set_user(kUser);
  wire::ProcessImage& process = mutable_only_process(*offer.mutable_draft());
  wire::Credentials& held = *process.mutable_threads(0)->mutable_credentials();
  for (const auto set :
       {&wire::Credentials::set_uid_real, &wire::Credentials::set_uid_effective,
        &wire::Credentials::set_uid_saved, &wire::Credentials::set_uid_filesystem,
        &wire::Credentials::set_gid_real, &wire::Credentials::set_gid_effective,
        &wire::Credentials::set_gid_saved, &wire::Credentials::set_gid_filesystem}) {
    (held.*set)(kUser);
  }
  held.set_capabilities_bounding(~std::uint64_t{0});
  *process.mutable_executable() = identify_at(AT_FDCWD, "/bin/true", "/bin/true").value();
  wire::OpenFile& file = *offer.mutable_draft()->mutable_objects()->add_files();
  file.set_kind(wire::OpenFile::REGULAR);
  *file.mutable_identity() = identify_at(AT_FDCWD, path, path).value();
  file.mutable_identity()->clear_birth_ns();
  file.mutable_identity()->set_mtime_ns(1);  // Not surely the same.
  process.add_descriptors()->set_file(0);
  std::optional<wire::ControlMessage> told;
  EXPECT_FALSE(take_in([&] {
    world_.send_offer(offer);
    told = world_.hear();
  }));
  ::unlink(path.c_str());
  ASSERT_TRUE(told && told->has_offer_reply());
  ASSERT_EQ(told->offer_reply().refusals_size(), 1);
  EXPECT_EQ(told->offer_reply().refusals(0).code(), "FILE_PERMISSION")
      << told->offer_reply().refusals(0).ShortDebugString();
}

class ArrivalMemoryTest : public ArrivalRunTest, public testing::WithParamInterface<bool> {};

// A host that overcommits takes more than there is, as fork(2) does.
TEST_P(ArrivalMemoryTest, MoreThanThereIsIsRefused) {
  world_.context.overcommits = GetParam();
  wire::Offer offer = world_.offer();
  offer.set_mode("check");
  offer.set_memory_bytes(std::uint64_t{1} << 50U);
  std::optional<wire::ControlMessage> told;
  EXPECT_FALSE(take_in([&] {
    world_.send_offer(offer);
    told = world_.hear();
  }));
  ASSERT_TRUE(told && told->has_offer_reply());
  const auto& refusals = told->offer_reply().refusals();
  const bool has_too_little = std::ranges::any_of(
      refusals, [](const wire::Refusal& refusal) { return refusal.code() == "MEMORY"; });
  EXPECT_EQ(has_too_little, !GetParam());
}

INSTANTIATE_TEST_SUITE_P(Hosts, ArrivalMemoryTest, testing::Bool());

TEST_F(ArrivalRunTest, AnImageThatIsNoneIsNotRestored) {
  EXPECT_FALSE(take_in([this] {
    world_.send_offer(world_.offer());
    world_.connect_pages();
    wire::ControlMessage message;
    *message.mutable_final()->mutable_image() = world_.final_image();
    message.mutable_final()->mutable_image()->mutable_processes(0)->clear_signal_actions();
    EXPECT_TRUE(world_.source->send(message));
  }));
  EXPECT_NE(failure().find("signal_actions"), std::string::npos) << failure();
  EXPECT_FALSE(world_.has("adapt"));
}

// What was taken on was the draft. Who is not trusted may not bring more with the image itself.
TEST_F(ArrivalRunTest, AnImageWithOtherRightsThanTheDraftIsNotRestored) {
  constexpr uid_t kNobody = 65534;
  world_.context.policy = HostPolicy::parse({"65534@*"}).value();
  const auto of_nobody = [](wire::Image image) {
    wire::ProcessImage& process = mutable_only_process(image);
    const std::string path = "/bin/true";  // Which nobody may open, too.
    *process.mutable_executable() = identify_at(AT_FDCWD, path, path).value();
    wire::Credentials& held = *process.mutable_threads(0)->mutable_credentials();
    held.set_uid_real(kNobody);
    held.set_uid_effective(kNobody);
    held.set_uid_saved(kNobody);
    held.set_uid_filesystem(kNobody);
    held.set_gid_real(kNobody);
    held.set_gid_effective(kNobody);
    held.set_gid_saved(kNobody);
    held.set_gid_filesystem(kNobody);
    held.set_no_new_privileges(true);
    return image;
  };
  EXPECT_FALSE(take_in([&] {
    wire::Offer offer = world_.offer();
    offer.set_user(kNobody);
    *offer.mutable_draft() = of_nobody(offer.draft());
    world_.send_offer(offer);
    world_.connect_pages();
    wire::ControlMessage message;
    wire::Image& image = *message.mutable_final()->mutable_image();
    image = of_nobody(world_.final_image());
    mutable_only_process(image).mutable_threads(0)->mutable_credentials()->set_uid_saved(0);
    *message.mutable_final()->mutable_relay() = make_relay_state({});
    EXPECT_TRUE(world_.source->send(message));
    const auto told = world_.hear();
    ASSERT_TRUE(told);
    EXPECT_NE(told->failed().reason().find("it acts as user 0 too"), std::string::npos)
        << told->ShortDebugString();
    world_.source.reset();  // Where it is restored after all, nobody waits for Run.
  }));
  EXPECT_FALSE(world_.has("adapt"));
}

/// A page that the process of the seed has from its beginning: somebody looked into its memory.
class TouchedPage {
 protected:
  TouchedPage()
      : page_(::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                     0)) {
    std::memset(page_, 1, kPageBytes);
  }
  ~TouchedPage() { ::munmap(page_, kPageBytes); }

  void map_it(wire::Image& image) const {
    wire::Mapping& mapping = *mutable_only_process(image).add_mappings();
    mapping.set_start(reinterpret_cast<std::uint64_t>(page_));
    mapping.set_end(mapping.start() + kPageBytes);
    mapping.set_protection(PROT_READ | PROT_WRITE);
    mapping.set_kind(wire::Mapping::ANONYMOUS);
  }

 private:
  void* page_;
};

class TouchedMemoryTest : protected TouchedPage, public ArrivalRunTest {
 protected:
  // The pager has the page of this process, at the same address as the seed's.
  void SetUp() override {
    UniqueFd userfault(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
    if (!userfault.valid() || !Userfault::handshake(userfault.get())) {
      GTEST_SKIP() << "no right to page memory";
    }
    world_.userfault = std::move(userfault);
  }
};

TEST_F(TouchedMemoryTest, IsNotTakenForTheProcesssOwn) {
  EXPECT_FALSE(take_in([this] {
    wire::Offer offer = world_.offer();
    map_it(*offer.mutable_draft());
    world_.send_offer(offer);
  }));
  const std::string reason = failure();
  EXPECT_NE(reason.find("read or wrote its memory"), std::string::npos) << reason;
  EXPECT_TRUE(world_.has("end the cell"));
}

TEST_F(TouchedMemoryTest, NorWhereItIsMappedAfterTheOffer) {
  EXPECT_FALSE(take_in([this] {
    world_.send_offer(world_.offer());
    world_.connect_pages();
    wire::Image image = world_.final_image();
    map_it(image);
    world_.send_final(image);
  }));
  EXPECT_TRUE(world_.has("adapt"));
  const std::string reason = failure();
  EXPECT_NE(reason.find("read or wrote its memory"), std::string::npos) << reason;
  EXPECT_TRUE(world_.has("end the cell"));
}

TEST_F(ArrivalRunTest, EagerlyItIsRestoredWhenAllHasCome) {
  auto arrived = take_in([this] {
    wire::Offer offer = world_.offer();
    offer.set_mode("eager");
    world_.send_offer(offer);
    world_.connect_pages();
    world_.send_final();
    const auto restored = world_.hear();
    EXPECT_TRUE(restored && restored->has_restored());
    world_.send_run();
  });
  ASSERT_TRUE(arrived);
  EXPECT_EQ(arrived->guest->pages().owed(), 0U);
}

TEST_F(ArrivalRunTest, SignalsThatCameMeanwhileReachIt) {
  auto arrived = take_in([this] {
    world_.hand_over();
    siginfo_t information{};
    information.si_signo = SIGUSR1;
    wire::ControlMessage run;
    run.mutable_run()->add_signals(&information, sizeof(information));
    EXPECT_TRUE(world_.source->send(run));
  });
  ASSERT_TRUE(arrived);
  EXPECT_EQ(world_.cell->signals, std::vector<int>{SIGUSR1});
}

// Of several answers, none of which may let its clocks run backwards.
TEST_F(ArrivalRunTest, AProcessOfAnotherMachineKeepsItsTime) {
  constexpr std::int64_t kThereNs = 5'000'000'000'000'000;
  int asked = 0;
  auto arrived = take_in([&] {
    wire::Offer offer = world_.offer();
    offer.mutable_source()->set_boot_id("another boot");
    world_.send_offer(offer);
    auto message = world_.hear();
    for (; message && message->has_clock_request(); message = world_.hear()) {
      ++asked;
      wire::ControlMessage answer;
      answer.mutable_clocks()->set_monotonic_ns(kThereNs);
      EXPECT_TRUE(world_.source->send(answer));
    }
    EXPECT_TRUE(message && message->has_offer_reply());
    world_.source.reset();
  });
  EXPECT_FALSE(arrived);
  EXPECT_EQ(asked, 5);
  EXPECT_GT(world_.cell_options.monotonic_offset_ns, 0);
  EXPECT_LT(world_.cell_options.monotonic_offset_ns, kThereNs);
}

class EarlyRequestTest : public ArrivalRunTest {
 protected:
  /// What the daemon does for a client who asks for something before the process runs.
  void ask_early() {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    client_.reset(ends[1]);
    const UniqueFd theirs(ends[0]);
    const std::string request = R"({"command":"check"})";
    EXPECT_TRUE(hand_to_worker(world_.directory.path(), to_hex(world_.session), theirs.get(),
                               std::as_bytes(std::span(request)))
                    .value());
  }

  UniqueFd client_;
};

TEST_F(EarlyRequestTest, IsKeptUntilItRuns) {
  auto arrived = take_in([this] {
    world_.hand_over();
    ask_early();
    world_.send_run();
  });
  ASSERT_TRUE(arrived);
  // Its mailbox may not have got it before Run came.
  std::size_t letters = arrived->early.size();
  while (arrived->mailbox->receive(letters == 0 ? 1000 : 0)) {
    ++letters;
  }
  EXPECT_EQ(letters, 1U);
}

TEST_F(EarlyRequestTest, IsAnsweredIfItNeverRuns) {
  EXPECT_FALSE(take_in([this] {
    world_.hand_over();
    ask_early();
    world_.source.reset();
  }));
  std::array<char, 1000> text{};
  ASSERT_GT(::read(client_.get(), text.data(), text.size()), 0);
  EXPECT_NE(std::string(text.data()).find("result"), std::string::npos);
}

}  // namespace
}  // namespace migrate
