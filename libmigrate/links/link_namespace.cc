#include "libmigrate/links/internal/link_namespace.h"

#include <libmnl/libmnl.h>
#include <linux/if.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cstddef>

#include "base/unique_fd.h"

namespace migrate {
namespace {

constexpr unsigned kLoopback = 1;  // The first interface of every network namespace.
constexpr std::size_t kMessageBytes = 1024;

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

}  // namespace

Result<void> enter_link_namespace(bool with_ipv6) {
  if (::unshare(CLONE_NEWNET) != 0) {
    return fail(system_error("make", "a network namespace"));
  }
  const UniqueFd netlink(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!netlink.valid()) {
    return fail(system_error("open", "NETLINK_ROUTE"));
  }
  MIGRATE_TRY(raise_loopback(netlink.get()));
  MIGRATE_TRY(own_all_addresses(netlink.get(), AF_INET));
  return with_ipv6 ? own_all_addresses(netlink.get(), AF_INET6) : Result<void>();
}

Result<UniqueFd> namespace_of(int socket) {
  constexpr int kGetNamespace = 0x894C;  // SIOCGSKNS
  UniqueFd space(::ioctl(socket, kGetNamespace));
  if (!space.valid()) {
    return fail(system_error("find the network namespace of", "a socket"));
  }
  return space;
}

Result<void> set_number(int fd, int level, int name, int value) {
  if (::setsockopt(fd, level, name, &value, sizeof(value)) != 0) {
    return fail(system_error("set up", "a socket of TCP"));
  }
  return {};
}

Result<void> let_bind_anywhere(int fd, int family, bool may) {
  constexpr int kIpv6Freebind = 78;  // IPV6_FREEBIND, which old headers lack.
  return family == AF_INET6 ? set_number(fd, IPPROTO_IPV6, kIpv6Freebind, may ? 1 : 0)
                            : set_number(fd, IPPROTO_IP, IP_FREEBIND, may ? 1 : 0);
}

}  // namespace migrate
