#include "tests/libmigrate/home/home_world.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/file.h"
#include "libmigrate/home/home_children_left.h"
#include "libmigrate/home/home_ended.h"
#include "libmigrate/home/home_in_doubt.h"
#include "libmigrate/home/home_killed.h"
#include "libmigrate/home/home_serving.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/requests/json_member.h"
#include "transport/memory_channel.h"

namespace migrate::home_testing {
namespace {

std::string name_of(const WorkerPhase& phase) {
  if (dynamic_cast<const HomeInDoubt*>(&phase) != nullptr) {
    return "InDoubt";
  }
  if (dynamic_cast<const HomeServing*>(&phase) != nullptr) {
    return "Serving";
  }
  if (dynamic_cast<const HomeChildrenLeft*>(&phase) != nullptr) {
    return "ChildrenLeft";
  }
  if (dynamic_cast<const HomeEnded*>(&phase) != nullptr) {
    return "Ended";
  }
  return dynamic_cast<const HomeKilled*>(&phase) != nullptr ? "Killed" : "Over";
}

std::pair<UniqueFd, UniqueFd> client_sockets() {
  std::array<int, 2> ends{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// Whether every other thread of this process waits for something: those that send on a link are
// woken by whoever has something for them.
bool others_sleep() {
  const std::string own = std::to_string(::gettid());
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    const std::string stat = read_file(task.path().string() + "/stat").value_or("0 (gone) S");
    const std::size_t name_end = stat.rfind(')');
    if (task.path().filename() != own && stat.compare(name_end, 3, ") S") != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace

void Client::read_all() {
  std::array<char, 8192> text{};
  for (;;) {
    const ssize_t count = ::recv(socket_.get(), text.data(), text.size(), MSG_DONTWAIT);
    if (count <= 0) {
      hung_up_ = hung_up_ || count == 0;
      return;
    }
    const json event = parse_object({text.data(), static_cast<std::size_t>(count)});
    const std::string kind = text_member(event, "event");
    if (kind == "result") {
      results_.push_back(event);
    } else {
      events_.push_back(kind == "phase" ? text_member(event, "phase") : kind);
    }
  }
}

const std::vector<json>& Client::results() {
  read_all();
  return results_;
}

int Client::exit() {
  if (results().empty()) {
    return hung_up_ ? -3 : -1;
  }
  return results_.size() > 1 ? -2 : integer_member(results_.front(), "exit", -4);
}

std::string Client::error() {
  if (results().empty() || !results_.front().contains("error")) {
    return {};
  }
  return text_member(results_.front()["error"], "message");
}

const std::vector<std::string>& Client::events() {
  read_all();
  return events_;
}

HomeWorld::HomeWorld() {
  ::signal(SIGPIPE, SIG_IGN);
  std::string pattern = "/dev/shm/homeXXXXXX";  // Not to wait for a disk at every row.
  EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
  directory_ = pattern;
  EXPECT_TRUE(SessionFile::prepare(directory_));
  around_.clock = [this] { return now_us_; };
  around_.connect = [this](const Whereabouts& where) { return connect_to_place(where); };
}

HomeWorld::~HomeWorld() {
  std::filesystem::remove_all(directory_);
}

Result<std::unique_ptr<Channel>> HomeWorld::connect_to_place(const Whereabouts& where) {
  if (!answers_) {
    return fail(make_error(ErrorCode::kPeerLost, "connect to", where.host));
  }
  auto [ours, theirs] = make_memory_channels().value();
  if (!answer_.is_null()) {
    const std::string text = answer_.dump();
    EXPECT_TRUE(theirs->send_one(std::as_bytes(std::span(text))));
  }
  asked_.push_back({{"host", where.host}, {"session", where.session}});
  peers_.push_back(std::move(theirs));
  return std::move(ours);
}

bool HomeWorld::live(const std::function<bool(HomeLife&, RealFiles&)>& life) {
  RealFiles files;
  HomeLife home(around_, *record_, asking_, files, [this](WorkerPhase& phase) { run(phase); });
  try {
    return life(home, files);
  } catch (const WorkerDied&) {
    record_.reset();
    asking_ = Asking();
    letters_.clear();
    return false;
  }
}

bool HomeWorld::move_away() {
  MoveRequest request = request_;
  request.pid = request.pid == 0 ? ::getpid() : request.pid;
  request.wait = asking_.wait;
  auto record = HomeRecord::create(directory_, request);
  EXPECT_TRUE(record) << record.error().message();
  record_.emplace(std::move(*record));
  process_ = record_->process();
  record_->keep();
  return live([this](HomeLife& home, RealFiles& files) {
    StandInLeaving leaving(doings_, *record_, files);
    home.move_away(leaving);
    return true;
  });
}

bool HomeWorld::take_over() {
  auto file = SessionFile::open(directory_, home_session_name(to_hex(process_)));
  EXPECT_TRUE(file) << file.error().message();
  file->mark().worker = 0;  // It was this process.
  file->mark().worker_start = 0;
  auto record = HomeRecord::adopt(directory_, *file, process_);
  EXPECT_TRUE(record) << record.error().message();
  record_.emplace(std::move(*record));
  phases_.clear();
  return live([this](HomeLife& home, RealFiles&) {
    StandInRemains remains(doings_, *record_);
    return home.take_over(remains).has_value();
  });
}

// As run_phase() does, but that time passes only here, and not while anything is under way.
void HomeWorld::run(WorkerPhase& phase) {
  const std::string name = name_of(phase);
  phases_.push_back(name);
  for (;;) {
    turn_world(name);
    for (; !letters_.empty(); letters_.pop_front()) {
      phase.on_letter(std::move(letters_.front()));
    }
    const bool goes_on = phase.step();
    turn_world(name);
    if (!goes_on) {
      return;
    }
    if (++turns_ > most_turns_) {
      ADD_FAILURE() << "does not leave the phase " << name << " in " << most_turns_ << " turns";
      die();
    }
    std::vector<pollfd> polled;
    const int timeout_ms = phase.collect_poll_fds(polled);
    if (!has_news(std::move(polled)) || ++turns_at_once_ > kMostTurnsAtOnce) {
      turns_at_once_ = 0;
      now_us_ += std::max(timeout_ms, 1) * std::int64_t{1000};
    }
  }
}

bool HomeWorld::has_news(std::vector<pollfd> polled) {
  while (!others_sleep()) {
    std::this_thread::yield();
  }
  if (place_.relay) {
    place_.relay->collect_poll_fds(polled);
  }
  return ::poll(polled.data(), polled.size(), 0) > 0;
}

void HomeWorld::turn_world(const std::string& name) {
  const auto begun = in_phase_.equal_range(name);
  std::vector<std::function<void()>> due;
  std::transform(begun.first, begun.second, std::back_inserter(due),
                 [](const auto& each) { return each.second; });
  in_phase_.erase(begun.first, begun.second);
  while (!later_.empty() && later_.begin()->first <= now_us_) {
    due.push_back(later_.begin()->second);
    later_.erase(later_.begin());
  }
  for (const auto& act : due) {
    act();
  }
  if (!place_.relay) {
    return;
  }
  EXPECT_TRUE(place_.relay->handle());
  if (!place_.relay->connected() && !place_.is_to_call) {
    place_.is_to_call = true;
    later(500, [this] { call(); });
  }
}

void HomeWorld::in(const std::string& phase, std::function<void()> act) {
  in_phase_.emplace(phase, std::move(act));
}

void HomeWorld::later(int milliseconds, std::function<void()> act) {
  later_.emplace(now_us_ + std::int64_t{1000} * milliseconds, std::move(act));
}

void HomeWorld::start_anew() {
  if (record_) {
    record_->remove_row();
    record_->remove();
  }
  record_.reset();
  doings_ = Doings();
  place_ = Place();
  phases_.clear();
  in_phase_.clear();
  later_.clear();
  turns_ = 0;
}

Client& HomeWorld::ask(const std::string& text) {
  auto [ours, theirs] = client_sockets();
  Letter letter;
  letter.fd = std::move(ours);
  letter.request = text;
  letters_.push_back(std::move(letter));
  return clients_.emplace_back(std::move(theirs));
}

Client& HomeWorld::resolve(const std::string& action) {
  return ask({{"command", "resolve"}, {"action", action}, {"asker", to_json(Asker{.user = 0})}});
}

Client& HomeWorld::asking(MoveWait wait) {
  auto [ours, theirs] = client_sockets();
  asking_ = {EventSink(std::move(ours)), wait, "b:7070"};
  return clients_.emplace_back(std::move(theirs));
}

std::unique_ptr<Channel> HomeWorld::connect(Purpose purpose) {
  auto [ours, theirs] = make_memory_channels().value();
  Letter letter;
  letter.preamble = Preamble{.purpose = purpose, .session = process_};
  letter.channel = std::move(ours);
  letters_.push_back(std::move(letter));
  return std::move(theirs);
}

void HomeWorld::call() {
  const bool is_first = !place_.relay;
  if (is_first) {
    GuestRelay::Handlers handlers;
    handlers.on_signal = [this](std::span<const std::byte> siginfo) {
      siginfo_t information{};
      std::memcpy(&information, siginfo.data(), std::min(siginfo.size(), sizeof(information)));
      place_.signals.push_back(information.si_signo);
    };
    place_.relay = GuestRelay::create(make_relay_state(specs_), std::move(handlers)).value();
    place_.ends = place_.relay->create_endpoints(::getuid(), ::getgid()).value();
  }
  place_.is_to_call = false;
  place_.relay->attach(connect(Purpose::kHome));
  if (is_first) {
    place_.relay->activate();
  }
}

void HomeWorld::exits(int wait_status, bool keep_streams) {
  if (!place_.relay) {
    call();
  }
  place_.relay->report_exit(wait_status, keep_streams);
}

UniqueFd HomeWorld::add_stream(std::uint32_t id) {
  std::array<int, 2> ends{};
  EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), 0);
  wire::Descriptor& descriptor = *mutable_only_process(doings_.image).add_descriptors();
  descriptor.set_number(static_cast<std::uint32_t>(ends[0]));
  descriptor.set_file(static_cast<std::uint32_t>(doings_.image.objects().files_size()));
  wire::OpenFile& file = *doings_.image.mutable_objects()->add_files();
  file.set_kind(wire::OpenFile::RELAY);
  file.set_flags(O_RDONLY);
  file.set_object(id);
  specs_.push_back({id, wire::RELAY_IN});
  ends_.emplace_back(ends[0]);
  return UniqueFd(ends[1]);
}

std::optional<ProcessRecord> HomeWorld::row() {
  auto registry = Registry::open(directory_).value();
  auto rows = registry.list().value();
  return rows.empty() ? std::nullopt : std::optional(rows.front());
}

bool HomeWorld::has_file() {
  return !SessionFile::list(directory_).empty();
}

std::string HomeWorld::phases() const {
  std::string all;
  for (const std::string& phase : phases_) {
    all += (all.empty() ? "" : " ") + phase;
  }
  return all;
}

}  // namespace migrate::home_testing
