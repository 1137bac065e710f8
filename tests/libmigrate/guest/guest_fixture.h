#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "libmigrate/guest/going_on.h"
#include "libmigrate/guest/guest.h"
#include "libmigrate/guest/serving.h"
#include "libmigrate/relay/home_relay.h"
#include "tests/libmigrate/guest/client.h"
#include "tests/libmigrate/guest/stand_ins.h"
#include "tests/libmigrate/guest/state_directory.h"
#include "transport/memory_channel.h"

namespace migrate {

/// A guest with a stand-in for all but its record, its row and its links, whose other ends the test
/// has; its clock is the test's.
class GuestFixture : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(directory_ + "/mailbox");
    context_.state_directory = directory_;
    context_.host_name = "hostB";
    context_.own_address = {"tcp", "hostB", 7070};
    process_ = ::fork();
    if (process_ == 0) {
      for (;;) {
        ::pause();
      }
    }
    ASSERT_TRUE(SessionFile::prepare(directory_));
    make_guest();
  }

  void TearDown() override {
    guest_.reset();
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }

  void make_guest() {
    SessionFile file = SessionFile::create(directory_, cell_session_name("00ff")).value();
    ProcessRow row = ProcessRow::open(directory_, to_hex(SessionId()), ProcessRole::kGuest).value();
    file.mark().process = process_;
    wire::CellSession noted;
    noted.set_command("subject");
    noted.set_home("hostA:7070");
    noted.set_source("hostA:7070");
    noted.mutable_credentials()->set_uid_real(::getuid());
    guest_ = std::make_unique<Guest>(
        context_, SessionId(), SessionId(), PeerIdentity(),
        GuestRecord(std::move(file), std::move(row), SessionId(), std::move(noted)),
        [this] { return now_us_; });
    auto cell = std::make_unique<StandInCell>(process_);
    cell_ = cell.get();
    guest_->set_cell(std::move(cell));
    auto pages = std::make_unique<StandInPages>();
    pages_ = pages.get();
    guest_->set_pages(std::move(pages));
    guest_->set_home(std::make_unique<HomeLink>(
        "subject", [this](int) { return call_home(); }, [this] { return now_us_; }));
    guest_->home().set_relay(
        GuestRelay::create(make_relay_state({}), guest_->relay_handlers()).value());
    make_home();
    auto control = make_memory_channels().value();
    source_ = std::make_unique<ControlChannel>(std::move(control.second), "guest");
    guest_->source().attach(std::make_unique<ControlChannel>(std::move(control.first), "source"));
    guest_->home().relay()->activate();
    guest_->record().enter(GuestPhase::kServing);
  }

  void make_home() {
    HomeRelay::Handlers handlers;
    handlers.on_exit = [this](const wire::RelayExited& exited) { exited_ = exited; };
    handlers.on_stopped = [this](int signal) { stopped_ = signal; };
    handlers.on_continued = [this] { stopped_ = 0; };
    handlers.on_located = [](const std::string&, const std::string&) {};
    handlers.on_stream_closed = [](std::uint32_t, wire::RelayDirection) {};
    home_ = std::make_unique<HomeRelay>(std::vector<HomeRelay::Stream>(), 0, std::move(handlers));
  }

  Result<std::unique_ptr<Channel>> call_home() {
    ++calls_;
    if (!home_reachable_) {
      return fail(make_error(ErrorCode::kPeerLost, "connect", "hostA"));
    }
    auto ends = make_memory_channels().value();
    if (home_has_no_worker_) {  // Then its daemon says so.
      wire::RelayMessage over;
      over.mutable_exited_ack();
      const std::string bytes = over.SerializeAsString();
      EXPECT_TRUE(ends.second->send_one(std::as_bytes(std::span(bytes))));
      over_links_.push_back(std::move(ends.second));
    } else {
      home_->attach(std::move(ends.second));
    }
    return std::move(ends.first);
  }

  static std::string request(const char* command, nlohmann::json more = nlohmann::json::object()) {
    Asker asker;
    asker.user = ::getuid();
    asker.capabilities = ~0ULL >> 23U;
    more["command"] = command;
    more["asker"] = to_json(asker);
    return more.dump();
  }
  static std::string move_request() { return request("move", {{"destination", "hostC:7070"}}); }

  /// A step of `phase` and of the home, as often as messages need to go to and fro, and until its
  /// home has confirmed all that it was told, where it listens.
  bool step(WorkerPhase& phase) {
    constexpr int kLooks = 40;
    constexpr int kMostLooks = 5000;
    bool more = true;
    for (int i = 0; more && (i < kLooks || (i < kMostLooks && is_telling_home())); ++i) {
      more = phase.step();
      static_cast<void>(home_->handle());
      ::usleep(100);  // The relays' own threads send.
    }
    return more;
  }

  bool is_telling_home() const {
    const GuestRelay* relay = guest_->home().relay();
    return relay != nullptr && relay->connected() && !relay->flushed();
  }

  /// The init has reaped the process, and says so as it does: first in the record.
  void end_process(int status) {
    guest_->record().file().mark().phase.note_end(status);
    cell_->events.push_back({CellEvent::Kind::kStatus, status});
  }

  /// What the source has been told, if anything.
  std::optional<wire::ControlMessage> told_source() {
    auto message = source_->try_receive();
    return message ? *message : std::nullopt;
  }
  void say_goodbye() {
    wire::ControlMessage goodbye;
    goodbye.mutable_goodbye();
    ASSERT_TRUE(source_->send(goodbye));
  }
  bool file_exists() const {
    return std::filesystem::exists(SessionFile::directory(directory_) + "/" +
                                   cell_session_name("00ff") + ".session");
  }

  const StateDirectory state_;
  const std::string directory_ = state_.path();
  WorkerContext context_;
  pid_t process_ = -1;
  std::int64_t now_us_ = 1'000'000'000;
  std::unique_ptr<HomeRelay> home_;
  bool home_reachable_ = true;
  bool home_has_no_worker_ = false;                   // for the process any more
  std::vector<std::unique_ptr<Channel>> over_links_;  // by which that was told
  int calls_ = 0;
  std::optional<wire::RelayExited> exited_;
  int stopped_ = 0;
  StandInCell* cell_ = nullptr;    // the guest's
  StandInPages* pages_ = nullptr;  // the guest's
  std::unique_ptr<ControlChannel> source_;
  StandInMoves moves_;
  std::unique_ptr<Guest> guest_;
};

}  // namespace migrate
