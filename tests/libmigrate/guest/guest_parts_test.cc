// The objects that a guest is made of, each alone: its record, its links, its own objects.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "libmigrate/guest/guest_objects.h"
#include "libmigrate/guest/guest_record.h"
#include "libmigrate/guest/guest_setup.h"
#include "libmigrate/guest/home_link.h"
#include "libmigrate/guest/source_link.h"
#include "libmigrate/relay/home_relay.h"
#include "libmigrate/state/registry.h"
#include "tests/libmigrate/guest/stand_ins.h"
#include "tests/libmigrate/guest/state_directory.h"
#include "transport/memory_channel.h"

namespace migrate {
namespace {

class GuestRecordTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(SessionFile::prepare(directory_));
    wire::CellSession noted;
    noted.set_process(std::string(16, 'p'));
    noted.set_command("subject");
    noted.set_home("hostA:7070");
    noted.set_mode("demand");
    noted.set_user(1000);
    record_.emplace(
        SessionFile::create(directory_, cell_session_name("00ff")).value(),
        ProcessRow::open(directory_, to_hex(process_of(noted)), ProcessRole::kGuest).value(),
        SessionId(), noted);
    record_->set_facts([this] { return facts_; });
  }
  std::optional<ProcessRecord> row() {
    auto registry = Registry::open(directory_).value();
    const auto rows = registry.list().value();
    return rows.empty() ? std::nullopt : std::optional(rows.front());
  }

  const StateDirectory state_;
  const std::string directory_ = state_.path();
  GuestRecord::Facts facts_{.owed_pages = 9, .children_left = false, .lost = {}};
  std::optional<GuestRecord> record_;
};

TEST_F(GuestRecordTest, HasNoRowBeforeItsProcessHasAPid) {
  record_->enter(GuestPhase::kServing);
  EXPECT_FALSE(row());
  record_->file().mark().process = ::getpid();
  record_->write_row();
  ASSERT_TRUE(row());
  EXPECT_EQ(row()->pid, ::getpid());
}

TEST_F(GuestRecordTest, TheRowSaysWhatIsNotedAndTheFacts) {
  record_->file().mark().process = ::getpid();
  record_->enter(GuestPhase::kServing);
  const auto shown = row();
  ASSERT_TRUE(shown);
  EXPECT_EQ(shown->state, ProcessState::kRunningHere);
  EXPECT_EQ(shown->owed_pages, 9U);
  EXPECT_EQ(shown->home, "hostA:7070");
  EXPECT_EQ(shown->mode, "demand");
  EXPECT_EQ(shown->command, "subject");
  EXPECT_EQ(shown->uid, 1000U);
  EXPECT_FALSE(shown->exit_status);
  EXPECT_EQ(shown->result, "");
}

TEST_F(GuestRecordTest, AnEndIsInRecordAndRow) {
  record_->file().mark().process = ::getpid();
  facts_.lost = "its cell was killed";
  record_->enter(GuestPhase::kServing);
  record_->enter(GuestPhase::kEnded, 3 << 8);
  EXPECT_EQ(record_->wait_status(), 3 << 8);
  const auto shown = row();
  ASSERT_TRUE(shown);
  EXPECT_EQ(shown->state, ProcessState::kExited);
  EXPECT_EQ(shown->exit_status, 3 << 8);
  EXPECT_NE(shown->result.find("its cell was killed"), std::string::npos);
  facts_.children_left = true;
  record_->write_row();
  EXPECT_EQ(row()->state, ProcessState::kChildrenLeft);
}

// The process waits for each step from there until it runs.
TEST_F(GuestRecordTest, StepsOfALettingGoWriteNoRow) {
  record_->file().mark().process = ::getpid();
  for (const GuestPhase phase : {GuestPhase::kAwaitsRun, GuestPhase::kTold, GuestPhase::kMarked,
                                 GuestPhase::kKept, GuestPhase::kRan}) {
    record_->enter(phase);
    EXPECT_EQ(record_->phase(), phase);
    EXPECT_FALSE(row());
  }
  record_->enter(GuestPhase::kServing);
  EXPECT_TRUE(row());
}

TEST_F(GuestRecordTest, ANewWorkerReadsWhatWasNoted) {
  record_->noted().set_token("secret");
  ASSERT_TRUE(record_->save());
  const wire::CellSession noted = read_noted(record_->file()).value();
  EXPECT_EQ(noted.token(), "secret");
  EXPECT_EQ(std::to_integer<char>(process_of(noted)[15]), 'p');
}

TEST_F(GuestRecordTest, ADamagedTextIsNone) {
  ASSERT_TRUE(record_->file().save("no message"));
  EXPECT_EQ(read_noted(record_->file()).value().ByteSizeLong(), 0U);
  wire::CellSession other;
  other.set_process("too short");
  ASSERT_TRUE(record_->file().save(other.SerializeAsString()));
  EXPECT_EQ(read_noted(record_->file()).value().ByteSizeLong(), 0U);
}

// The init must hold no end that the process has closed: it would not see that.
TEST_F(GuestRecordTest, TheInitHoldsTheEndsThatAreOpen) {
  StandInCell cell(::getpid());
  const std::vector<RelayStreamSpec> specs{{.id = 4, .directions = wire::RELAY_OUT}};
  auto relay = GuestRelay::create(make_relay_state(specs), {}).value();
  auto ends = relay->create_endpoints(::getuid(), ::getgid()).value();
  ASSERT_TRUE(record_->keep_ends(cell, *relay));
  ASSERT_EQ(cell.kept.size(), 1U);
  EXPECT_EQ(cell.kept[0].number, 5U);
  ASSERT_TRUE(record_->keep_ends(cell, *relay));
  EXPECT_EQ(cell.kept.size(), 1U);  // It has it already.
  const auto none = GuestRelay::create(make_relay_state({}), {}).value();
  ASSERT_TRUE(record_->keep_ends(cell, *none));
  ASSERT_EQ(cell.dropped.size(), 1U);
  EXPECT_EQ(cell.dropped[0], cell.kept[0]);
}

TEST_F(GuestRecordTest, AnEndThatIsNotLetGoOfIsTriedAgain) {
  StandInCell cell(::getpid());
  const std::vector<RelayStreamSpec> specs{{.id = 4, .directions = wire::RELAY_OUT}};
  auto relay = GuestRelay::create(make_relay_state(specs), {}).value();
  auto ends = relay->create_endpoints(::getuid(), ::getgid()).value();
  ASSERT_TRUE(record_->keep_ends(cell, *relay));
  const auto none = GuestRelay::create(make_relay_state({}), {}).value();
  cell.drops_to_fail = 1;
  EXPECT_FALSE(record_->keep_ends(cell, *none));
  EXPECT_TRUE(cell.dropped.empty());
  EXPECT_TRUE(record_->keep_ends(cell, *none));
  EXPECT_EQ(cell.dropped.size(), 1U);
}

TEST_F(GuestRecordTest, AnEndThatIsNotKeptIsTriedAgain) {
  StandInCell cell(::getpid());
  const std::vector<RelayStreamSpec> specs{{.id = 4, .directions = wire::RELAY_OUT}};
  auto relay = GuestRelay::create(make_relay_state(specs), {}).value();
  auto ends = relay->create_endpoints(::getuid(), ::getgid()).value();
  cell.keeps_to_fail = 1;
  EXPECT_FALSE(record_->keep_ends(cell, *relay));
  EXPECT_TRUE(record_->keep_ends(cell, *relay));
  EXPECT_EQ(cell.kept.size(), 1U);
}

TEST_F(GuestRecordTest, ATakenOverEndIsNotGivenAgain) {
  StandInCell cell(::getpid());
  const std::vector<RelayStreamSpec> specs{{.id = 4, .directions = wire::RELAY_OUT}};
  auto relay = GuestRelay::create(make_relay_state(specs), {}).value();
  auto ends = relay->create_endpoints(::getuid(), ::getgid()).value();
  record_->note_kept({.kind = Kept::Kind::kRelayOut, .number = 5});
  ASSERT_TRUE(record_->keep_ends(cell, *relay));
  EXPECT_TRUE(cell.kept.empty());
}

class SourceLinkTest : public testing::Test {
 protected:
  std::unique_ptr<ControlChannel> connect() {
    auto ends = make_memory_channels().value();
    source_ = std::make_unique<ControlChannel>(std::move(ends.second), "guest");
    return std::make_unique<ControlChannel>(std::move(ends.first), "source");
  }
  std::optional<wire::ControlMessage> told() {
    auto message = source_->try_receive();
    return message ? *message : std::nullopt;
  }

  std::int64_t now_us_ = 1'000'000;
  std::unique_ptr<ControlChannel> source_;
  SourceLink link_{[this] { return now_us_; }};
};

TEST_F(SourceLinkTest, TellsNobodyWithoutALink) {
  link_.tell({});
  link_.ask_for_all();
  EXPECT_FALSE(link_.hear());
  EXPECT_FALSE(link_.connected());
  EXPECT_EQ(link_.poll_fd(), -1);
}

TEST_F(SourceLinkTest, IsDueEveryTenthOfASecond) {
  link_.attach(connect());
  EXPECT_TRUE(link_.is_due());
  link_.tell({});
  EXPECT_FALSE(link_.is_due());
  now_us_ += kProgressEveryUs;
  EXPECT_TRUE(link_.is_due());
  link_.tell({});
  link_.hurry();
  EXPECT_TRUE(link_.is_due());
}

TEST_F(SourceLinkTest, AnAnswerIsAVerdictAndMayAskForAll) {
  wire::Progress progress;
  progress.set_owed_pages(3);
  link_.answer(connect(), progress, true);
  auto verdict = told();
  ASSERT_TRUE(verdict && verdict->has_verdict());
  EXPECT_EQ(verdict->verdict().progress().owed_pages(), 3U);
  const auto all = told();
  EXPECT_TRUE(all && all->has_send_all());
  link_.answer(connect(), progress, false);
  verdict = told();
  EXPECT_TRUE(verdict && verdict->has_verdict());
  EXPECT_FALSE(told());
}

TEST_F(SourceLinkTest, KnowsOnceTheSourceSaysGoodbye) {
  link_.attach(connect());
  EXPECT_FALSE(link_.hear());
  wire::ControlMessage message;
  message.mutable_ping();
  ASSERT_TRUE(source_->send(message));
  EXPECT_FALSE(link_.hear());
  message.mutable_goodbye();
  ASSERT_TRUE(source_->send(message));
  EXPECT_TRUE(link_.hear());
  EXPECT_TRUE(link_.knows());
  EXPECT_FALSE(link_.connected());
  EXPECT_FALSE(link_.hear());  // It says so once.
}

TEST_F(SourceLinkTest, APingKeepsALinkThatIsSilentOtherwise) {
  link_.attach(connect());
  now_us_ += kSilenceUs - 1;
  wire::ControlMessage ping;
  ping.mutable_ping();
  ASSERT_TRUE(source_->send(ping));
  EXPECT_FALSE(link_.hear());
  now_us_ += kSilenceUs - 1;
  link_.tell({});
  EXPECT_TRUE(link_.connected());
  now_us_ += 2;
  link_.tell({});
  EXPECT_FALSE(link_.connected());
}

TEST_F(SourceLinkTest, ABrokenLinkIsLetGo) {
  link_.attach(connect());
  source_.reset();
  EXPECT_FALSE(link_.hear());
  EXPECT_FALSE(link_.connected());
  EXPECT_FALSE(link_.knows());
}

TEST(HomeLink, IsAwaySinceItsLinkWasLost) {
  std::int64_t now_us = 1'000'000;
  bool reachable = false;
  std::unique_ptr<Channel> other_end;
  HomeLink link(
      "subject",
      [&](int) -> Result<std::unique_ptr<Channel>> {
        if (!reachable) {
          return fail(make_error(ErrorCode::kPeerLost, "connect"));
        }
        auto ends = make_memory_channels().value();
        other_end = std::move(ends.second);
        return std::move(ends.first);
      },
      [&] { return now_us; });
  link.set_relay(GuestRelay::create(make_relay_state({}), {[](auto) {}, [] {}}).value());
  link.follow();
  now_us += 3'000'000;
  EXPECT_EQ(link.away_us(), 3'000'000);
  reachable = true;
  link.follow();
  EXPECT_TRUE(link.relay()->connected());
  link.follow();
  EXPECT_EQ(link.away_us(), 0);
  ASSERT_TRUE(link.connect(0));
  EXPECT_NE(link.take_connection(), nullptr);
  EXPECT_EQ(link.take_connection(), nullptr);
  link.drop_relay();
  EXPECT_EQ(link.relay(), nullptr);
}

TEST(GuestObjects, AreNotedForANewWorker) {
  StandInCell cell(::getpid());
  GuestObjects objects;
  objects.set_relays({{77, 4}});
  std::map<std::uint64_t, UniqueFd> files;
  files.emplace(6, UniqueFd(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC)));
  ::lseek(files.at(6).get(), 12, SEEK_SET);
  objects.set_shared_files(std::move(files));
  WaitRecord wait{.thread = 5, .number = 35, .deadline_ns = 99, .switches = 7};
  wait.arguments[1] = 42;
  objects.set_waits({wait});
  EXPECT_EQ(objects.positions(), (std::map<std::uint64_t, std::uint64_t>{{6, 12}}));

  wire::CellSession noted;
  ASSERT_TRUE(objects.note(noted, cell));
  ASSERT_EQ(cell.kept.size(), 1U);
  EXPECT_EQ(cell.kept[0].kind, Kept::Kind::kSharedFile);

  GuestObjects again;
  again.adopt(noted);
  again.adopt_file(6, UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)));
  const KnownObjects known = again.known(::getpid());
  EXPECT_EQ(known.relays.at(77), 4U);
  EXPECT_TRUE(known.shared_files.contains(6));
  EXPECT_TRUE(known.own_userfaultfd);
  EXPECT_GE(known.own_namespaces.size(), 3U);
  ASSERT_EQ(again.waits().size(), 1U);
  EXPECT_EQ(again.waits()[0].arguments[1], 42U);
  EXPECT_EQ(again.waits()[0].deadline_ns, 99);
}

TEST(GuestObjects, WhatTheInitDoesNotKeepIsAnError) {
  StandInCell cell(::getpid());
  cell.keeps_to_fail = 1;
  GuestObjects objects;
  objects.adopt_file(6, UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)));
  wire::CellSession noted;
  EXPECT_FALSE(objects.note(noted, cell));  // The process does not run then.
}

}  // namespace
}  // namespace migrate
