#include "libmigrate/relay/home_datagrams.h"

#include <linux/errqueue.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <utility>

#include "base/log.h"

namespace migrate {
namespace {

constexpr std::size_t kMostSockets = 128;
constexpr int kDatagramsPerTurn = 64;
constexpr std::size_t kMostDatagramBytes = 65'535;
constexpr std::size_t kMostBytesWaiting = std::size_t{4} << 20U;
constexpr std::chrono::minutes kIdleTime{5};

void tell_unreachable(const std::string& local, const std::string& peer, int error, Link& link) {
  wire::RelayMessage message;
  wire::RelayUnreachable& unreachable = *message.mutable_unreachable();
  unreachable.set_local(local);
  unreachable.set_peer(peer);
  unreachable.set_error(static_cast<std::uint32_t>(error));
  link.send(message);
}

// The error of a datagram that was sent, of those that a queue of errors holds.
int error_in(msghdr& message) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    const bool is_error = (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_RECVERR) ||
                          (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_RECVERR);
    if (is_error) {
      return static_cast<int>(reinterpret_cast<sock_extended_err*>(CMSG_DATA(part))->ee_errno);
    }
  }
  return 0;
}

}  // namespace

Result<HomeDatagrams::Socket*> HomeDatagrams::find(const SocketName& local, const MakeSocket& by) {
  const auto known = sockets_.find(local.to_bytes());
  if (known != sockets_.end()) {
    return &known->second;
  }
  if (sockets_.size() >= kMostSockets) {
    close_oldest();
  }
  Socket socket{MIGRATE_TRY(by(SOCK_DGRAM, local, nullptr)), {}};
  const int yes = 1;
  const bool is_four = local.family() == AF_INET;
  ::setsockopt(socket.made.real.get(), is_four ? int{IPPROTO_IP} : int{IPPROTO_IPV6},
               is_four ? IP_RECVERR : IPV6_RECVERR, &yes, sizeof(yes));
  return &sockets_.try_emplace(local.to_bytes(), std::move(socket)).first->second;
}

void HomeDatagrams::close_oldest() {
  const auto oldest =
      std::ranges::min_element(sockets_, {}, [](const auto& each) { return each.second.used; });
  left_.push_back(oldest->second.made.descriptor);
  sockets_.erase(oldest);
}

Result<void> HomeDatagrams::send(const wire::RelayDatagram& datagram, const MakeSocket& by,
                                 Link& link) {
  const auto local = SocketName::from_bytes(datagram.local());
  const auto peer = SocketName::from_bytes(datagram.peer());
  if (!local || !peer || local->family() != peer->family()) {
    return fail(make_error(ErrorCode::kCorrupt, "send a datagram", "names of a socket"));
  }
  const auto found = find(*local, by);
  if (!found) {
    log::debug("{}", found.error().message());
    return {};
  }
  Socket& socket = **found;
  socket.used = std::chrono::steady_clock::now();
  // An earlier one's error is told by the first call after it, and is in the queue of errors, too.
  constexpr int kTries = 2;
  for (int tried = 0; tried < kTries; ++tried) {
    const ssize_t sent =
        ::sendto(socket.made.real.get(), datagram.content().data(), datagram.content().size(),
                 MSG_DONTWAIT | MSG_NOSIGNAL, peer->address(), peer->size());
    if (sent >= 0 || errno == EAGAIN || errno == ENOBUFS) {
      return {};
    }
    if (errno != ECONNREFUSED && tried + 1 == kTries) {
      tell_unreachable(datagram.local(), datagram.peer(), errno, link);
    }
  }
  return {};
}

// Of what waits nothing is read while the link has enough to do, but errors are.
void HomeDatagrams::collect(std::vector<pollfd>& descriptors, const Link& link) const {
  const short events = link.queued_bytes() < kMostBytesWaiting ? short{POLLIN} : short{0};
  for (const auto& [local, socket] : sockets_) {
    descriptors.push_back({socket.made.real.get(), events, 0});
  }
}

void HomeDatagrams::pump(Link& link) {
  for (auto& [local, socket] : sockets_) {
    receive_errors(local, socket, link);
    receive(local, socket, link);
  }
}

void HomeDatagrams::receive(const std::string& local, Socket& socket, Link& link) {
  const auto room = std::make_unique_for_overwrite<char[]>(kMostDatagramBytes);
  for (int i = 0; i < kDatagramsPerTurn && link.queued_bytes() < kMostBytesWaiting; ++i) {
    sockaddr_storage from{};
    socklen_t size = sizeof(from);
    const ssize_t count = ::recvfrom(socket.made.real.get(), room.get(), kMostDatagramBytes,
                                     MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&from), &size);
    if (count < 0) {
      return;
    }
    socket.used = std::chrono::steady_clock::now();
    wire::RelayMessage message;
    wire::RelayDatagram& datagram = *message.mutable_datagram();
    datagram.set_local(local);
    datagram.set_peer(&from, size);
    datagram.set_content(room.get(), static_cast<std::size_t>(count));
    link.send(message);
  }
}

void HomeDatagrams::receive_errors(const std::string& local, const Socket& socket, Link& link) {
  for (int i = 0; i < kDatagramsPerTurn; ++i) {
    sockaddr_storage to{};
    std::array<char, 512> control{};
    msghdr message{};
    message.msg_name = &to;
    message.msg_namelen = sizeof(to);
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    if (::recvmsg(socket.made.real.get(), &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
      return;
    }
    if (const int error = error_in(message); error != 0) {
      tell_unreachable(local, {reinterpret_cast<const char*>(&to), message.msg_namelen}, error,
                       link);
    }
  }
}

void HomeDatagrams::forget_idle() {
  const auto now = std::chrono::steady_clock::now();
  std::erase_if(sockets_, [&](const auto& each) {
    const bool is_idle = now - each.second.used > kIdleTime;
    if (is_idle) {
      left_.push_back(each.second.made.descriptor);
    }
    return is_idle;
  });
}

void HomeDatagrams::add_descriptors(std::set<std::uint32_t>& all) const {
  for (const auto& [local, socket] : sockets_) {
    all.insert(socket.made.descriptor);
  }
}

}  // namespace migrate
