// A socket of TCP that is neither connected nor listens, or one of UDP: the process makes it anew,
// in the network that it has there, and it gets its options and its name.
#include "libmigrate/links/open_socket.h"

#include <fcntl.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "libmigrate/carriers/internal/network_socket.h"
#include "libmigrate/carriers/internal/relayed.h"
#include "libmigrate/carriers/internal/socket_options.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/tools.h"

namespace migrate::carriers {
namespace {

constexpr std::size_t kMostDatagramBytes = 65'535;
constexpr std::uint64_t kMostWaitingBytes = 2U << 20U;  // of all sockets
constexpr std::uint64_t kBytesBeside = 128;  // what the image has of a datagram, and more

int kind_of_socket(const wire::OpenSocket& socket) {
  return socket.is_datagram() ? SOCK_DGRAM : SOCK_STREAM;
}

// Memberships in groups, keys (TCP_MD5SIG), filters, and options that each packet is to have: the
// kernel tells how much memory they take together, and of most no more.
bool has_extras(int fd) {
  std::array<std::uint32_t, SK_MEMINFO_VARS> memory{};
  socklen_t size = sizeof(memory);
  return ::getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory.data(), &size) != 0 ||
         memory[SK_MEMINFO_OPTMEM] != 0;
}

bool has_packet_options(int fd) {
  constexpr std::size_t kMostOptions = 40;
  std::array<char, kMostOptions> options{};
  socklen_t size = options.size();
  return ::getsockopt(fd, IPPROTO_IP, IP_OPTIONS, options.data(), &size) == 0 && size > 0;
}

Reason reason_of_open(int fd, bool is_datagram) {
  constexpr int kCork = 1;           // UDP_CORK
  constexpr int kEncapsulate = 100;  // UDP_ENCAP
  if (has_extras(fd) || has_packet_options(fd)) {
    return {"SOCKET_SETTING", "memberships, filters, keys, or options of its packets"};
  }
  if (number_of(fd, IPPROTO_IP, IP_TRANSPARENT) == 1) {
    return {"SOCKET_SETTING", "IP_TRANSPARENT"};
  }
  if (is_datagram && number_of(fd, IPPROTO_UDP, kEncapsulate) > 0) {
    return {"SOCKET_SETTING", "UDP_ENCAP"};
  }
  int unsent = 0;
  if (is_datagram && (number_of(fd, IPPROTO_UDP, kCork) == 1 ||
                      (::ioctl(fd, TIOCOUTQ, &unsent) == 0 && unsent > 0))) {
    return {"SOCKET_UNSENT", {}};
  }
  pollfd polled{fd, POLLRDHUP, 0};
  if (::poll(&polled, 1, 0) > 0 && (polled.revents & POLLRDHUP) != 0) {
    return {"SOCKET_SETTING", "shutdown(2) before it was connected"};
  }
  return {};
}

bool is_local_six(const SocketName& name) {
  return name.family() == AF_INET6 && name.is_loopback();
}

Reason find_name(int fd, wire::OpenSocket& socket) {
  const auto local = SocketName::of(fd);
  if (!local) {
    return {"SOCKET_SETTING", local.error().message()};
  }
  const auto peer = SocketName::of_peer(fd);
  if (local->is_link_local() || (peer && peer->is_link_local())) {
    return {"SOCKET_SETTING", "a link-local address"};
  }
  if (socket.is_datagram() && (is_local_six(*local) || (peer && is_local_six(*peer)))) {
    return {"SOCKET_SETTING", "UDP with ::1, which is another host's elsewhere"};
  }
  if (local->port() != 0 || !local->is_any()) {
    socket.set_local(local->to_bytes());
  }
  if (peer && socket.is_datagram()) {
    socket.set_peer(peer->to_bytes());
  }
  return {};
}

bool describe_open_socket(FindContext& context, const Sighting& seen, int fd,
                          wire::OpenSocket& socket) {
  socket.set_is_datagram(number_of(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_UDP);
  socket.set_domain(static_cast<std::uint32_t>(number_of(fd, SOL_SOCKET, SO_DOMAIN)));
  socket.set_only_ipv6(socket.domain() == AF_INET6 &&
                       number_of(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
  if (const Reason reason = reason_of_open(fd, socket.is_datagram()); !reason.code.empty()) {
    return context.refuse(reason.code, seen, reason.detail);
  }
  if (const Reason reason = find_name(fd, socket); !reason.code.empty()) {
    return context.refuse(reason.code, seen, reason.detail);
  }
  socket.set_content_travels(context.is_guest() && socket.is_datagram() && !socket.local().empty());
  auto options =
      changed_open_options(fd, static_cast<int>(socket.domain()), kind_of_socket(socket));
  if (!options) {
    return context.refuse("SOCKET_SETTING", seen, options.error().message());
  }
  *socket.mutable_options() = std::move(*options);
  struct stat status {};
  if (::fstat(fd, &status) == 0) {
    socket.set_owner(status.st_uid);
    socket.set_group(status.st_gid);
  }
  return true;
}

bool find_open_socket(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  const UniqueFd fd = context.fetch(seen.number);
  wire::OpenSocket socket;
  if (!find_network_socket(context, seen, fd) ||
      !describe_open_socket(context, seen, fd.get(), socket)) {
    return false;
  }
  if (context.objects().open_sockets_size() >= kMostNetworkSockets) {
    return context.refuse("SOCKET_KIND", seen, "too many sockets");
  }
  file.set_position(0);
  file.set_object(static_cast<std::uint64_t>(context.objects().open_sockets_size()));
  *context.objects().add_open_sockets() = std::move(socket);
  return true;
}

// As long as it lives, MSG_PEEK goes from one datagram to the next, and where each was sent to is
// told: nobody sees that, as the process is frozen.
class ReadAlong {
 public:
  ReadAlong(int fd, int family)
      : fd_(fd),
        level_(family == AF_INET ? int{IPPROTO_IP} : int{IPPROTO_IPV6}),
        option_(family == AF_INET ? IP_PKTINFO : IPV6_RECVPKTINFO),
        told_(number_of(fd, level_, option_)),
        offset_(number_of(fd, SOL_SOCKET, SO_PEEK_OFF)) {
    set(level_, option_, 1);
    set(SOL_SOCKET, SO_PEEK_OFF, 0);
  }
  ReadAlong(const ReadAlong&) = delete;
  ReadAlong& operator=(const ReadAlong&) = delete;
  ~ReadAlong() {
    set(SOL_SOCKET, SO_PEEK_OFF, offset_);
    set(level_, option_, told_);
  }

 private:
  void set(int level, int option, int value) const {
    ::setsockopt(fd_, level, option, &value, sizeof(value));
  }

  const int fd_;
  const int level_;
  const int option_;
  const int told_;
  const int offset_;
};

// Where a datagram was sent to; nothing if the kernel has not told.
std::optional<SocketName> destination_of(msghdr& message, std::uint16_t port) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
      in_pktinfo info{};
      std::memcpy(&info, CMSG_DATA(part), sizeof(info));
      return SocketName::of_address(
          {reinterpret_cast<const char*>(&info.ipi_addr), sizeof(info.ipi_addr)}, port);
    }
    if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) {
      in6_pktinfo info{};
      std::memcpy(&info, CMSG_DATA(part), sizeof(info));
      return SocketName::of_address(
                 {reinterpret_cast<const char*>(&info.ipi6_addr), sizeof(info.ipi6_addr)}, port)
          .unmapped();
    }
  }
  return std::nullopt;
}

std::uint64_t waiting_bytes(const wire::Objects& objects) {
  std::uint64_t bytes = 0;
  for (const wire::OpenSocket& socket : objects.open_sockets()) {
    for (const wire::OpenSocket::Datagram& datagram : socket.unread()) {
      bytes += datagram.content().size() + kBytesBeside;
    }
  }
  return bytes;
}

// Copies what waits, and leaves it there: the process may have to go on here.
Result<void> capture_open_socket(CaptureContext& context, std::uint32_t number,
                                 const wire::OpenFile& file) {
  wire::OpenSocket& socket =
      *context.objects().mutable_open_sockets(static_cast<int>(file.object()));
  if (!socket.content_travels() || socket.unread_size() != 0) {
    return {};  // It stays at home; or it was read by another descriptor.
  }
  const UniqueFd fd = MIGRATE_TRY(context.fetch(number));
  const std::uint16_t port = MIGRATE_TRY(SocketName::from_bytes(socket.local())).port();
  const ReadAlong reading(fd.get(), static_cast<int>(socket.domain()));
  const auto room = std::make_unique_for_overwrite<char[]>(kMostDatagramBytes);
  std::uint64_t bytes = waiting_bytes(context.objects());
  for (;;) {
    sockaddr_storage from{};
    alignas(cmsghdr) std::array<char, 512> control{};
    iovec vector{room.get(), kMostDatagramBytes};
    msghdr message{.msg_name = &from,
                   .msg_namelen = sizeof(from),
                   .msg_iov = &vector,
                   .msg_iovlen = 1,
                   .msg_control = control.data(),
                   .msg_controllen = control.size(),
                   .msg_flags = 0};
    const ssize_t count = ::recvmsg(fd.get(), &message, MSG_PEEK | MSG_DONTWAIT);
    if (count < 0) {
      return {};  // An error that waits is told, as any that is lost on its way.
    }
    const auto peer = SocketName::from_bytes(
        {reinterpret_cast<const char*>(&from), static_cast<std::size_t>(message.msg_namelen)});
    const auto local = destination_of(message, port);
    bytes += static_cast<std::uint64_t>(count) + kBytesBeside;
    if (bytes > kMostWaitingBytes) {
      return fail(make_error(ErrorCode::kRefused, "carry sockets of UDP",
                             std::to_string(bytes) + " unread bytes in all",
                             "try again when the program has read them"));
    }
    if (peer && local) {
      wire::OpenSocket::Datagram& datagram = *socket.add_unread();
      datagram.set_local(local->to_bytes());
      datagram.set_peer(peer->unmapped().to_bytes());
      datagram.set_content(room.get(), static_cast<std::size_t>(count));
    }
  }
}

bool is_sound(const wire::OpenSocket::Datagram& datagram) {
  const auto local = SocketName::from_bytes(datagram.local());
  const auto peer = SocketName::from_bytes(datagram.peer());
  return local && peer && local->family() == peer->family() &&
         datagram.content().size() <= kMostDatagramBytes;
}

const char* flaw_of_open_socket(const wire::Objects& objects, const wire::OpenFile& file) {
  if (file.object() >= static_cast<std::uint64_t>(objects.open_sockets_size()) ||
      objects.open_sockets_size() > kMostNetworkSockets) {
    return "socket of files";
  }
  const wire::OpenSocket& socket = objects.open_sockets(static_cast<int>(file.object()));
  if (socket.domain() != AF_INET && socket.domain() != AF_INET6) {
    return "domain of open_sockets";
  }
  for (const std::string* const bytes : {&socket.local(), &socket.peer()}) {
    const auto name = SocketName::from_bytes(*bytes);
    if (!bytes->empty() && (!name || name->family() != static_cast<int>(socket.domain()))) {
      return "name of open_sockets";
    }
  }
  if (!socket.peer().empty() && (socket.local().empty() || !socket.is_datagram())) {
    return "peer of open_sockets";
  }
  if (waiting_bytes(objects) > kMostWaitingBytes ||
      !std::ranges::all_of(socket.unread(), is_sound)) {
    return "what waits in open_sockets";
  }
  return are_sound(socket.options()) ? nullptr : "options of open_sockets";
}

std::size_t create_open_socket(Script& script, const wire::Objects& objects,
                               const wire::OpenFile& file) {
  const wire::OpenSocket& socket = objects.open_sockets(static_cast<int>(file.object()));
  return script.must(
      "make a socket", SYS_socket,
      {socket.domain(), static_cast<std::uint64_t>(kind_of_socket(socket) | SOCK_CLOEXEC), 0});
}

Result<UniqueFd> make_open_socket(MakeContext& context, const wire::OpenFile& file) {
  const wire::OpenSocket& socket = context.objects().open_sockets(static_cast<int>(file.object()));
  UniqueFd made = context.created();
  const int only_ipv6 = socket.only_ipv6() ? 1 : 0;
  if (socket.domain() == AF_INET6 &&
      ::setsockopt(made.get(), IPPROTO_IPV6, IPV6_V6ONLY, &only_ipv6, sizeof(only_ipv6)) != 0) {
    return fail(system_error("set a socket option", "IPV6_V6ONLY"));
  }
  MIGRATE_TRY(set_options(made.get(), socket.options()));
  if (!socket.local().empty()) {
    MIGRATE_TRY(give_name(made.get(), MIGRATE_TRY(SocketName::from_bytes(socket.local()))));
  }
  if (!socket.peer().empty()) {
    const SocketName peer = MIGRATE_TRY(SocketName::from_bytes(socket.peer()));
    if (::connect(made.get(), peer.address(), peer.size()) != 0) {
      return fail(system_error("connect a socket of UDP to", peer.to_string()));
    }
  }
  static_cast<void>(::fchown(made.get(), socket.owner(), socket.group()));
  MIGRATE_TRY(set_flags(made.get(), file.flags()));
  return made;
}

}  // namespace

constinit const Carrier kOpenSocket{
    .kind = wire::OpenFile::OPEN_SOCKET,
    .name = "open socket",
    .claims_link =
        [](const FindContext& context, const Sighting& seen) {
          return is_of_network(context, seen) && is_open_socket(context, seen);
        },
    .find = find_open_socket,
    .has_state = [](const wire::OpenFile& /*file*/) { return true; },
    .capture = capture_open_socket,
    .most_content_bytes =
        [](const wire::Objects& objects) {
          return std::ranges::any_of(objects.open_sockets(), &wire::OpenSocket::content_travels)
                     ? kMostWaitingBytes
                     : 0;
        },
    .flaw = flaw_of_open_socket,
    .create = create_open_socket,
    .make = make_open_socket,
};

}  // namespace migrate::carriers
