#include "libmigrate/guest/onward.h"

#include <utility>

#include "base/log.h"
#include "libmigrate/move/check.h"
#include "libmigrate/move/this_host.h"

namespace migrate {

SourceMoveOptions Onward::options(MoveRequest request, const Address& destination) const {
  const wire::CellSession& noted = guest_.record().noted();
  SourceMoveOptions options;
  options.pid = guest_.cell()->seed();
  options.known = guest_.objects().known(options.pid);
  options.known.accepted_stream = [this](std::uint64_t inode) -> std::optional<std::uint64_t> {
    GuestRelay* const relay = guest_.home().relay();
    return relay == nullptr ? std::nullopt : relay->accepted_stream(inode);
  };
  options.known.home_groups = noted.home_groups();
  options.known.group_places = noted.group_places();
  options.request = std::move(request);
  options.request.starts = false;  // It has, at its home.
  options.destination = destination;
  options.process = guest_.process();
  options.home = *Address::parse(noted.home());
  options.token = noted.token();
  options.command = noted.command();
  options.name = noted.name();
  options.network = noted.network();
  options.waits = guest_.objects().waits();
  options.host_clocks = host_clocks_;
  options.context = &guest_.context();
  return options;
}

SourceMove::Hooks Onward::hooks() {
  SourceMove::Hooks hooks;
  hooks.freeze_relay = [this](const wire::Image&) {
    wire::RelayState state = guest_.home().relay()->freeze_state();
    guest_.note_change();  // It took from the process what it had written.
    return state;
  };
  hooks.thaw_relay = [this] { guest_.home().relay()->thaw(); };
  hooks.on_outgoing = [this](const wire::Outgoing& outgoing) {
    *guest_.record().noted().mutable_outgoing() = outgoing;
    return guest_.record().save();
  };
  hooks.on_area = [this](std::uint64_t area) { guest_.record().file().mark().area = area; };
  return hooks;
}

bool Onward::answers_at_once(const MoveRequest& request, EventSink& sink) {
  const auto is_here = is_this_host(guest_.context(), request.destination);
  if (!is_here) {
    sink.finish_failed(MIGRATE_USAGE, is_here.error());
    return true;
  }
  if (*is_here && request.wait != MoveWait::kExit) {
    sink.finish(MIGRATE_DONE, already_there(guest_.cell()->seed(), request.destination));
    return true;
  }
  return false;
}

std::unique_ptr<OnwardMove> Onward::begin(const MoveRequest& request, EventSink sink) {
  const auto destination = Address::parse(request.destination);
  if (!destination) {
    sink.finish_failed(MIGRATE_FAILED, destination.error());
    return nullptr;
  }
  SourceMoveOptions options = this->options(request, *destination);
  auto onward = std::make_unique<OnwardMove>(OnwardMove{std::move(sink), request.wait, nullptr});
  onward->move =
      world_.attempt_move(std::move(options), hooks(), request.retry_seconds, onward->sink);
  return onward->move ? std::move(onward) : nullptr;
}

void Onward::check(const CheckRequest& request, EventSink sink) {
  Address destination;
  if (!request.destination.empty()) {
    const auto parsed = Address::parse(request.destination);
    if (!parsed) {
      sink.finish_failed(MIGRATE_USAGE, parsed.error());
      return;
    }
    destination = *parsed;
  } else {
    destination.host.clear();
  }
  SourceMoveOptions options = this->options(request_of(request), destination);
  EventSink nobody;
  SourceMove move(std::move(options), {}, nobody);
  tell_verdict(sink, move, request.detail);
}

std::unique_ptr<OnwardMove> Onward::adopt() {
  wire::CellSession& noted = guest_.record().noted();
  if (!noted.has_outgoing()) {
    return nullptr;
  }
  MoveRequest request;
  request.plan = noted_plan(noted.outgoing().mode());
  SourceMoveOptions options = this->options(
      std::move(request),
      Address::parse(noted.outgoing().destination()).value_or(guest_.context().own_address));
  auto onward = std::make_unique<OnwardMove>();
  auto move = world_.adopt_move(std::move(options), hooks(), guest_.record().file().mark().area,
                                noted.outgoing(), onward->sink);
  if (!move) {
    if (move.error().code != ErrorCode::kNotFound) {
      log::error("process {}: {}", guest_.name(), move.error().message());
    }
    noted.clear_outgoing();
    if (has_left(guest_.phase())) {  // It runs elsewhere, and its pages went with its cell.
      guest_.record().row().remove();
    }
    return nullptr;
  }
  onward->move = std::move(*move);
  return onward;
}

}  // namespace migrate
