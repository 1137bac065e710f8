#include "libmigrate/relay/home_caller.h"

#include <sys/socket.h>

#include <cerrno>
#include <string>
#include <utility>

namespace migrate {
namespace {

constexpr std::size_t kMostCallsOfPlace = 512;

// By the same name somebody else of this host may have the same peer, or may have had it lately:
// which is told only when it connects. At the place, where the name was chosen, nobody has.
Result<AcceptedSocket> begin_call(const MakeSocket& by, const SocketName& local,
                                  const SocketName& peer) {
  auto made = by(SOCK_STREAM, local, &peer);
  if (!made && made.error().sys_errno == EADDRNOTAVAIL && local.port() != 0) {
    return by(SOCK_STREAM, SocketName::of_address(local.address_bytes(), 0), &peer);
  }
  return made;
}

}  // namespace

Result<void> HomeCaller::take(const wire::RelayCall& call) {
  const auto local = SocketName::from_bytes(call.local());
  const auto peer = SocketName::from_bytes(call.peer());
  if (call.number() == 0 || !local || !peer || local->family() != peer->family() ||
      calls_.size() >= kMostCallsOfPlace ||
      !calls_.try_emplace(call.number(), Call{*local, *peer, std::nullopt}).second) {
    return fail(make_error(ErrorCode::kCorrupt, "call for the process",
                           "call " + std::to_string(call.number())));
  }
  return {};
}

void HomeCaller::end(std::uint64_t number) {
  const auto call = calls_.extract(number);
  if (!call.empty() && call.mapped().socket) {
    left_.push_back(call.mapped().socket->descriptor);
  }
}

void HomeCaller::end_all() {
  while (!calls_.empty()) {
    end(calls_.begin()->first);
  }
}

void HomeCaller::collect(std::vector<pollfd>& descriptors) const {
  for (const auto& [number, call] : calls_) {
    if (call.socket) {
      descriptors.push_back({call.socket->real.get(), POLLOUT, 0});
    }
  }
}

// Nothing: it is under way.
std::optional<int> HomeCaller::error_of(const Call& call) {
  pollfd polled{call.socket->real.get(), POLLOUT, 0};
  if (::poll(&polled, 1, 0) <= 0) {
    return std::nullopt;
  }
  int error = 0;
  socklen_t size = sizeof(error);
  return ::getsockopt(polled.fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

std::vector<HomeCaller::Outcome> HomeCaller::pump(const MakeSocket& by) {
  std::vector<Outcome> outcomes;
  for (auto each = calls_.begin(); each != calls_.end();) {
    auto& [number, call] = *each;
    std::optional<int> error;
    if (call.socket) {
      error = error_of(call);
    } else if (auto made = begin_call(by, call.local, call.peer)) {
      call.socket = std::move(*made);
    } else {
      const bool is_later = made.error().code == ErrorCode::kRetry;
      const int why = made.error().sys_errno;
      error = is_later ? EAGAIN : why == 0 ? EHOSTUNREACH : why;
    }
    if (!error) {
      ++each;
      continue;
    }
    Outcome& outcome = outcomes.emplace_back(Outcome{number, {}, *error});
    if (*error == 0) {
      outcome.socket = std::move(*call.socket);
    } else if (call.socket) {
      left_.push_back(call.socket->descriptor);
    }
    each = calls_.erase(each);
  }
  return outcomes;
}

void HomeCaller::add_descriptors(std::set<std::uint32_t>& all) const {
  for (const auto& [number, call] : calls_) {
    if (call.socket) {
      all.insert(call.socket->descriptor);
    }
  }
}

}  // namespace migrate
