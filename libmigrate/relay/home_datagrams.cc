#include "libmigrate/relay/home_datagrams.h"

#include <linux/errqueue.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/log.h"

namespace migrate {
namespace {

constexpr std::size_t kMostSockets = 128;
constexpr int kDatagramsPerTurn = 64;
constexpr std::size_t kMostDatagramBytes = 65'535;
constexpr std::size_t kMostBytesWaiting = std::size_t{4} << 20U;
constexpr std::chrono::minutes kIdleTime{5};
// Whom a socket has sent to is known of so many; whether others may answer, rules say.
constexpr std::size_t kMostAnswering = 1024;
// Several in one, which the process's own kernel does: UDP_SEGMENT, UDP_GRO.
constexpr int kSegment = 103;
constexpr int kCoalesce = 104;

void tell_unreachable(const std::string& local, const std::string& peer, int error, Link& link) {
  if (local.empty()) {
    return;
  }
  wire::RelayMessage message;
  wire::RelayUnreachable& unreachable = *message.mutable_unreachable();
  unreachable.set_local(local);
  unreachable.set_peer(peer);
  unreachable.set_error(static_cast<std::uint32_t>(error));
  link.send(message);
}

// What the kernel says beside a datagram, or beside what became of one.
struct Beside {
  int error = 0;
  SocketName to;  // the address of this host that it came to, without a port; or none
};

Beside read_beside(msghdr& message) {
  Beside beside;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    const bool is_four = part->cmsg_level == IPPROTO_IP;
    if ((is_four && part->cmsg_type == IP_RECVERR) ||
        (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_RECVERR)) {
      beside.error =
          static_cast<int>(reinterpret_cast<sock_extended_err*>(CMSG_DATA(part))->ee_errno);
    } else if (is_four && part->cmsg_type == IP_PKTINFO) {
      in_pktinfo info{};
      std::memcpy(&info, CMSG_DATA(part), sizeof(info));
      beside.to = SocketName::of_address(
          {reinterpret_cast<const char*>(&info.ipi_addr), sizeof(info.ipi_addr)}, 0);
    } else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) {
      in6_pktinfo info{};
      std::memcpy(&info, CMSG_DATA(part), sizeof(info));
      beside.to = SocketName::of_address(
          {reinterpret_cast<const char*>(&info.ipi6_addr), sizeof(info.ipi6_addr)}, 0);
    }
  }
  return beside;
}

// The name by which the process has got it, or sent it.
SocketName local_of(const SocketName& name, const Beside& beside, const SocketName& usual) {
  if (!name.is_any()) {
    return name;
  }
  return beside.to == SocketName()
             ? usual
             : SocketName::of_address(beside.to.address_bytes(), name.port()).unmapped();
}

void set_yes(int fd, int level, int option) {
  const int yes = 1;
  ::setsockopt(fd, level, option, &yes, sizeof(yes));
}

// Adds the address from which it is to be sent.
void put_sender(const SocketName& sender, bool is_of_four, msghdr& message, cmsghdr* part) {
  message.msg_control = part;
  part->cmsg_level = is_of_four ? IPPROTO_IP : IPPROTO_IPV6;
  part->cmsg_type = is_of_four ? IP_PKTINFO : IPV6_PKTINFO;
  if (is_of_four) {
    in_pktinfo info{};
    std::memcpy(&info.ipi_spec_dst, sender.address_bytes().data(), sizeof(info.ipi_spec_dst));
    part->cmsg_len = CMSG_LEN(sizeof(info));
    message.msg_controllen = CMSG_SPACE(sizeof(info));
    std::memcpy(CMSG_DATA(part), &info, sizeof(info));
  } else {
    in6_pktinfo info{};
    const SocketName six = sender.mapped();
    std::memcpy(&info.ipi6_addr, six.address_bytes().data(), sizeof(info.ipi6_addr));
    part->cmsg_len = CMSG_LEN(sizeof(info));
    message.msg_controllen = CMSG_SPACE(sizeof(info));
    std::memcpy(CMSG_DATA(part), &info, sizeof(info));
  }
}

// From the socket of `name`, in the place of `sender`.
ssize_t send_from(int fd, const SocketName& name, const SocketName& sender, const SocketName& peer,
                  const std::string& content) {
  const bool is_of_four = name.family() == AF_INET;
  const SocketName to = is_of_four ? peer : peer.mapped();
  alignas(cmsghdr) std::array<char, 64> control{};
  iovec vector{const_cast<char*>(content.data()), content.size()};
  msghdr message{};
  message.msg_name = const_cast<sockaddr*>(to.address());
  message.msg_namelen = to.size();
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (name.is_any()) {
    put_sender(sender, is_of_four, message, reinterpret_cast<cmsghdr*>(control.data()));
  }
  return ::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

// Has the kernel tell of errors, and where something came to.
void prepare(int fd, const SocketName& name) {
  const bool is_of_four = name.family() == AF_INET;
  set_yes(fd, is_of_four ? int{IPPROTO_IP} : int{IPPROTO_IPV6},
          is_of_four ? IP_RECVERR : IPV6_RECVERR);
  if (name.is_any()) {
    set_yes(fd, is_of_four ? int{IPPROTO_IP} : int{IPPROTO_IPV6},
            is_of_four ? IP_PKTINFO : IPV6_RECVPKTINFO);
  }
}

bool takes_four(int fd) {
  int only_six = 1;
  socklen_t size = sizeof(only_six);
  return ::getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_six, &size) == 0 && only_six == 0;
}

// What recvmsg(2) fills.
struct Arrived {
  Arrived() {
    message.msg_name = &name;
    message.msg_namelen = sizeof(name);
    message.msg_control = control.data();
    message.msg_controllen = control.size();
  }
  Arrived(const Arrived&) = delete;
  Arrived& operator=(const Arrived&) = delete;

  /// Who is at the other end of it.
  std::optional<SocketName> other() const {
    const auto bytes = SocketName::from_bytes(
        {reinterpret_cast<const char*>(&name), static_cast<std::size_t>(message.msg_namelen)});
    return bytes ? std::optional(bytes->unmapped()) : std::nullopt;
  }

  sockaddr_storage name{};
  alignas(cmsghdr) std::array<char, 512> control{};
  msghdr message{};
};

}  // namespace

void HomeDatagrams::keep(std::vector<KeptDatagrams> kept) {
  for (KeptDatagrams& each : kept) {
    Socket& socket = sockets_.emplace_back();
    socket.name = each.name.unmapped();
    socket.real = std::move(each.real);
    socket.descriptors = std::move(each.descriptors);
    socket.was_had_at_home = true;
    if (const auto peer = SocketName::of_peer(socket.real.get())) {
      socket.peer = peer->unmapped();
    }
    for (const int option : {kSegment, kCoalesce}) {
      const int no = 0;
      ::setsockopt(socket.real.get(), IPPROTO_UDP, option, &no, sizeof(no));
    }
    prepare(socket.real.get(), socket.name);
  }
}

// One for all addresses, if there is none for this.
HomeDatagrams::Socket* HomeDatagrams::find(const SocketName& local) {
  Socket* of_all = nullptr;
  for (Socket& socket : sockets_) {
    if (socket.name == local) {
      return &socket;
    }
    const bool is_of_family = socket.name.family() == local.family() ||
                              (socket.name.family() == AF_INET6 && takes_four(socket.real.get()));
    if (socket.name.is_any() && socket.name.port() == local.port() && is_of_family) {
      of_all = &socket;
    }
  }
  return of_all;
}

Result<HomeDatagrams::Socket*> HomeDatagrams::make(const SocketName& local, const MakeSocket& by) {
  if (made_ >= kMostSockets) {
    close_oldest();
  }
  AcceptedSocket made = MIGRATE_TRY(by(SOCK_DGRAM, local, nullptr));
  Socket& socket = sockets_.emplace_back();
  ++made_;
  socket.name = local;
  socket.real = std::move(made.real);
  socket.descriptors = {made.descriptor};
  socket.used = std::chrono::steady_clock::now();
  prepare(socket.real.get(), local);
  return &socket;
}

// The process may have connected its socket to another since: which of the two it hears is seen
// there. The kernel takes the name away with the peer if it had given it.
void HomeDatagrams::hear_all(Socket& socket) {
  const int fd = socket.real.get();
  int domain = AF_INET;
  socklen_t size = sizeof(domain);
  const sockaddr nobody{.sa_family = AF_UNSPEC, .sa_data = {}};
  ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
  const SocketName name = domain == AF_INET6 ? socket.name.mapped() : socket.name;
  const bool is_free = ::connect(fd, &nobody, sizeof(nobody)) == 0;
  const auto left = SocketName::of(fd);
  if (!is_free || (left && left->port() == 0 && ::bind(fd, name.address(), name.size()) != 0)) {
    log::warn("{}", system_error("disconnect", socket.name.to_string()).message());
  }
  socket.peer.reset();
}

void HomeDatagrams::leave(const Socket& socket) {
  left_.insert(left_.end(), socket.descriptors.begin(), socket.descriptors.end());
  made_ -= socket.was_had_at_home ? 0 : 1;
}

// Of those that were made here, of which there are some.
void HomeDatagrams::close_oldest() {
  auto oldest = sockets_.end();
  for (auto each = sockets_.begin(); each != sockets_.end(); ++each) {
    if (!each->was_had_at_home && (oldest == sockets_.end() || each->used < oldest->used)) {
      oldest = each;
    }
  }
  if (oldest != sockets_.end()) {
    leave(*oldest);
    sockets_.erase(oldest);
  }
}

Result<void> HomeDatagrams::follow(const wire::RelayBound& bound, const MakeSocket& by) {
  std::set<SocketName> names;
  for (const std::string& bytes : bound.names()) {
    const auto name = SocketName::from_bytes(bytes);
    if (!name || name->port() == 0 || names.size() >= kMostDatagramNames) {
      return fail(make_error(ErrorCode::kCorrupt, "follow sockets of UDP", "their names"));
    }
    names.insert(name->unmapped());
  }
  std::erase_if(sockets_, [&](Socket& socket) {
    const bool was_had = std::exchange(socket.is_had, names.contains(socket.name));
    const bool is_over = !socket.is_had && (was_had || socket.was_had_at_home);
    if (is_over) {
      leave(socket);
    }
    return is_over;
  });
  for (const Socket& socket : sockets_) {
    names.erase(socket.name);
  }
  for (const SocketName& name : names) {
    const auto made = made_ < kMostSockets ? make(name, by) : Result<Socket*>(nullptr);
    if (!made) {
      log::debug("{}", made.error().message());
    } else if (*made != nullptr) {
      (*made)->is_had = true;
    }
  }
  return {};
}

Result<void> HomeDatagrams::send(const wire::RelayDatagram& datagram, const MakeSocket& by,
                                 Link& link) {
  const auto local = SocketName::from_bytes(datagram.local());
  const auto peer = SocketName::from_bytes(datagram.peer());
  if (!local || !peer || local->family() != peer->family()) {
    return fail(make_error(ErrorCode::kCorrupt, "send a datagram", "names of a socket"));
  }
  if (!lets_(true, *local, *peer)) {
    tell_unreachable(datagram.local(), datagram.peer(), EACCES, link);
    return {};
  }
  Socket* socket = find(*local);
  if (socket == nullptr) {
    const auto made = make(*local, by);
    if (!made) {
      log::debug("{}", made.error().message());
      return {};
    }
    socket = *made;
  }
  socket->used = std::chrono::steady_clock::now();
  socket->sender = *local;
  if (socket->sent_to.size() < kMostAnswering) {
    socket->sent_to.insert(peer->unmapped());
  }
  if (socket->peer && socket->peer != *peer) {
    hear_all(*socket);
  }
  // An earlier one's error is told by the first call after it, and is in the queue of errors, too.
  constexpr int kTries = 2;
  for (int tried = 0; tried < kTries; ++tried) {
    const ssize_t sent =
        send_from(socket->real.get(), socket->name, *local, *peer, datagram.content());
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
  for (const Socket& socket : sockets_) {
    descriptors.push_back({socket.real.get(), events, 0});
  }
}

void HomeDatagrams::pump(Link& link) {
  for (Socket& socket : sockets_) {
    tell_earlier_error(socket, link);
    receive_errors(socket, link);
    receive(socket, link);
  }
}

void HomeDatagrams::tell_earlier_error(Socket& socket, Link& link) {
  int error = 0;
  socklen_t size = sizeof(error);
  if (!socket.was_had_at_home || std::exchange(socket.was_asked, true)) {
    return;
  }
  if (socket.peer && ::getsockopt(socket.real.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0 &&
      error != 0) {
    tell_unreachable(socket.name.to_bytes(), socket.peer->to_bytes(), error, link);
  }
}

void HomeDatagrams::receive(Socket& socket, Link& link) const {
  const auto room = std::make_unique_for_overwrite<char[]>(kMostDatagramBytes);
  for (int i = 0; i < kDatagramsPerTurn && link.queued_bytes() < kMostBytesWaiting; ++i) {
    Arrived arrived;
    iovec vector{room.get(), kMostDatagramBytes};
    arrived.message.msg_iov = &vector;
    arrived.message.msg_iovlen = 1;
    const ssize_t count = ::recvmsg(socket.real.get(), &arrived.message, MSG_DONTWAIT);
    if (count < 0) {
      return;
    }
    socket.used = std::chrono::steady_clock::now();
    const auto from = arrived.other();
    const SocketName local = local_of(socket.name, read_beside(arrived.message), {});
    if (!from || local == SocketName() ||
        (socket.peer != *from && !socket.sent_to.contains(*from) && !lets_(false, local, *from))) {
      continue;
    }
    wire::RelayMessage message;
    wire::RelayDatagram& datagram = *message.mutable_datagram();
    datagram.set_local(local.to_bytes());
    datagram.set_peer(from->to_bytes());
    datagram.set_content(room.get(), static_cast<std::size_t>(count));
    link.send(message);
  }
}

void HomeDatagrams::receive_errors(const Socket& socket, Link& link) {
  for (int i = 0; i < kDatagramsPerTurn; ++i) {
    Arrived arrived;
    if (::recvmsg(socket.real.get(), &arrived.message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
      return;
    }
    const Beside beside = read_beside(arrived.message);
    const auto to = arrived.other();
    if (beside.error != 0 && to) {
      tell_unreachable(local_of(socket.name, beside, socket.sender).to_bytes(), to->to_bytes(),
                       beside.error, link);
    }
  }
}

void HomeDatagrams::forget_idle() {
  const auto now = std::chrono::steady_clock::now();
  std::erase_if(sockets_, [&](const Socket& socket) {
    const bool is_idle = !socket.was_had_at_home && !socket.is_had && now - socket.used > kIdleTime;
    if (is_idle) {
      leave(socket);
    }
    return is_idle;
  });
}

void HomeDatagrams::add_descriptors(std::set<std::uint32_t>& all) const {
  for (const Socket& socket : sockets_) {
    all.insert(socket.descriptors.begin(), socket.descriptors.end());
  }
}

}  // namespace migrate
