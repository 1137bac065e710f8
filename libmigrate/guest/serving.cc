#include "libmigrate/guest/serving.h"

#include <signal.h>

#include <algorithm>
#include <utility>

#include "libmigrate/move/not_moved.h"

namespace migrate {
namespace {

// Whoever asks for more of one process is told to wait: each costs its worker a descriptor or two.
constexpr std::size_t kMostPending = 64;

}  // namespace

Error left_error(const std::string& process) {
  return make_error(ErrorCode::kRetry, "carry out a request", "process " + process,
                    "it has left this host; try again");
}

Error leaving_error(const std::string& process) {
  return make_error(ErrorCode::kRetry, "carry out a request", "process " + process,
                    "it is leaving this host; try again");
}

GuestServing::~GuestServing() {
  refuse_moves(left_error(guest_.name()));
}

int GuestServing::collect_poll_fds(std::vector<pollfd>& polled) {
  constexpr int kLongestPollMs = 1000;
  polled.push_back({guest_.cell_over() ? -1 : guest_.cell()->event_fd(), POLLIN, 0});
  polled.push_back({guest_.source().poll_fd(), POLLIN, 0});
  guest_.pages().collect_poll_fds(polled);
  const int wanted_ms = guest_.home().collect_poll_fds(polled);
  const bool is_next = !pending_.empty() && guest_.independent();
  if (is_next && std::ranges::any_of(pending_, [](const auto& move) { return !move.point; })) {
    return 0;
  }
  const int longest_ms = is_next                ? static_cast<int>(kPointPause.count())
                         : guest_.independent() ? kLongestPollMs
                                                : owed_pause_.next_ms(guest_.pages().owed());
  return wanted_ms >= 0 ? std::min(longest_ms, wanted_ms) : longest_ms;
}

bool GuestServing::step() {
  guest_.watch_core();
  guest_.read_cell();
  guest_.follow_pages();
  guest_.watch_waiting();  // Before what may block: users are to see it.
  guest_.tell_source();
  guest_.follow_home();
  guest_.record().row().refresh();
  if (guest_.exited()) {
    refuse_moves(guest_.ended_error());
  } else if (!pending_.empty() && guest_.independent()) {
    begin_next();
  }
  return onward_ == nullptr && !guest_.is_over();
}

// The first that need not wait for the program to come to one of its points.
void GuestServing::begin_next() {
  for (std::size_t i = 0; i < pending_.size(); ++i) {
    const Turn turn = look_at(pending_[i]);
    if (turn == Turn::kLater) {
      continue;
    }
    PendingMove next = std::move(pending_[i]);
    pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(i));
    if (turn == Turn::kBegins) {
      onward_ = moves_.begin(next.request, std::move(next.sink));
    }
    if (onward_) {  // Who asks from now on is told the same.
      refuse_moves(leaving_error(guest_.name()));
    }
    return;
  }
}

// Of one that is over its client was told, or has left.
GuestServing::Turn GuestServing::look_at(PendingMove& move) {
  const pid_t process = move.request.pid;
  if (move.request.asked == 0) {
    move.request.point_wait =
        longest_wait(process, move.request.point_wait, move.request.hook_wait.value_or(kHookWait));
  }
  if (!move.request.point_wait) {
    return Turn::kBegins;
  }
  if (!move.point) {
    auto begun = PointWait::begin(process, move.request.asker, *move.request.point_wait);
    if (begun) {
      move.point.emplace(std::move(*begun));
      return Turn::kLater;
    }
    if (begun.error().code == ErrorCode::kNotFound) {
      tell_refused(move.sink, {refusal_without_points(process)}, process);
    } else {
      move.sink.finish_failed(MIGRATE_REFUSED, begun.error());
    }
    return Turn::kOver;
  }
  if (move.sink.has_left()) {
    return Turn::kOver;
  }
  if (move.sink.cancel_asked()) {
    tell_cancelled(move.sink, guest_.name());
    return Turn::kOver;
  }
  const PointWait::State state = move.point->look();
  if (state == PointWait::State::kWaiting) {
    return Turn::kLater;
  }
  if (state != PointWait::State::kThere) {
    tell_refused(move.sink, {refusal_of_point(*move.point, state, process)}, process);
    return Turn::kOver;
  }
  move.request.at_point = move.point->request();
  move.sink.also_tell(move.point->take_program(), move.request.at_point);
  return Turn::kBegins;
}

void GuestServing::refuse_moves(const Error& error) {
  for (PendingMove& pending : std::exchange(pending_, {})) {
    pending.sink.finish_failed(error.code == ErrorCode::kRetry ? MIGRATE_FAILED : MIGRATE_ERROR,
                               error);
  }
}

// In whose name it is asked; nothing where that is not believed, or the process has ended, which
// the client was told then.
std::optional<Asker> GuestServing::judge(GuestRequest& request) const {
  auto asker = guest_.believed(request.text, request.home_or_null());
  if (!asker) {
    request.sink.finish_refused("NOT_PERMITTED", asker.error());
    return std::nullopt;
  }
  if (guest_.exited()) {
    request.refuse(MIGRATE_ERROR, guest_.ended_error());
    return std::nullopt;
  }
  return std::move(*asker);
}

// `request` is what is left of it: how it came, and whom to answer.
struct GuestServing::Answers {
  GuestServing& serving;
  GuestRequest& request;

  void operator()(MoveRequest move) const {
    Guest& guest = serving.guest_;
    auto asker = serving.judge(request);
    if (!asker || serving.moves_.answers_at_once(move, request.sink)) {
      return;
    }
    if (serving.pending_.size() >= kMostPending) {
      request.refuse(
          MIGRATE_FAILED,
          make_error(ErrorCode::kRetry, "move", "process " + guest.name(),
                     std::to_string(kMostPending) + " moves of it wait already; end some of them"));
      return;
    }
    move.pid = guest.cell()->seed();
    move.uid = guest.record().noted().user();
    move.asker = std::move(*asker);
    if (!guest.independent()) {
      guest.source().ask_for_all();
    }
    serving.pending_.push_back({std::move(move), std::move(request.sink)});
  }

  void operator()(CheckRequest check) const {
    if (auto asker = serving.judge(request)) {
      check.asker = std::move(*asker);
      serving.moves_.check(check, std::move(request.sink));
    }
  }

  void operator()(const ResolveRequest& /*resolve*/) const {
    const Guest& guest = serving.guest_;
    if (auto asker = guest.believed(request.text, request.home_or_null()); !asker) {
      request.refuse(MIGRATE_REFUSED, asker.error());
      return;
    }
    request.refuse(MIGRATE_ERROR,
                   make_error(ErrorCode::kRefused, "resolve", "process " + guest.name(),
                              "it runs here and nothing about it is in doubt"));
  }

  // It was killed at its home while that did not know where it runs.
  void operator()(const EndRequest& /*end*/) const {
    Guest& guest = serving.guest_;
    if (!request.home) {
      request.refuse(MIGRATE_REFUSED,
                     make_error(ErrorCode::kRefused, "end", "process " + guest.name(),
                                "only its home asks for that; kill it"));
      return;
    }
    if (!guest.exited()) {  // Else home hears how by the relay.
      if (const auto may = guest.may_signal_now(); !may) {
        request.refuse(MIGRATE_REFUSED, may.error());
        return;
      }
      guest.report_end(SIGKILL, "it was killed at its home");
      guest.cell()->end();
    }
    request.sink.finish(MIGRATE_DONE, nlohmann::json::object());
  }
};

void GuestServing::on_request(GuestRequest request) {
  std::visit(Answers{*this, request}, std::exchange(request.wanted, WorkerRequest()));
}

void GuestServing::on_resume(std::unique_ptr<ControlChannel> control) {
  guest_.answer_source(std::move(control), !pending_.empty());
}

void GuestServing::on_pages(Purpose purpose, std::unique_ptr<Channel> channel) {
  guest_.pages().take(purpose, std::move(channel));
}

}  // namespace migrate
