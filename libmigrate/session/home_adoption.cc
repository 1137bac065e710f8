// How a new worker takes over a process at its home from one that died.
#include <signal.h>

#include <algorithm>

#include "base/log.h"
#include "libmigrate/session/home_worker.h"

namespace migrate {

void HomeWorker::run_adopted(SessionFile file, const SessionId& process) {
  file_.emplace(std::move(file));
  process_ = process;
  const auto adopted = adopt();
  if (!adopted) {
    log::error("process {} could not be taken over: {}", to_hex(process_),
               adopted.error().message());
    return;
  }
  if (*adopted) {
    serve_until_end();
  }
}

// False: nothing is left to do.
Result<bool> HomeWorker::adopt() {
  MIGRATE_TRY(file_->await_worker_gone());
  file_->take();
  registry_.emplace(MIGRATE_TRY(Registry::open(context_.state_directory)));
  if (!noted_.ParseFromString(MIGRATE_TRY(file_->load()))) {
    return fail(make_error(ErrorCode::kCorrupt, "read the session of a process"));
  }
  request_.pid = noted_.pid();
  request_.uid = noted_.user();
  request_.destination = noted_.outgoing().destination();
  request_.mode = noted_.outgoing().mode();
  token_ = noted_.token();
  command_ = noted_.command();
  where_ = noted_.where();
  where_session_ = noted_.where_session();
  mailbox_.emplace(MIGRATE_TRY(Mailbox::create(context_.state_directory, to_hex(process_))));
  MIGRATE_TRY(open_mailbox());
  take_children();
  const bool going_on = MIGRATE_TRY(adopt_deputy());
  if (!going_on) {
    log::info("process {} runs on here: its move was not decided", command_);
    static_cast<void>(
        registry_->update_state(to_hex(process_), ProcessRole::kHome, ProcessState::kFailed));
    file_->remove();
    return false;
  }
  log::info("took over process {}", command_);
  MIGRATE_TRY(become_deputy());
  return true;
}

// False: the process runs here and nowhere else.
Result<bool> HomeWorker::adopt_deputy() {
  SessionId session{};
  const std::string& bytes = noted_.outgoing().session();
  std::copy_n(reinterpret_cast<const std::byte*>(bytes.data()),
              std::min(bytes.size(), session.size()), session.begin());
  wire::Image image;
  auto parked = ParkedProcess::adopt(request_.pid, file_->mark().area, session, image);
  const bool gone = ::kill(request_.pid, 0) != 0;
  if (!parked && !gone && parked.error().code != ErrorCode::kNotFound) {
    return fail(parked.error());
  }
  if (!parked && (!gone || !noted_.outgoing().confirmed())) {
    return false;
  }
  const Address destination = MIGRATE_TRY(Address::parse(noted_.outgoing().destination()));
  SourceMoveOptions options = move_options(destination, request_.mode);
  if (!parked) {
    // Killed while no worker looked: so shall be the process, wherever it is.
    deputy_gone_ = true;
    for (const wire::DeputyRelayState::Stream& stream : noted_.relay().streams()) {
      streams_.push_back(
          {stream.id(), UniqueFd(), static_cast<wire::RelayDirection>(stream.directions())});
    }
    move_ = std::make_unique<SourceMove>(std::move(options), hooks(), sink_);
    return true;
  }
  context_.stops.reach("source.adopting");
  move_ = SourceMove::adopt(std::move(options), hooks(), sink_, std::move(*parked),
                            std::move(image), noted_.outgoing());
  if (move_->fate() == Fate::kUnknown && !settle_doubt()) {
    return false;
  }
  MIGRATE_TRY(fetch_streams(move_->image(), true));
  reported_done_ = move_->done();
  return true;
}

void run_adopted_home(const WorkerContext& context, SessionFile file, const SessionId& process) {
  HomeWorker(context, UniqueFd(), {}).run_adopted(std::move(file), process);
}

}  // namespace migrate
