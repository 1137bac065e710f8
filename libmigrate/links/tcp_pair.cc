#include "libmigrate/links/tcp_pair.h"

#include <libmnl/libmnl.h>
#include <linux/if.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <thread>
#include <utility>

namespace migrate {
namespace {

constexpr unsigned kLoopback = 1;  // The first interface of every network namespace.
constexpr std::size_t kMessageBytes = 1024;
constexpr int kIpv6Freebind = 78;  // IPV6_FREEBIND, which old headers lack.

// Queues of rtnetlink are answered before send() returns.
Result<void> ask_kernel(int netlink, nlmsghdr* header) {
  header->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
  alignas(nlmsghdr) std::array<std::byte, kMessageBytes> answer{};
  if (::send(netlink, header, header->nlmsg_len, 0) < 0 ||
      ::recv(netlink, answer.data(), answer.size(), 0) < 0) {
    return fail(system_error("set up", "a network namespace"));
  }
  const auto* const error = static_cast<const nlmsgerr*>(
      mnl_nlmsg_get_payload(reinterpret_cast<const nlmsghdr*>(answer.data())));
  if (error->error != 0) {
    return fail(system_error_from(-error->error, "set up", "a network namespace"));
  }
  return {};
}

Result<void> raise_loopback(int netlink) {
  alignas(nlmsghdr) std::array<std::byte, kMessageBytes> buffer{};
  nlmsghdr* const header = mnl_nlmsg_put_header(buffer.data());
  header->nlmsg_type = RTM_NEWLINK;
  auto* const link = static_cast<ifinfomsg*>(mnl_nlmsg_put_extra_header(header, sizeof(ifinfomsg)));
  link->ifi_index = kLoopback;
  link->ifi_flags = IFF_UP;
  link->ifi_change = IFF_UP;
  return ask_kernel(netlink, header);
}

// Every address is one of this namespace.
Result<void> own_all_addresses(int netlink, int family) {
  alignas(nlmsghdr) std::array<std::byte, kMessageBytes> buffer{};
  nlmsghdr* const header = mnl_nlmsg_put_header(buffer.data());
  header->nlmsg_type = RTM_NEWROUTE;
  header->nlmsg_flags = NLM_F_CREATE;
  auto* const route = static_cast<rtmsg*>(mnl_nlmsg_put_extra_header(header, sizeof(rtmsg)));
  route->rtm_family = static_cast<unsigned char>(family);
  route->rtm_table = RT_TABLE_LOCAL;
  route->rtm_protocol = RTPROT_STATIC;
  route->rtm_scope = RT_SCOPE_HOST;
  route->rtm_type = RTN_LOCAL;
  mnl_attr_put_u32(header, RTA_OIF, kLoopback);
  return ask_kernel(netlink, header);
}

Result<void> set_number(int fd, int level, int name, int value) {
  if (::setsockopt(fd, level, name, &value, sizeof(value)) != 0) {
    return fail(system_error("make", "a pair of connected sockets"));
  }
  return {};
}

// Where the sequence numbers of both ends begin. Any will do: nobody else hears of them.
constexpr int kEndBegins = 1'000'000;
constexpr int kMateBegins = 2'000'000;

Result<UniqueFd> connect_alone(const SocketName& from, const SocketName& to, bool only_ipv6,
                               int sends_from, int receives_from) {
  UniqueFd fd(::socket(from.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) {
    return fail(system_error("make", "a socket"));
  }
  const bool is_six = from.family() == AF_INET6;
  const int level = is_six ? IPPROTO_IPV6 : IPPROTO_IP;
  const int freebind = is_six ? kIpv6Freebind : IP_FREEBIND;
  MIGRATE_TRY(set_number(fd.get(), IPPROTO_TCP, TCP_REPAIR, 1));
  if (is_six) {
    MIGRATE_TRY(set_number(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, only_ipv6 ? 1 : 0));
  }
  MIGRATE_TRY(set_number(fd.get(), level, freebind, 1));
  MIGRATE_TRY(set_number(fd.get(), IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE));
  MIGRATE_TRY(set_number(fd.get(), IPPROTO_TCP, TCP_QUEUE_SEQ, sends_from));
  MIGRATE_TRY(set_number(fd.get(), IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE));
  MIGRATE_TRY(set_number(fd.get(), IPPROTO_TCP, TCP_QUEUE_SEQ, receives_from));
  if (::bind(fd.get(), from.address(), from.size()) != 0 ||
      ::connect(fd.get(), to.address(), to.size()) != 0) {
    return fail(system_error("connect", "a pair of sockets"));
  }
  MIGRATE_TRY(set_number(fd.get(), level, freebind, 0));
  constexpr unsigned kMostSegmentBytes = 65'483;  // As TCP over lo finds it.
  constexpr unsigned kScale = 7;
  constexpr unsigned kMaximumSegment = 2;  // The numbers of the options in TCP itself.
  constexpr unsigned kWindowScale = 3;
  constexpr unsigned kSelective = 4;
  std::array<tcp_repair_opt, 3> options{{{kMaximumSegment, kMostSegmentBytes},
                                         {kWindowScale, kScale | (kScale << 16U)},
                                         {kSelective, 0}}};
  if (::setsockopt(fd.get(), IPPROTO_TCP, TCP_REPAIR_OPTIONS, options.data(), sizeof(options)) !=
      0) {
    return fail(system_error("set the options of", "a pair of connected sockets"));
  }
  return fd;
}

Result<tcp_repair_window> window_of(int fd) {
  tcp_repair_window window{};
  socklen_t size = sizeof(window);
  if (::getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, &size) != 0) {
    return fail(system_error("read the window of", "a connection"));
  }
  return window;
}

Result<void> open_window(int fd, const tcp_repair_window& other) {
  tcp_repair_window window = MIGRATE_TRY(window_of(fd));
  window.snd_wnd = other.rcv_wnd;
  window.max_window = other.rcv_wnd;
  window.snd_wl1 = window.rcv_wup;
  if (::setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, sizeof(window)) != 0) {
    return fail(system_error("set the window of", "a connection"));
  }
  return {};
}

Result<TcpPair> make_pair(const TcpPairNames& names) {
  TcpPair pair;
  pair.end =
      MIGRATE_TRY(connect_alone(names.local, names.peer, names.only_ipv6, kEndBegins, kMateBegins));
  pair.mate = MIGRATE_TRY(connect_alone(names.peer, names.local, false, kMateBegins, kEndBegins));
  const tcp_repair_window of_end = MIGRATE_TRY(window_of(pair.end.get()));
  const tcp_repair_window of_mate = MIGRATE_TRY(window_of(pair.mate.get()));
  MIGRATE_TRY(open_window(pair.end.get(), of_mate));
  MIGRATE_TRY(open_window(pair.mate.get(), of_end));
  constexpr int kOffWithoutProbe = -1;  // TCP_REPAIR_OFF_NO_WP
  for (const int fd : {pair.end.get(), pair.mate.get()}) {
    MIGRATE_TRY(set_number(fd, IPPROTO_TCP, TCP_REPAIR, kOffWithoutProbe));
    MIGRATE_TRY(set_number(fd, SOL_SOCKET, SO_REUSEADDR, 0));
  }
  return pair;
}

// Runs in a thread of its own, which is in the namespace until it ends.
Result<void> make_in_namespace(std::span<const TcpPairNames> wanted,
                               std::span<const std::size_t> which, std::span<TcpPair> made) {
  if (::unshare(CLONE_NEWNET) != 0) {
    return fail(system_error("make", "a network namespace"));
  }
  const UniqueFd netlink(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!netlink.valid()) {
    return fail(system_error("open", "NETLINK_ROUTE"));
  }
  MIGRATE_TRY(raise_loopback(netlink.get()));
  MIGRATE_TRY(own_all_addresses(netlink.get(), AF_INET));
  if (std::ranges::any_of(which,
                          [&](std::size_t i) { return wanted[i].local.family() == AF_INET6; })) {
    MIGRATE_TRY(own_all_addresses(netlink.get(), AF_INET6));
  }
  const auto watch = std::make_shared<TcpWatch>(MIGRATE_TRY(TcpWatch::open()));
  for (const std::size_t i : which) {
    made[i] = MIGRATE_TRY(make_pair(wanted[i]));
    made[i].watch = watch;
  }
  return {};
}

// Both ends of one connection may be wanted: these do not go into the same namespace. More
// namespaces than some only somebody wants who means to use up what there is.
Result<std::vector<std::vector<std::size_t>>> share_out(std::span<const TcpPairNames> wanted) {
  constexpr std::size_t kMostSpaces = 16;
  std::vector<std::vector<std::size_t>> spaces;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const auto clashes = [&](std::size_t other) {
      return (wanted[i].local == wanted[other].local && wanted[i].peer == wanted[other].peer) ||
             (wanted[i].local == wanted[other].peer && wanted[i].peer == wanted[other].local);
    };
    const auto space = std::ranges::find_if(
        spaces, [&](const auto& members) { return std::ranges::none_of(members, clashes); });
    if (space == spaces.end() && spaces.size() == kMostSpaces) {
      return fail(make_error(ErrorCode::kInvalid, "make pairs of connected sockets",
                             "too many of the same names"));
    }
    (space == spaces.end() ? spaces.emplace_back() : *space).push_back(i);
  }
  return spaces;
}

}  // namespace

Result<std::vector<TcpPair>> make_tcp_pairs(std::span<const TcpPairNames> wanted) {
  const auto spaces = MIGRATE_TRY(share_out(wanted));
  std::vector<TcpPair> made(wanted.size());
  for (const std::vector<std::size_t>& space : spaces) {
    Result<void> done;
    std::thread([&] { done = make_in_namespace(wanted, space, made); }).join();
    MIGRATE_TRY(std::move(done));
  }
  return made;
}

}  // namespace migrate
