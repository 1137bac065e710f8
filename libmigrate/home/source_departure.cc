// SourceMove and ParkedProcess, as the phases of a home see them.
#include "libmigrate/home/source_departure.h"

#include <algorithm>
#include <utility>

#include "libmigrate/image/only_process.h"
#include "libmigrate/links/home_network.h"
#include "libmigrate/move/not_moved.h"
#include "libmigrate/rights/stand_in.h"

namespace migrate {
namespace {

/// What SourceMove serves from: first the parked process, then its keeper.
template <class Face>
class SourceParked : public Face {
 public:
  explicit SourceParked(SourceMove& move) : move_(move) {}

  pid_t process() const override { return move_.parked().process(); }
  Result<int> check_state() override { return move_.parked().check_state(); }
  Result<void> free_all() override { return move_.parked().free_all(); }
  Result<void> close_stream(std::uint32_t id) override {
    return move_.parked().close(descriptors_of_stream(move_.image(), id));
  }
  Result<AcceptedSocket> accept(std::uint32_t id, std::uint32_t descriptor,
                                const std::set<std::uint32_t>& accepted) override {
    const auto listening = descriptor != 0 ? std::vector<std::uint32_t>{descriptor}
                                           : descriptors_of_stream(move_.image(), id);
    if (listening.empty()) {
      return fail(make_error(ErrorCode::kNotFound, "find", "a listener"));
    }
    return fetch_made(MIGRATE_TRY(
        move_.parked().accept(listening.front(), above_all_descriptors(), accepted.size())));
  }
  Result<AcceptedSocket> listen(const wire::RelayListening& wanted,
                                const std::set<std::uint32_t>& accepted) override {
    return fetch_made(MIGRATE_TRY(move_.parked().listen(wanted.name(), wanted.only_ipv6(),
                                                        static_cast<int>(wanted.backlog()),
                                                        above_all_descriptors(), accepted.size())));
  }
  Result<AcceptedSocket> make_socket(int type, const SocketName& local, const SocketName* peer,
                                     const std::set<std::uint32_t>& accepted) override {
    const auto socket = MIGRATE_TRY(move_.parked().make_socket(
        type, local.to_bytes(), peer == nullptr ? std::string() : peer->to_bytes(),
        above_all_descriptors(), accepted.size()));
    if (socket.error != 0) {
      MIGRATE_TRY(close_accepted(socket.descriptor));
      return fail(system_error_from(socket.error, "connect to", peer->to_string()));
    }
    return fetch_made(socket.descriptor);
  }
  Result<AcceptedSocket> make_journal(const std::set<std::uint32_t>& accepted) override {
    return fetch_made(
        MIGRATE_TRY(move_.parked().make_pipe(above_all_descriptors(), accepted.size())));
  }
  Result<void> close_accepted(std::uint32_t descriptor) override {
    return move_.parked().close({descriptor});
  }
  void fetch_streams(RealFiles& files, wire::HomeRelayState& noted) const override {
    files.fetch_streams_left(process(), move_.image());
    note_unnoted(process(), move_.image(), noted);
    files.fetch_accepted(process(), noted);
    files.fetch_journals(process(), noted);
  }

 protected:
  std::set<std::uint32_t> kept(const std::set<std::uint32_t>& accepted, bool with_shared) const {
    std::set<std::uint32_t> all = descriptors_to_keep(move_.image(), with_shared);
    all.insert(accepted.begin(), accepted.end());
    return all;
  }
  SourceMove& move() const { return move_; }

 private:
  // What we cannot have nobody would ever close there.
  Result<AcceptedSocket> fetch_made(std::uint32_t descriptor) {
    auto real = fetch_descriptor(process(), descriptor);
    if (!real) {
      MIGRATE_TRY(close_accepted(descriptor));
      return fail(std::move(real).error());
    }
    return AcceptedSocket{std::move(*real), descriptor};
  }
  std::uint32_t above_all_descriptors() const {
    const auto& all = only_process(move_.image()).descriptors();  // ascending
    return all.empty() ? 0 : all.rbegin()->number() + 1;
  }

  SourceMove& move_;
};

class SourceKeeper : public SourceParked<ParkedKeeper> {
 public:
  using SourceParked::SourceParked;

  void end() override { move().parked().end(); }
};

class SourceDeputy : public SourceParked<ParkedDeputy> {
 public:
  SourceDeputy(SourceMove& move, ProcessIdentity identity)
      : SourceParked(move), identity_(identity) {}

  int signal_pipe() const override { return move().parked().signal_pipe(); }
  // Its pid may be another's by and by.
  void send(int signal) const override {
    if (const auto deputy = identity_.open()) {
      send_signal(deputy->get(), signal);
    }
  }
  Result<void> settle(const std::set<std::uint32_t>& accepted) override {
    return move().parked().settle(kept(accepted, true));
  }
  void fetch_shared(RealFiles& files) const override {
    files.fetch_shared(identity_.pid, move().image());
  }
  Result<std::unique_ptr<ParkedKeeper>> make_keeper(
      const std::set<std::uint32_t>& accepted) override {
    auto keeper = MIGRATE_TRY(move().parked().make_keeper(kept(accepted, false)));
    ending_.emplace(move().serve_from(std::move(keeper)));
    return std::make_unique<SourceKeeper>(move());
  }
  Result<void> end_as(int wait_status) override {
    return (ending_ ? *ending_ : move().parked()).end_as(wait_status);
  }
  Result<void> let_attach(const Asker& asker) const override {
    return may_attach(asker, identity_.pid);
  }
  Result<void> let_signal(const Asker& asker) const override {
    return may_signal(asker, identity_.pid);
  }

 private:
  const ProcessIdentity identity_;
  std::optional<ParkedProcess> ending_;  // itself, when the keeper has taken its place
};

// What every worker of the process says of it, whoever asks for the move.
SourceMoveOptions options_of(const WorkerContext& context, const HomeRecord& record) {
  SourceMoveOptions options;
  options.pid = record.pid();
  options.process = record.process();
  options.home = context.own_address;
  options.token = record.token();
  options.command = record.command();
  options.name = record.text().name();
  options.network = home_network();
  options.request.starts = record.text().starts();
  options.host_clocks = clock_offsets(0).value_or(ClockOffsets());
  options.context = &context;
  return options;
}

SourceMove::Hooks hooks_of(HomeRecord& record) {
  SourceMove::Hooks hooks;
  hooks.freeze_relay = RealFiles::fresh_relay;
  hooks.on_outgoing = [&record](const wire::Outgoing& outgoing) {
    *record.text().mutable_outgoing() = outgoing;
    record.note_mode(noted_plan(outgoing.mode()).word);
    return record.save();
  };
  hooks.on_area = [&record](std::uint64_t area) { record.note_area(area); };
  return hooks;
}

SourceMove::Hooks hooks_of_first_move(HomeRecord& record, RealFiles& files) {
  SourceMove::Hooks hooks = hooks_of(record);
  hooks.on_captured = [&record, &files](const wire::Image& image) {
    // It may have become another's.
    record.text().set_user(only_process(image).threads(0).credentials().uid_real());
    return files.fetch_streams(record.pid(), image);
  };
  return hooks;
}

}  // namespace

Result<std::unique_ptr<SourceLeaving>> SourceLeaving::create(const WorkerContext& context,
                                                             const MoveRequest& request,
                                                             HomeRecord& record, RealFiles& files,
                                                             EventSink& client) {
  SourceMoveOptions options = options_of(context, record);
  options.destination = MIGRATE_TRY(Address::parse(request.destination));
  options.request = request;
  return std::unique_ptr<SourceLeaving>(
      new SourceLeaving(std::move(options), record, files, client, request.retry_seconds));
}

SourceLeaving::SourceLeaving(SourceMoveOptions options, HomeRecord& record, RealFiles& files,
                             EventSink& client, double retry_seconds)
    : record_(record),
      move_(std::make_unique<SourceMove>(std::move(options), hooks_of_first_move(record, files),
                                         client)),
      source_(move_.get()),
      retry_seconds_(retry_seconds) {}

Departed SourceLeaving::depart() {
  Departed departed;
  departed.deputy = std::make_unique<SourceDeputy>(*source_, record_.identity());
  departed.move = std::move(move_);
  return departed;
}

void SourceLeaving::tell_not_moved(EventSink& client, MoveOutcome outcome) {
  migrate::tell_not_moved(client, *source_, outcome, record_.pid(), record_.command());
}

SessionId SourceRemains::session() const {
  SessionId session{};
  const std::string& bytes = record_.text().outgoing().session();
  std::copy_n(reinterpret_cast<const std::byte*>(bytes.data()),
              std::min(bytes.size(), session.size()), session.begin());
  return session;
}

Result<Found> SourceRemains::find() {
  const ProcessIdentity noted = record_.identity();
  auto parked = ParkedProcess::adopt(noted.pid, record_.area(), session(), image_);
  if (parked) {
    parked_.emplace(std::move(*parked));
    ParkedProcess::end_children(noted.pid);
    return Found::kParked;
  }
  const std::uint64_t start = start_time(noted.pid);
  if (start == 0 || (noted.start != 0 && start != noted.start)) {
    return Found::kGone;
  }
  if (parked.error().code != ErrorCode::kNotFound) {
    return fail(parked.error());
  }
  return Found::kRunsOn;
}

Result<bool> SourceRemains::find_keeper() {
  const wire::Keeper& noted = record_.text().keeper();
  if (start_time(noted.pid()) != noted.start()) {
    return false;
  }
  auto keeper = ParkedProcess::adopt_keeper(noted.pid(), record_.area(), session(), image_);
  if (!keeper && keeper.error().code != ErrorCode::kNotFound) {
    return fail(keeper.error());
  }
  is_keeper_ = keeper.has_value();
  if (keeper) {
    parked_.emplace(std::move(*keeper));
  }
  return is_keeper_;
}

Result<SourceMoveOptions> SourceRemains::options() const {
  const wire::Outgoing& noted = record_.text().outgoing();
  SourceMoveOptions options = options_of(context_, record_);
  options.destination = MIGRATE_TRY(Address::parse(noted.destination()));
  options.request.plan = noted_plan(noted.mode());
  return options;
}

Result<Departed> SourceRemains::go_on() {
  const bool is_there = parked_.has_value();
  std::unique_ptr<SourceMove> move =
      SourceMove::adopt(MIGRATE_TRY(options()), hooks_of(record_), client_, std::move(parked_),
                        std::move(image_), record_.text().outgoing());
  Departed departed;
  if (is_there && is_keeper_) {
    departed.keeper = std::make_unique<SourceKeeper>(*move);
  } else if (is_there) {
    departed.deputy = std::make_unique<SourceDeputy>(*move, record_.identity());
  }
  departed.move = std::move(move);
  return departed;
}

Result<wire::Verdict> SourceRemains::ask_verdict() {
  if (!asking_) {
    asking_ = std::make_unique<SourceMove>(MIGRATE_TRY(options()), hooks_of(record_), client_);
  }
  return asking_->ask_verdict(session(), record_.text().outgoing().incarnation());
}

}  // namespace migrate
