#include "libmigrate/home/home_worker.h"

#include <signal.h>
#include <sys/signalfd.h>

#include <memory>
#include <utility>

#include "base/log.h"
#include "libmigrate/home/home_life.h"
#include "libmigrate/home/source_departure.h"
#include "libmigrate/host/mailbox.h"
#include "libmigrate/host/worker_over.h"
#include "libmigrate/state/global_name.h"
#include "transport/proof.h"

namespace migrate {
namespace {

UniqueFd take_child_signals() {
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &child, nullptr);
  return UniqueFd(::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
}

Result<std::unique_ptr<Channel>> connect_to_place(const WorkerContext& context,
                                                  const std::string& token,
                                                  const Whereabouts& where) {
  constexpr int kPlaceTimeoutMs = 5000;
  const Address address = MIGRATE_TRY(Address::parse(where.host));
  const Preamble preamble{.purpose = Purpose::kCommand,
                          .session = MIGRATE_TRY(session_id_from_hex(where.session))};
  auto peer = MIGRATE_TRY(context.trust.connect(address, preamble, kPlaceTimeoutMs));
  MIGRATE_TRY(give_proof(*peer.channel, token, preamble, kPlaceTimeoutMs));
  return std::move(peer.channel);
}

/// What a worker has of its host: its mailbox, and the signals of its children.
class HomePost {
 public:
  /// Errors: kSystem. The token of `record` is what every peer must prove to know: any host may
  /// have the process by and by.
  static Result<HomePost> open(const WorkerContext& context, const HomeRecord& record) {
    Mailbox mailbox =
        MIGRATE_TRY(Mailbox::create(context.state_directory, to_hex(record.process())));
    const auto whoever_has_it = [](const PeerIdentity&) { return std::string(); };
    MIGRATE_TRY(mailbox.open({.trust = context.trust,
                              .token = record.token(),
                              .rules = {{Purpose::kHome, whoever_has_it}}}));
    return HomePost(std::move(mailbox), take_child_signals());
  }

  HomeSurroundings surroundings(const WorkerContext& context, const HomeRecord& record) const {
    HomeSurroundings around;
    around.stops = context.stops;
    around.end_waiting_s = context.end_waiting_s;
    around.links = context.links;
    around.child_signals = child_signals_.get();
    around.connect = [&context, token = record.token()](const Whereabouts& where) {
      return connect_to_place(context, token, where);
    };
    return around;
  }
  HomeLife::RunPhase runner() {
    return [this](WorkerPhase& phase) { run_phase(mailbox_, phase); };
  }

 private:
  HomePost(Mailbox mailbox, UniqueFd child_signals)
      : mailbox_(std::move(mailbox)), child_signals_(std::move(child_signals)) {}

  Mailbox mailbox_;
  UniqueFd child_signals_;
};

Result<void> move_away(const WorkerContext& context, Asking& asking, const MoveRequest& request,
                       HomeRecord& record) {
  HomePost post = MIGRATE_TRY(HomePost::open(context, record));
  const HomeSurroundings around = post.surroundings(context, record);
  RealFiles files;
  const auto leaving =
      MIGRATE_TRY(SourceLeaving::create(context, request, record, files, asking.client));
  MIGRATE_TRY(record.save());
  HomeLife(around, record, asking, files, post.runner()).move_away(*leaving);
  return {};
}

Result<void> take_over(const WorkerContext& context, HomeRecord& record) {
  HomePost post = MIGRATE_TRY(HomePost::open(context, record));
  const HomeSurroundings around = post.surroundings(context, record);
  Asking nobody;
  RealFiles files;
  SourceRemains remains(context, record, nobody.client);
  auto taken = HomeLife(around, record, nobody, files, post.runner()).take_over(remains);
  if (!taken) {
    WorkerOver over(MIGRATE_ERROR,
                    make_error(ErrorCode::kRetry, "carry out a request",
                               "process " + record.command(), "its worker has died; try again"));
    post.runner()(over);
  }
  return taken;
}

}  // namespace

void run_source_worker(const WorkerContext& context, EventSink client, const MoveRequest& request) {
  Asking asking{std::move(client), request.wait, request.destination};
  auto record = HomeRecord::create(context.state_directory, request);
  if (!record) {
    asking.client.finish_failed(MIGRATE_FAILED, record.error());
    return;
  }
  *record->text().mutable_name() = first_global_name(request.pid, context.host_name);
  if (auto moved = move_away(context, asking, request, *record); !moved) {
    record->remove();
    asking.client.finish_failed(MIGRATE_FAILED, moved.error());
  }
}

void run_adopted_home(const WorkerContext& context, SessionFile file, const SessionId& process) {
  auto record = HomeRecord::adopt(context.state_directory, file, process);
  const Result<void> taken = record ? take_over(context, *record) : fail(record.error());
  if (taken) {
    return;
  }
  if (taken.error().code != ErrorCode::kCorrupt) {
    log::error("process {} could not be taken over: {}", to_hex(process), taken.error().message());
  } else if (record) {
    record->set_aside();
  } else {
    file.set_aside();
  }
}

}  // namespace migrate
