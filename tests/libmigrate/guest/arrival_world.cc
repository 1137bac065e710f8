#include "tests/libmigrate/guest/arrival_world.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <span>
#include <utility>

#include "base/file.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/host/mailbox_path.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/proc/file_identity.h"
#include "libmigrate/rules/host_facts.h"
#include "libmigrate/state/phase.h"
#include "transport/proof.h"
#include "transport/tcp.h"

namespace migrate {
namespace {

constexpr int kHearMs = 5000;
constexpr const char* kToken = "token";

pid_t start_idle() {
  const pid_t id = ::fork();
  if (id == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
      ::pause();
    }
  }
  return id;
}

// What takes time and stays as it is, once for all tests.
const wire::HostFacts& facts() {
  static const wire::HostFacts once = host_facts().value();
  return once;
}
const wire::FileIdentity& program_file() {
  static const wire::FileIdentity once = [] {
    const std::string path = read_link("/proc/self/exe").value();
    wire::FileIdentity identity = identify_at(AT_FDCWD, path, path).value();
    const UniqueFd file = open_file(path, O_RDONLY | O_CLOEXEC).value();
    EXPECT_TRUE(add_content_identity(file.get(), 0, identity));
    return identity;
  }();
  return once;
}

/// Makes the process of the seed without one.
class StandInRestorer final : public SeedRestorer {
 public:
  explicit StandInRestorer(ArrivalWorld& world) : world_(world) {}

  Result<void> prepare(const wire::Image&) override { return world_.take_step("prepare"); }
  const FileUser& file_user() const override { return user_; }
  MappingPlan plan(const wire::Image&) const override { return {}; }
  Result<void> adapt(const wire::Image&, const MappingPlan&) override {
    return world_.take_step("adapt");
  }
  Result<void> discard(const PageSet&) override { return world_.take_step("discard"); }
  Result<void> fill(carriers::ContentPlace& place, std::string_view bytes) override {
    world_.filled += bytes;
    place.advance(std::min<std::uint64_t>(bytes.size(), place.left()));
    return {};
  }
  Result<void> finish(const wire::Image&, const std::map<std::uint64_t, int>&) override {
    return world_.take_step("finish");
  }
  std::map<std::uint64_t, UniqueFd> take_shared_files() override { return {}; }
  std::vector<pid_t> host_threads() const override { return {world_.seed.id()}; }
  Result<void> release() override { return world_.take_step("release"); }
  Result<void> run() override { return world_.take_step("run"); }

 private:
  ArrivalWorld& world_;
  const FileUser user_;
};

/// Two ends of a connection over loopback.
std::pair<UniqueFd, UniqueFd> make_connection() {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  EXPECT_EQ(::bind(listener.get(), generic, length), 0);
  EXPECT_EQ(::listen(listener.get(), 1), 0);
  EXPECT_EQ(::getsockname(listener.get(), generic, &length), 0);
  UniqueFd ours(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(::connect(ours.get(), generic, length), 0);
  return {std::move(ours), UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC))};
}

}  // namespace

IdleProcess::IdleProcess() : id_(start_idle()) {}

IdleProcess::~IdleProcess() {
  kill();
  ::waitpid(id_, nullptr, 0);
}

void IdleProcess::kill() {
  ::kill(id_, SIGKILL);
}

ArrivalWorld::ArrivalWorld() {
  EXPECT_TRUE(SessionFile::prepare(directory.path()));
  std::filesystem::create_directory(mailbox_directory(directory.path()));
  context.state_directory = directory.path();
  context.host_name = "hostB";
  context.own_address = {"tcp", "127.0.0.1", 7072};
  context.max_sessions = 2;
  context.policy = HostPolicy::parse({"0@*"}).value();
  session.back() = std::byte{0xff};
  HomeRelay::Handlers handlers;
  handlers.on_exit = [this](const wire::RelayExited& how) { exited = how; };
  handlers.on_stopped = [](int) {};
  handlers.on_continued = [] {};
  handlers.on_located = [](const std::string&, const std::string&) {};
  handlers.on_stream_closed = [](std::uint32_t, wire::RelayDirection) {};
  home = std::make_unique<HomeRelay>(std::vector<HomeRelay::Stream>(), 0, std::move(handlers));
}

GuestWorld ArrivalWorld::world() {
  GuestWorld world;
  world.make_cell = [this](const CellOptions& options) { return make_cell(options); };
  world.connect_home = [this](const WorkerContext&, const wire::CellSession&, int) {
    return call_home();
  };
  return world;
}

Result<NewCell> ArrivalWorld::make_cell(const CellOptions& options) {
  mark = MIGRATE_TRY(Mapping::of_file(options.session_file, sizeof(SessionMark)));
  MIGRATE_TRY(take_step("make the cell"));
  cell_options = options;
  auto control = std::make_unique<StandInCell>(seed.id());
  cell = control.get();
  cell->events.assign(cell_events.begin(), cell_events.end());
  cell->kind_to_fail = kind_to_fail;
  cell->ends = cell_ends;
  cell->on_end = [this] { static_cast<void>(take_step("end the cell")); };
  cell->on_failed_keep = [this] { static_cast<void>(take_step("fail to keep")); };
  cell->on_keep = [this](Kept what) {
    if (what.kind == Kept::Kind::kUserfault) {
      static_cast<void>(take_step("keep the userfaultfd"));
    }
  };
  NewCell made;
  made.control = std::move(control);
  made.init = init.id();
  made.userfault =
      userfault.valid() ? std::move(userfault) : UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  made.make_restorer = [this](bool) -> Result<std::unique_ptr<SeedRestorer>> {
    return std::make_unique<StandInRestorer>(*this);
  };
  return made;
}

Result<std::unique_ptr<Channel>> ArrivalWorld::call_home() {
  auto ends = MIGRATE_TRY(make_memory_channels());
  home->attach(std::move(ends.second));
  return std::move(ends.first);
}

Result<void> ArrivalWorld::take_step(const std::string& step) {
  steps.push_back(step + " in " + phase());
  on_step(step);
  return step == step_to_fail ? fail(make_error(ErrorCode::kSystem, "take a step", step))
                              : Result<void>();
}

std::string ArrivalWorld::phase() const {
  return std::string(
      to_string(reinterpret_cast<const SessionMark*>(mark.bytes().data())->phase.guest()));
}

bool ArrivalWorld::has(const std::string& step) const {
  return std::any_of(steps.begin(), steps.end(),
                     [&](const std::string& each) { return each.starts_with(step + " in "); });
}

std::vector<std::string> ArrivalWorld::steps_to_run() const {
  const auto first = std::find_if(steps.begin(), steps.end(), [](const std::string& each) {
    return each.starts_with("finish in ");
  });
  return first == steps.end() ? std::vector<std::string>() : std::vector(first + 1, steps.end());
}

std::string ArrivalWorld::session_path() const {
  return SessionFile::directory(directory.path()) + "/" + cell_session_name(to_hex(session)) +
         ".session";
}

PeerTrust::Peer ArrivalWorld::connect_source() {
  auto ends = make_memory_channels().value();
  source = std::make_unique<ControlChannel>(std::move(ends.first), "destination");
  PeerIdentity identity;
  identity.alternative_names = {"127.0.0.1"};
  return {std::move(ends.second), std::move(identity)};
}

wire::Offer ArrivalWorld::offer() const {
  wire::Offer offer;
  offer.set_process(std::string(16, 'p'));
  offer.set_mode("lazy");
  offer.set_token(kToken);
  offer.set_home("tcp://127.0.0.1:7071");
  offer.set_source_address("tcp://127.0.0.1:7071");
  offer.set_command("sub\nject");
  offer.set_user(::getuid());
  *offer.mutable_source() = facts();
  wire::Image image = final_image();
  mutable_only_process(image).clear_signal_actions();
  *offer.mutable_draft() = image;
  return offer;
}

wire::Image ArrivalWorld::final_image() const {
  wire::Image image;
  wire::ProcessImage& process = mutable_only_process(image);
  process.set_process_id(4242);
  *process.mutable_executable() = program_file();
  process.set_working_directory("/");
  process.set_signal_actions(std::string(arch::kSignals * arch::kSignalActionBytes, '\0'));
  wire::Thread& thread = *process.add_threads();
  thread.set_id(4242);
  thread.set_general_registers(std::string(sizeof(arch::GeneralRegisters), '\0'));
  thread.set_alternate_stack(std::string(sizeof(stack_t), '\0'));
  thread.mutable_credentials()->set_uid_real(::getuid());
  return image;
}

void ArrivalWorld::send_offer(const wire::Offer& offer) const {
  wire::ControlMessage message;
  *message.mutable_offer() = offer;
  EXPECT_TRUE(source->send(message));
}

void ArrivalWorld::connect(Purpose purpose) {
  auto [ours, theirs] = make_connection();
  const Preamble preamble{.purpose = purpose, .session = session};
  EXPECT_TRUE(
      hand_to_worker(directory.path(), to_hex(session), theirs.get(), encode(preamble)).value());
  auto channel = TcpChannel::create(std::move(ours), {}).value();
  EXPECT_TRUE(give_proof(*channel, kToken, preamble, kHearMs));
  pages_.push_back(std::move(channel));
}

void ArrivalWorld::connect_pages() {
  const auto reply = hear();
  ASSERT_TRUE(reply && reply->has_offer_reply());
  ASSERT_EQ(reply->offer_reply().refusals_size(), 0)
      << reply->offer_reply().refusals(0).ShortDebugString();
  connect(Purpose::kUrgent);
  connect(Purpose::kBulk);
  const auto connected = hear();
  ASSERT_TRUE(connected && connected->has_connected());
}

void ArrivalWorld::send_bulk(std::span<const std::byte> message) const {
  EXPECT_TRUE(pages_.at(1)->send(std::span(&message, 1)));
}

std::vector<std::byte> ArrivalWorld::hear_bulk() const {
  const auto message = pages_.at(1)->receive(0, kHearMs);
  return message ? std::vector<std::byte>(message->begin(), message->end())
                 : std::vector<std::byte>();
}

void ArrivalWorld::send_final(const wire::Image& image) const {
  wire::ControlMessage message;
  *message.mutable_final()->mutable_image() = image;
  *message.mutable_final()->mutable_relay() = make_relay_state({});
  EXPECT_TRUE(source->send(message));
}

void ArrivalWorld::send_run() const {
  wire::ControlMessage message;
  message.mutable_run();
  EXPECT_TRUE(source->send(message));
}

void ArrivalWorld::hand_over() {
  send_offer(offer());
  connect_pages();
  send_final();
  const auto restored = hear();
  EXPECT_TRUE(restored && restored->has_restored());
}

std::optional<wire::ControlMessage> ArrivalWorld::hear() const {
  auto message = source->receive(0, kHearMs);
  return message ? std::optional(std::move(*message)) : std::nullopt;
}

}  // namespace migrate
