#include "libmigrate/guest/onward.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "libmigrate/move/check.h"
#include "libmigrate/move/not_moved.h"
#include "libmigrate/move/this_host.h"

namespace migrate {

SourceMoveOptions Onward::options(const MovePlan& plan, const Address& destination) const {
  const wire::CellSession& noted = guest_.record().noted();
  SourceMoveOptions options;
  options.pid = guest_.cell()->seed();
  options.known = guest_.objects().known(options.pid);
  options.plan = plan;
  options.destination = destination;
  options.process = guest_.process();
  options.home = *Address::parse(noted.home());
  options.token = noted.token();
  options.command = noted.command();
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
  SourceMoveOptions options = this->options(request.plan, *destination);
  options.asker = request.asker;
  options.strict = request.strict;
  options.push = request.push;
  options.transport = request.transport;
  auto onward = std::make_unique<OnwardMove>(OnwardMove{std::move(sink), request.wait, nullptr});
  auto move = std::make_unique<SourceMove>(std::move(options), hooks(), onward->sink);
  const MoveOutcome outcome = move->attempt_for(request.retry_seconds);
  if (outcome == MoveOutcome::kRefused || outcome == MoveOutcome::kFailed) {
    tell_not_moved(onward->sink, *move, outcome, guest_.cell()->seed(), guest_.name());
    return nullptr;
  }
  onward->move = std::move(move);
  return onward;
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
  SourceMoveOptions options = this->options(check_plan(), destination);
  options.asker = request.asker;
  options.strict = request.strict;
  EventSink nobody;
  SourceMove move(std::move(options), {}, nobody);
  tell_verdict(sink, move);
}

std::unique_ptr<OnwardMove> Onward::adopt() {
  wire::CellSession& noted = guest_.record().noted();
  if (!noted.has_outgoing()) {
    return nullptr;
  }
  SessionId session{};
  std::copy_n(reinterpret_cast<const std::byte*>(noted.outgoing().session().data()),
              std::min(noted.outgoing().session().size(), session.size()), session.begin());
  wire::Image image;
  auto parked = ParkedProcess::adopt(guest_.cell()->seed(), guest_.record().file().mark().area,
                                     session, image);
  if (!parked) {
    if (parked.error().code != ErrorCode::kNotFound) {
      log::error("process {}: {}", guest_.name(), parked.error().message());
    }
    noted.clear_outgoing();
    if (has_left(guest_.phase())) {  // It runs elsewhere, and its pages went with its cell.
      guest_.record().row().remove();
    }
    return nullptr;
  }
  SourceMoveOptions options = this->options(
      noted_plan(noted.outgoing().mode()),
      Address::parse(noted.outgoing().destination()).value_or(guest_.context().own_address));
  guest_.context().stops.reach("source.adopting");
  auto onward = std::make_unique<OnwardMove>();
  onward->move = SourceMove::adopt(std::move(options), hooks(), onward->sink, std::move(*parked),
                                   std::move(image), noted.outgoing());
  return onward;
}

}  // namespace migrate
