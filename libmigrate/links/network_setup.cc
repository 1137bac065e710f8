#include "libmigrate/links/internal/network_setup.h"

#include <libmnl/libmnl.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>

namespace migrate {
namespace {

constexpr std::size_t kMessageBytes = 1024;
static_assert(NetworkSetup::kLocalTable == RT_TABLE_LOCAL);
static_assert(NetworkSetup::kMainTable == RT_TABLE_MAIN);

// A message that is put together.
struct RouteMessage {
  explicit RouteMessage(unsigned kind, unsigned flags = 0)
      : header(mnl_nlmsg_put_header(bytes.data())) {
    header->nlmsg_type = static_cast<std::uint16_t>(kind);
    header->nlmsg_flags = static_cast<std::uint16_t>(flags | NLM_F_REQUEST | NLM_F_ACK);
  }
  template <class T>
  T& add() {
    return *static_cast<T*>(mnl_nlmsg_put_extra_header(header, sizeof(T)));
  }
  void add_address(std::uint16_t kind, const SocketName& name) const {
    mnl_attr_put(header, kind, name.address_bytes().size(), name.address_bytes().data());
  }

  alignas(nlmsghdr) std::array<std::byte, kMessageBytes> bytes{};
  nlmsghdr* header;
};

// Its first `prefix` bits.
SocketName net_of(const SocketName& name, unsigned prefix) {
  constexpr unsigned kBits = 8;
  std::string address(name.address_bytes());
  for (std::size_t i = 0; i < address.size(); ++i) {
    const std::size_t kept =
        prefix > i * kBits ? std::min<std::size_t>(kBits, prefix - i * kBits) : 0;
    address[i] = static_cast<char>(static_cast<unsigned char>(address[i]) & 0xFF00U >> kept);
  }
  return SocketName::of_address(address, 0);
}

}  // namespace

Result<NetworkSetup> NetworkSetup::open() {
  UniqueFd netlink(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!netlink.valid()) {
    return fail(system_error("open", "NETLINK_ROUTE"));
  }
  return NetworkSetup(std::move(netlink));
}

// Queues of rtnetlink are answered before send() returns.
Result<void> NetworkSetup::ask(nlmsghdr* header) const {
  alignas(nlmsghdr) std::array<std::byte, 2 * kMessageBytes> answer{};
  if (::send(netlink_.get(), header, header->nlmsg_len, 0) < 0 ||
      ::recv(netlink_.get(), answer.data(), answer.size(), 0) < 0) {
    return fail(system_error("set up", "a network namespace"));
  }
  const auto* const error = static_cast<const nlmsgerr*>(
      mnl_nlmsg_get_payload(reinterpret_cast<const nlmsghdr*>(answer.data())));
  if (error->error != 0) {
    return fail(system_error_from(-error->error, "set up", "a network namespace"));
  }
  return {};
}

Result<void> NetworkSetup::raise(unsigned interface, std::uint32_t most_bytes) const {
  RouteMessage message(RTM_NEWLINK);
  auto& link = message.add<ifinfomsg>();
  link.ifi_index = static_cast<int>(interface);
  link.ifi_flags = IFF_UP;
  link.ifi_change = IFF_UP;
  if (most_bytes != 0) {
    mnl_attr_put_u32(message.header, IFLA_MTU, most_bytes);
  }
  return ask(message.header);
}

Result<void> NetworkSetup::own_all_addresses(int family, std::uint32_t table) const {
  RouteMessage message(RTM_NEWROUTE, NLM_F_CREATE);
  auto& route = message.add<rtmsg>();
  route.rtm_family = static_cast<unsigned char>(family);
  route.rtm_table = static_cast<unsigned char>(table);
  route.rtm_protocol = RTPROT_STATIC;
  route.rtm_scope = RT_SCOPE_HOST;
  route.rtm_type = RTN_LOCAL;
  mnl_attr_put_u32(message.header, RTA_OIF, kLoopback);
  return ask(message.header);
}

// One that is there already is as good: a host may have it on two interfaces.
Result<void> NetworkSetup::add_address(unsigned interface, const SocketName& address,
                                       unsigned prefix) const {
  RouteMessage message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
  auto& added = message.add<ifaddrmsg>();
  added.ifa_family = static_cast<unsigned char>(address.family());
  added.ifa_prefixlen = static_cast<unsigned char>(prefix);
  added.ifa_index = interface;
  message.add_address(IFA_LOCAL, address);
  message.add_address(IFA_ADDRESS, address);
  mnl_attr_put_u32(message.header, IFA_FLAGS, IFA_F_NODAD | IFA_F_NOPREFIXROUTE);
  return ask(message.header);
}

// A route that is there already is as good.
Result<void> NetworkSetup::add_route(const Route& wanted) const {
  RouteMessage message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
  auto& route = message.add<rtmsg>();
  route.rtm_family = static_cast<unsigned char>(wanted.to.family());
  route.rtm_dst_len = static_cast<unsigned char>(wanted.prefix);
  route.rtm_table = static_cast<unsigned char>(wanted.table);
  route.rtm_protocol = RTPROT_STATIC;
  route.rtm_scope = wanted.to.family() == AF_INET ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  route.rtm_type = RTN_UNICAST;
  if (wanted.prefix != 0) {
    message.add_address(RTA_DST, net_of(wanted.to, wanted.prefix));
  }
  message.add_address(RTA_PREFSRC, wanted.from);
  mnl_attr_put_u32(message.header, RTA_OIF, wanted.interface);
  return ask(message.header);
}

Result<void> NetworkSetup::change_rule(unsigned kind, unsigned flags, const Rule& rule) const {
  RouteMessage message(kind, flags);
  auto& header = message.add<fib_rule_hdr>();
  header.family = static_cast<unsigned char>(rule.family);
  header.table = static_cast<unsigned char>(rule.table);
  header.action = FR_ACT_TO_TBL;
  mnl_attr_put_u32(message.header, FRA_PRIORITY, rule.priority);
  if (rule.mark != 0) {
    mnl_attr_put_u32(message.header, FRA_FWMARK, rule.mark);
  }
  if (rule.is_outgoing) {
    mnl_attr_put_strz(message.header, FRA_IIFNAME, "lo");
  }
  return ask(message.header);
}

Result<void> NetworkSetup::add_rule(const Rule& rule) const {
  return change_rule(RTM_NEWRULE, NLM_F_CREATE, rule);
}

Result<void> NetworkSetup::remove_rule(const Rule& rule) const {
  return change_rule(RTM_DELRULE, 0, rule);
}

}  // namespace migrate
