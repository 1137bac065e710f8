#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <deque>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "libmigrate/guest/going_on.h"
#include "libmigrate/guest/guest.h"
#include "libmigrate/guest/onward.h"
#include "libmigrate/guest/serving.h"
#include "libmigrate/relay/home_relay.h"
#include "transport/memory_channel.h"

namespace migrate {

/// A cell whose init says what the test wants, and that notes what the worker asks of it.
class StandInCell final : public CellControl {
 public:
  explicit StandInCell(pid_t seed) : seed_(seed) {}

  pid_t seed() const override { return seed_; }
  int event_fd() const override { return -1; }
  Result<CellEvent> read_event() override {
    if (events.empty() && ended) {
      return fail(make_error(ErrorCode::kPeerLost, "read an event"));
    }
    if (events.empty()) {
      return fail(make_error(ErrorCode::kRetry, "read an event"));
    }
    const CellEvent event = events.front();
    events.pop_front();
    return event;
  }
  Result<void> keep(Kept what, int) override {
    if (keeps_to_fail > 0) {
      --keeps_to_fail;
      return fail(make_error(ErrorCode::kSystem, "keep a descriptor"));
    }
    kept.push_back(what);
    return {};
  }
  Result<void> drop(Kept what) override {
    dropped.push_back(what);
    return {};
  }
  using CellControl::signal_seed;
  void signal_seed(int signal, siginfo_t*) override { signals.push_back(signal); }
  void end() override { ended = true; }
  bool end_and_wait() override { return ended = true; }

  std::deque<CellEvent> events;
  std::vector<Kept> kept;
  std::vector<Kept> dropped;
  std::vector<int> signals;
  int keeps_to_fail = 0;
  bool ended = false;

 private:
  const pid_t seed_;
};

/// Pages of which the test says how many are owed.
class StandInPages final : public OwedPages {
 public:
  void take(Purpose purpose, std::unique_ptr<Channel>) override { taken.push_back(purpose); }
  void collect_poll_fds(std::vector<pollfd>&) override {}
  void follow(bool) override {}
  void stop() override { stopped = true; }
  bool done() const override { return owed_pages == 0; }
  bool waits() const override { return lost; }
  std::uint64_t owed() const override { return owed_pages; }
  std::uint64_t owed_to_first() const override { return owed_pages; }
  bool first_gone() const override { return false; }
  wire::Progress progress() const override {
    wire::Progress progress;
    progress.set_owed_pages(owed_pages);
    return progress;
  }

  std::uint64_t owed_pages = 5;
  bool lost = false;
  bool stopped = false;
  std::vector<Purpose> taken;
};

/// A move of which the test says what the destination says.
class StandInDeparture final : public Departure {
 public:
  explicit StandInDeparture(const std::int64_t& clock) : clock_(clock) {}

  const SessionId& session() const override { return session_; }
  std::string destination() const override { return "hostC:7070"; }
  const Error& error() const override { return error_; }
  Fate fate() const override { return fate_now; }
  int wait_status() const override { return 0; }
  const std::string& waits_for() const override { return waits; }
  std::int64_t waits_since_us() const override { return waits_since; }
  bool done() const override { return owes_nothing; }
  std::uint64_t owed_pages() const override { return owes_nothing ? 0 : 7; }
  int control_fd() const override { return -1; }
  Result<void> handle() override {
    ++handled;
    return parked_gone ? Result<void>(fail(make_error(ErrorCode::kNotFound, "free pages")))
                       : Result<void>();
  }
  void ask_once_more() override {
    ++asked;
    fate_now = fate_when_asked;
  }
  void confirm_runs() override { fate_now = Fate::kRuns; }
  Result<void> resume_here() override {
    ++resumed;
    return {};
  }
  void stop_serving() override {}
  Result<void> hide() override {
    ++hidden;
    return {};
  }
  nlohmann::json result() const override { return {{"id", "moved"}}; }
  nlohmann::json progress_event() const override { return {{"event", "progress"}}; }

  /// Nothing is heard of the destination any more.
  void lose() {
    waits = "hostC:7070: nothing came";
    waits_since = clock_;
  }

  Fate fate_now = Fate::kRuns;
  Fate fate_when_asked = Fate::kUnknown;
  std::string waits;
  std::int64_t waits_since = 0;
  bool owes_nothing = false;
  bool parked_gone = false;
  int handled = 0;
  int asked = 0;
  int resumed = 0;
  int hidden = 0;

 private:
  const std::int64_t& clock_;
  const SessionId session_{};
  const Error error_ = make_error(ErrorCode::kPeerLost, "hear from the destination");
};

/// Gives out the move that the test has made.
class StandInMoves final : public OnwardMoves {
 public:
  std::unique_ptr<OnwardMove> begin(const MoveRequest& request, EventSink sink) override {
    begun.push_back(request.destination);
    if (!next) {
      sink.finish_failed(MIGRATE_REFUSED, make_error(ErrorCode::kRefused, "move"));
      return nullptr;
    }
    return std::make_unique<OnwardMove>(OnwardMove{std::move(sink), request.wait, std::move(next)});
  }
  void check(const CheckRequest& request, EventSink sink) override {
    checked.push_back(request.destination);
    sink.finish(MIGRATE_DONE, {{"refusals", nlohmann::json::array()}});
  }

  std::unique_ptr<StandInDeparture> next;
  std::vector<std::string> begun;
  std::vector<std::string> checked;
};

/// A home that waits for the answer to what it passed on, and hangs up then, for which the worker
/// waits.
class HomeReader {
 public:
  explicit HomeReader(std::unique_ptr<Channel> channel)
      : channel_(std::move(channel)), thread_([this] { read(); }) {}
  ~HomeReader() {
    channel_->shutdown();
    thread_.join();
  }
  HomeReader(const HomeReader&) = delete;
  HomeReader& operator=(const HomeReader&) = delete;

  nlohmann::json result() {
    const MutexLock lock(mutex_);
    return result_;
  }

 private:
  void read() {
    for (auto message = channel_->receive(); message; message = channel_->receive()) {
      const auto event = nlohmann::json::parse(
          std::string(reinterpret_cast<const char*>(message->data()), message->size()));
      if (event.value("event", "") == "result") {
        const MutexLock lock(mutex_);
        result_ = event;
        break;
      }
    }
    channel_->shutdown();
  }

  std::unique_ptr<Channel> channel_;
  Mutex mutex_;
  nlohmann::json result_ MIGRATE_GUARDED_BY(mutex_);
  std::thread thread_;
};

/// Someone who asks, on this host or through the home.
class Client {
 public:
  /// A letter of a client on this host.
  static std::pair<Letter, Client> local(const std::string& text) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    Letter letter;
    letter.fd.reset(ends[0]);
    letter.request = text;
    Client client;
    client.fd_.reset(ends[1]);
    return {std::move(letter), std::move(client)};
  }
  /// A letter that the home passed on.
  static std::pair<Letter, Client> from_home(const std::string& text) {
    auto ends = make_memory_channels().value();
    EXPECT_TRUE(ends.second->send_one(std::as_bytes(std::span(text))));
    Letter letter;
    letter.preamble = Preamble{.purpose = Purpose::kCommand, .session = {}};
    letter.channel = std::move(ends.first);
    Client client;
    client.home_ = std::make_unique<HomeReader>(std::move(ends.second));
    return {std::move(letter), std::move(client)};
  }

  /// The result that it has been told, null so far.
  nlohmann::json result() {
    if (home_) {
      return home_->result();
    }
    for (nlohmann::json event = next(); !event.is_null(); event = next()) {
      if (event.value("event", "") == "result") {
        result_ = event;
      }
    }
    return result_;
  }
  int exit_code() { return result().is_null() ? -1 : result()["exit"].get<int>(); }

 private:
  nlohmann::json next() {
    char byte = 0;
    std::string line;
    while (::recv(fd_.get(), &byte, 1, MSG_DONTWAIT) == 1 && byte != '\n') {
      line += byte;
    }
    return line.empty() ? nlohmann::json() : nlohmann::json::parse(line);
  }

  UniqueFd fd_;
  std::unique_ptr<HomeReader> home_;
  nlohmann::json result_;
};

/// A guest with a stand-in for all but its record, its row and its links, whose other ends the test
/// has; its clock is the test's.
class GuestFixture : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = testing::TempDir() + "guest-" + std::to_string(::getpid());
    std::filesystem::remove_all(directory_);
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
    std::filesystem::remove_all(directory_);
  }

  void make_guest() {
    SessionFile file = SessionFile::create(directory_, cell_session_name("00ff")).value();
    ProcessRow row =
        ProcessRow::open(directory_, to_hex(SessionId()), ProcessRole::kResident).value();
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
    handlers.on_command_reply = [](std::uint64_t, const Result<std::string>&) {};
    handlers.on_stream_closed = [](std::uint32_t, wire::RelayDirection) {};
    home_ = std::make_unique<HomeRelay>(std::vector<HomeRelay::Stream>(), 0, std::move(handlers));
  }

  Result<std::unique_ptr<Channel>> call_home() {
    ++calls_;
    if (!home_reachable_) {
      return fail(make_error(ErrorCode::kPeerLost, "connect", "hostA"));
    }
    auto ends = make_memory_channels().value();
    home_->attach(std::move(ends.second));
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

  /// A step of `phase` and of the home, as often as messages need to go to and fro.
  bool step(WorkerPhase& phase) {
    bool more = true;
    for (int i = 0; i < 40 && more; ++i) {
      more = phase.step();
      static_cast<void>(home_->handle());
      ::usleep(100);  // The relays' own threads send.
    }
    return more;
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

  std::string directory_;
  WorkerContext context_;
  pid_t process_ = -1;
  std::int64_t now_us_ = 1'000'000'000;
  std::unique_ptr<HomeRelay> home_;
  bool home_reachable_ = true;
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
