#include "libmigrate/links/gateway.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "base/file.h"
#include "base/log.h"
#include "base/network_namespace.h"
#include "base/thread.h"
#include "libmigrate/links/home_network.h"
#include "libmigrate/links/internal/link_namespace.h"
#include "libmigrate/links/internal/network_setup.h"
#include "libmigrate/links/internal/repaired_socket.h"

namespace migrate {
namespace {

constexpr const char* kDeviceName = "home0";
// Of what we send in there: by it that does not come back to us.
constexpr int kOwnMark = 0x6d69;
// Tables of routes, and the rules by which one of them counts: all that is ours stays inside, all
// that others send goes to the device, even to the own addresses.
constexpr std::uint32_t kInsideTable = 101;
constexpr std::uint32_t kOutsideTable = 102;
constexpr std::uint32_t kInsidePriority = 1;
constexpr std::uint32_t kOutsidePriority = 2;
constexpr std::uint32_t kLocalPriority = 3;

Result<UniqueFd> make_device() {
  UniqueFd device = MIGRATE_TRY(open_file("/dev/net/tun", O_RDWR | O_NONBLOCK));
  ifreq wanted{};
  std::strncpy(wanted.ifr_name, kDeviceName, sizeof(wanted.ifr_name) - 1);
  wanted.ifr_flags = IFF_TUN | IFF_NO_PI;
  if (::ioctl(device.get(), TUNSETIFF, &wanted) != 0) {
    return fail(system_error("make", "a network device"));
  }
  // It goes with the namespace, by the kernel's own thread, and not with the descriptor: whoever
  // has the last one, the init of a cell at its end, would wait for all processors to be done with
  // the device (rcu_barrier in tun_chr_close), on a busy host for seconds, one cell after the
  // other.
  if (::ioctl(device.get(), TUNSETPERSIST, 1) != 0) {
    return fail(system_error("keep", "a network device"));
  }
  return device;
}

Result<void> set_rules(const NetworkSetup& setup, int family) {
  MIGRATE_TRY(setup.add_rule(
      {.family = family, .priority = kInsidePriority, .table = kInsideTable, .mark = kOwnMark}));
  MIGRATE_TRY(setup.add_rule({.family = family,
                              .priority = kOutsidePriority,
                              .table = kOutsideTable,
                              .is_outgoing = true}));
  MIGRATE_TRY(setup.add_rule(
      {.family = family, .priority = kLocalPriority, .table = NetworkSetup::kLocalTable}));
  return setup.remove_rule({.family = family, .priority = 0, .table = NetworkSetup::kLocalTable});
}

// ::1 the kernel lets no other device have: it stays in there, where nobody listens.
Result<void> add_home_address(const NetworkSetup& setup, unsigned device,
                              const wire::HomeNetwork::Address& address) {
  const SocketName name = MIGRATE_TRY(SocketName::from_bytes(address.name()));
  constexpr unsigned kBits = 8;
  const auto whole = static_cast<unsigned>(kBits * name.address_bytes().size());
  const bool is_loopback = name.is_loopback();
  if (is_loopback && name.family() == AF_INET6) {
    return {};
  }
  if (!is_loopback) {
    MIGRATE_TRY(setup.add_address(device, name, address.prefix()));
    MIGRATE_TRY(setup.add_route(
        {.to = name, .prefix = address.prefix(), .from = name, .interface = device}));
  }
  return setup.add_route({.to = name,
                          .prefix = is_loopback ? address.prefix() : whole,
                          .from = name,
                          .interface = device,
                          .table = kOutsideTable});
}

// Of one family: to all others by the address by which home itself would, or by any.
Result<void> set_up_family(const NetworkSetup& setup, unsigned device, int family,
                           const wire::HomeNetwork& network) {
  MIGRATE_TRY(setup.own_all_addresses(family, kInsideTable));
  MIGRATE_TRY(set_rules(setup, family));
  std::optional<SocketName> usual;
  for (const wire::HomeNetwork::Address& address : network.addresses()) {
    SocketName name = MIGRATE_TRY(SocketName::from_bytes(address.name()));
    if (name.family() != family) {
      continue;
    }
    MIGRATE_TRY(add_home_address(setup, device, address));
    if (!name.is_loopback() && (!usual || address.is_usual())) {
      usual = std::move(name);
    }
  }
  return usual ? setup.add_route({.to = *usual, .from = *usual, .interface = device})
               : Result<void>();
}

// Every home has ::1, also of a process that comes to where the kernel has no version 6.
bool has_six_here(const wire::HomeNetwork& network) {
  if (::access("/proc/sys/net/ipv6", F_OK) != 0) {
    return false;
  }
  return std::ranges::any_of(network.addresses(), [&](const wire::HomeNetwork::Address& address) {
    const auto name = SocketName::from_bytes(address.name());
    return name && name->family() == AF_INET6;
  });
}

Result<void> set_up_network(const wire::HomeNetwork& network) {
  const std::string name = kDeviceName;
  const NetworkSetup setup = MIGRATE_TRY(NetworkSetup::open());
  const unsigned device = ::if_nametoindex(kDeviceName);
  MIGRATE_TRY(setup.raise(NetworkSetup::kLoopback));
  MIGRATE_TRY(write_network_setting("ipv4/conf/" + name + "/route_localnet", "1"));
  forget_connections_at_once();
  const bool has_six = has_six_here(network);
  if (has_six) {  // Nothing of its own is sent there.
    MIGRATE_TRY(write_network_setting("ipv6/conf/" + name + "/disable_ipv6", "0"));
    MIGRATE_TRY(write_network_setting("ipv6/conf/" + name + "/addr_gen_mode", "1"));
    MIGRATE_TRY(write_network_setting("ipv6/conf/" + name + "/accept_ra", "0"));
  }
  MIGRATE_TRY(setup.raise(device, Gateway::kMostPacketBytes));
  MIGRATE_TRY(set_up_family(setup, device, AF_INET, network));
  return has_six ? set_up_family(setup, device, AF_INET6, network) : Result<void>();
}

// By which packets are sent whose headers we make.
Result<UniqueFd> make_sender(int family) {
  UniqueFd sender(::socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW));
  if (!sender.valid()) {
    return fail(system_error("make", "a socket for packets"));
  }
  MIGRATE_TRY(set_number(sender.get(), SOL_SOCKET, SO_MARK, kOwnMark));
  return sender;
}

}  // namespace

Result<Gateway> Gateway::create(pid_t process, const wire::HomeNetwork& network) {
  Gateway gateway;
  gateway.space_ = MIGRATE_TRY(open_file("/proc/" + std::to_string(process) + "/ns/net", O_RDONLY));
  MIGRATE_TRY(
      run_in_network_namespace(gateway.space_.get(), [&] { return gateway.set_up(network); }));
  return gateway;
}

Result<void> Gateway::try_out() {
  const wire::HomeNetwork network = home_network();
  return run_in_thread([&]() -> Result<void> {
    if (::unshare(CLONE_NEWNET) != 0) {
      return fail(system_error("make", "a network namespace"));
    }
    return Gateway().set_up(network);
  });
}

Result<void> Gateway::set_up(const wire::HomeNetwork& network) {
  device_ = MIGRATE_TRY(make_device());
  MIGRATE_TRY(set_up_network(network));
  return open_sockets();
}

Result<Gateway> Gateway::adopt(UniqueFd device) {
  Gateway gateway;
  gateway.device_ = std::move(device);
  gateway.space_.reset(::ioctl(gateway.device_.get(), TUNGETDEVNETNS));
  if (!gateway.space_.valid()) {
    return fail(system_error("find the network namespace of", "a device"));
  }
  MIGRATE_TRY(
      run_in_network_namespace(gateway.space_.get(), [&] { return gateway.open_sockets(); }));
  return gateway;
}

// A kernel without version 6 has no packets of it.
Result<void> Gateway::open_sockets() {
  four_ = MIGRATE_TRY(make_sender(AF_INET));
  six_ = make_sender(AF_INET6).value_or(UniqueFd());
  watch_ = std::make_shared<TcpWatch>(MIGRATE_TRY(TcpWatch::open()));
  const wire::HomeNetwork network = home_network();
  for (const wire::HomeNetwork::Address& address : network.addresses()) {
    own_.emplace(MIGRATE_TRY(SocketName::from_bytes(address.name())).address_bytes());
  }
  return {};
}

std::string_view Gateway::read(std::span<char> into) {
  if (!device_.valid()) {
    return {};
  }
  const ssize_t size = ::read(device_.get(), into.data(), into.size());
  if (size < 0 && errno != EAGAIN && errno != EINTR) {  // Who may do so in there has removed it.
    log::warn("{}", system_error("read", "the gateway of a cell").message());
    device_.reset();
  }
  return {into.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0))};
}

void Gateway::write(std::string_view packet, const SocketName& to) {
  const SocketName host = SocketName::of_address(to.address_bytes(), 0);
  const UniqueFd& sender = to.family() == AF_INET ? four_ : six_;
  if (::sendto(sender.get(), packet.data(), packet.size(), MSG_DONTWAIT, host.address(),
               host.size()) < 0) {
    log::debug("{}", system_error("bring a packet to", to.to_string()).message());
  }
}

bool Gateway::is_own(const SocketName& name) const {
  return name.is_loopback() || own_.contains(std::string(name.address_bytes()));
}

// Whoever listens for all addresses does not for those of others.
bool Gateway::is_for_inside(const Packet& packet) {
  if (packet.kind == Packet::Kind::kDatagram) {
    return is_own(packet.to) && watch_->takes_datagrams(packet.to, packet.from).value_or(false);
  }
  if (packet.kind == Packet::Kind::kSegment) {
    return true;
  }
  const auto seen = watch_->look(packet.to, packet.from);
  if (!seen) {
    log::warn("{}", seen.error().message());
  }
  return seen && *seen && ((*seen)->state != TCP_LISTEN || is_own(packet.to));
}

Result<UniqueFd> Gateway::make_mate(const Packet& call, Handshake& answer) {
  constexpr std::uint32_t kMostUnscaled = 65'535;
  answer.sequence = std::random_device()();
  answer.most_segment_bytes = kMostSegmentBytes;
  answer.selective = call.call.selective;
  RepairedSocket wanted{.from = call.to,
                        .to = call.from,
                        .sends_from = answer.sequence + 1,
                        .receives_from = call.call.sequence + 1,
                        .most_segment_bytes = call.call.most_segment_bytes,
                        .selective = answer.selective,
                        .mark = kOwnMark};
  if (call.call.scale) {
    answer.scale = kWindowScale;
    wanted.scales = RepairedSocket::Scales{*call.call.scale, kWindowScale};
  }
  UniqueFd mate;
  MIGRATE_TRY(run_in_network_namespace(space_.get(), [&]() -> Result<void> {
    mate = MIGRATE_TRY(connect_repaired(wanted));
    return {};
  }));
  const tcp_repair_window window = MIGRATE_TRY(window_of(mate.get()));
  answer.window = static_cast<std::uint16_t>(std::min(window.rcv_wnd, kMostUnscaled));
  MIGRATE_TRY(open_window(mate.get(), call.call.window));
  return mate;
}

Result<UniqueFd> Gateway::make_anchor(int family) const {
  UniqueFd anchor;
  MIGRATE_TRY(run_in_network_namespace(space_.get(), [&]() -> Result<void> {
    anchor.reset(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!anchor.valid()) {
      return fail(system_error("make", "a socket"));
    }
    return set_number(anchor.get(), SOL_SOCKET, SO_MARK, kOwnMark);
  }));
  return anchor;
}

Result<void> Gateway::begin_mate(int mate) {
  return end_repair(mate);
}

void Gateway::take_back_mate(int mate) {
  const sockaddr nobody{.sa_family = AF_UNSPEC, .sa_data = {}};
  if (!set_number(mate, IPPROTO_TCP, TCP_REPAIR, 1) ||
      ::connect(mate, &nobody, sizeof(nobody)) != 0) {
    log::debug("{}", system_error("take back", "a connection").message());
  }
}

}  // namespace migrate
