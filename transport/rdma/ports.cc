#include <arpa/inet.h>
#include <infiniband/verbs.h>

#include <algorithm>
#include <array>
#include <memory>
#include <set>

#include "transport/rdma.h"
#include "transport/rdma/handles.h"

namespace migrate {
namespace {

using rdma::Handle;

const char* transport_name(const ibv_device& device, const ibv_port_attr& port) {
  if (device.transport_type == IBV_TRANSPORT_IWARP) {
    return "iWARP";
  }
  return port.link_layer == IBV_LINK_LAYER_ETHERNET ? "RoCE" : "InfiniBand";
}

/// The IP addresses among the GIDs of a port, IPv4 in its own form.
std::vector<std::string> addresses_of(ibv_context* context, int number, int gid_count) {
  std::set<std::string> found;
  for (int index = 0; index < gid_count; ++index) {
    ibv_gid gid{};
    if (::ibv_query_gid(context, static_cast<std::uint8_t>(number), index, &gid) != 0) {
      continue;
    }
    in6_addr address{};
    std::copy(std::begin(gid.raw), std::end(gid.raw), std::begin(address.s6_addr));
    if (IN6_IS_ADDR_UNSPECIFIED(&address)) {
      continue;
    }
    std::array<char, INET6_ADDRSTRLEN> text{};
    const bool v4 = IN6_IS_ADDR_V4MAPPED(&address);
    ::inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? &address.s6_addr[12] : &address.s6_addr[0],
                text.data(), text.size());
    found.insert(text.data());
  }
  return {found.begin(), found.end()};
}

Result<void> add_ports(ibv_device* device, std::vector<PagePort>& ports) {
  const Handle<ibv_context> context(::ibv_open_device(device));
  if (!context) {
    return fail(system_error("open RDMA device", device->name,
                             "this process needs read and write permission on "
                             "/dev/infiniband/uverbs*"));
  }
  ibv_device_attr attributes{};
  if (const int status = ::ibv_query_device(context.get(), &attributes); status != 0) {
    return fail(system_error_from(status, "query RDMA device", device->name));
  }
  for (int number = 1; number <= attributes.phys_port_cnt; ++number) {
    ibv_port_attr port{};
    if (::ibv_query_port(context.get(), static_cast<std::uint8_t>(number), &port) != 0) {
      continue;
    }
    PagePort& entry = ports.emplace_back();
    entry.device = device->name;
    entry.number = number;
    entry.transport = transport_name(*device, port);
    entry.state = rdma::port_state_name(port.state);
    entry.mtu_bytes = port.active_mtu >= IBV_MTU_256 ? 128U << port.active_mtu : 0;
    entry.addresses = addresses_of(context.get(), number, port.gid_tbl_len);
  }
  return {};
}

std::string name_of(const PagePort& port) {
  return port.device + "/" + std::to_string(port.number);
}

/// Whether connections to one of `hosts` may come in by `port`. GIDs are IP addresses on RoCE only.
bool may_have(const PagePort& port, const std::vector<std::string>& hosts) {
  return hosts.empty() || port.transport != "RoCE" ||
         std::any_of(hosts.begin(), hosts.end(), [&](const std::string& host) {
           return std::count(port.addresses.begin(), port.addresses.end(), host) > 0;
         });
}

}  // namespace

std::string rdma_problem(const std::string& host) {
  const auto ports = rdma_ports();
  if (!ports) {
    return ports.error().message();
  }
  std::vector<std::string> hosts;
  const Address address{.scheme = "rdma", .host = host, .port = 0};
  if (!address.is_any()) {
    const auto candidates = address.resolve(/*passive=*/true);
    if (!candidates) {
      return candidates.error().message();
    }
    for (const SocketAddress& candidate : *candidates) {
      hosts.push_back(candidate.host());
    }
  }
  std::string others;
  std::string down;
  for (const PagePort& port : *ports) {
    const bool fits = may_have(port, hosts);
    if (fits && port.state == "active") {
      return {};
    }
    if (fits) {
      down += (down.empty() ? "port " : ", port ") + name_of(port) + " is " + port.state;
    }
    others += (others.empty() ? "" : ", ") + name_of(port);
  }
  if (!down.empty()) {
    return down + "; bring up its link and its network device (rdma link)";
  }
  return others.empty() ? "there is no RDMA device; see `rdma link`"
                        : "no RDMA port has the address " + host + "; there are " + others +
                              " (`rdma link`; migratectl --json hosts tells their addresses)";
}

Result<std::vector<PagePort>> rdma_ports() {
  int count = 0;
  const std::unique_ptr<ibv_device*, void (*)(ibv_device**)> devices(::ibv_get_device_list(&count),
                                                                     &::ibv_free_device_list);
  std::vector<PagePort> ports;
  for (int i = 0; devices && i < count; ++i) {
    MIGRATE_TRY(add_ports(devices.get()[i], ports));
  }
  return ports;
}

}  // namespace migrate
