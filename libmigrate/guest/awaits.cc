#include "libmigrate/guest/awaits.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace migrate {
namespace {

constexpr int kDataTimeoutMs = 10'000;
constexpr int kListenTimeoutMs = 2 * kPageConnectMs + 5000;  // Two connections of a source.
constexpr int kRunTimeoutMs = 60'000;
constexpr int kSilenceMs = 60'000;
constexpr int kStagingLookMs = 100;
constexpr const char* kAwaitFinal = "await the image of a process";
constexpr const char* kAwaitConnections = "await the source's connections";

}  // namespace

Awaiting::Awaiting(ControlChannel& control, GuestPages& pages, EarlyLetters& early, int timeout_ms,
                   std::function<std::int64_t()> clock)
    : control_(control),
      pages_(pages),
      early_(early),
      clock_(std::move(clock)),
      deadline_us_(clock_() + std::int64_t{timeout_ms} * 1000) {}

int Awaiting::collect_poll_fds(std::vector<pollfd>& polled) {
  polled.push_back({control_.channel().poll_fd(), POLLIN, 0});
  polled.push_back({pages_.listener_fd(), POLLIN, 0});
  return static_cast<int>(std::max<std::int64_t>(left_us() / 1000 + 1, 0));
}

void Awaiting::on_letter(Letter letter) {
  if (is_request(letter)) {
    early_.add(std::move(letter));
    return;
  }
  switch (letter.preamble->purpose) {
    case Purpose::kUrgent:
    case Purpose::kBulk:
      pages_.take(letter.preamble->purpose, std::move(letter.channel));
      break;
    case Purpose::kResume:
      on_resume();
      break;
    default:
      log::warn("closed a connection that is not for an arrival");
  }
}

AwaitConnections::AwaitConnections(ControlChannel& control, GuestPages& pages, EarlyLetters& early,
                                   std::function<std::int64_t()> clock)
    : Awaiting(control, pages, early, pages.listens() ? kListenTimeoutMs : kDataTimeoutMs,
               std::move(clock)) {}

bool AwaitConnections::step() {
  const auto more = look();
  if (!more) {
    outcome_ = fail(more.error());
  }
  return more && *more;
}

// True: they are not all there.
Result<bool> AwaitConnections::look() {
  if (pages().listens()) {
    pages().accept();
  }
  if (pages().linked()) {
    return false;
  }
  // The source says nothing meanwhile, unless it closes the connection.
  if (MIGRATE_TRY(control().try_receive())) {
    return fail(
        make_error(ErrorCode::kCorrupt, kAwaitConnections, {}, "it sent a message instead"));
  }
  if (left_us() < 0) {
    return fail(make_error(ErrorCode::kRetry, kAwaitConnections, {}, "they did not come in time"));
  }
  return true;
}

void AwaitConnections::on_resume() {
  log::warn("closed a connection that would resume a process that has not run here");
}

AwaitFinal::AwaitFinal(ControlChannel& control, GuestPages& pages, EarlyLetters& early,
                       std::function<std::int64_t()> clock)
    : Awaiting(control, pages, early, kSilenceMs, std::move(clock)) {}

// What comes over the bulk connection is a thread's, which is looked after.
int AwaitFinal::collect_poll_fds(std::vector<pollfd>& polled) {
  static_cast<void>(Awaiting::collect_poll_fds(polled));
  return kStagingLookMs;
}

bool AwaitFinal::step() {
  const auto more = look();
  if (!more) {
    outcome_ = fail(more.error());
  }
  return more && *more;
}

Result<bool> AwaitFinal::look() {
  auto message = MIGRATE_TRY(control().try_receive());
  if (message && message->has_final()) {
    outcome_ = std::move(*message->mutable_final());
    return false;
  }
  if (message && message->has_failed()) {
    return fail(make_error(ErrorCode::kRefused, kAwaitFinal, {}, message->failed().reason()));
  }
  if (message) {
    return fail(make_error(ErrorCode::kCorrupt, kAwaitFinal, {}, "the source sent something else"));
  }
  MIGRATE_TRY(pages().staging()->check());
  if (pages().staging()->silent_ms() > kSilenceMs) {
    return fail(make_error(ErrorCode::kRetry, kAwaitFinal, {}, "the source says nothing"));
  }
  return true;
}

void AwaitFinal::on_resume() {
  log::warn("closed a connection that would resume a process that has not run here");
}

AwaitRun::AwaitRun(ControlChannel& control, GuestPages& pages, EarlyLetters& early,
                   std::string name, std::function<std::int64_t()> clock)
    : Awaiting(control, pages, early, kRunTimeoutMs, std::move(clock)), name_(std::move(name)) {}

bool AwaitRun::step() {
  const auto more = look();
  if (!more) {
    outcome_ = fail(more.error());
  }
  return more && *more;
}

Result<bool> AwaitRun::look() {
  auto message = MIGRATE_TRY(control().try_receive());
  if (message && message->has_run()) {
    outcome_ = std::move(*message->mutable_run());
    return false;
  }
  if (message && message->has_failed()) {
    return fail(make_error(ErrorCode::kRefused, "wait to be told to run", "process " + name_,
                           message->failed().reason()));
  }
  if (message) {
    return fail(make_error(ErrorCode::kCorrupt, "wait to be told to run", "process " + name_,
                           "the source sent something else"));
  }
  if (came_again_) {
    return fail(make_error(ErrorCode::kPeerLost, "wait to be told to run", "process " + name_));
  }
  if (left_us() < 0) {
    return fail(make_error(ErrorCode::kRetry, "wait to be told to run", "process " + name_,
                           "the source did not say so in time"));
  }
  return true;
}

// A source that comes again before Run was read has lost the connection on which Run would come.
void AwaitRun::on_resume() {
  came_again_ = true;
}

}  // namespace migrate
