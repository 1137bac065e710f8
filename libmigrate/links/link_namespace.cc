#include "libmigrate/links/internal/link_namespace.h"

#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>

#include "base/file.h"
#include "libmigrate/links/internal/network_setup.h"

namespace migrate {

Result<void> enter_link_namespace(bool with_ipv6) {
  if (::unshare(CLONE_NEWNET) != 0) {
    return fail(system_error("make", "a network namespace"));
  }
  const NetworkSetup setup = MIGRATE_TRY(NetworkSetup::open());
  MIGRATE_TRY(setup.raise(NetworkSetup::kLoopback));
  MIGRATE_TRY(setup.own_all_addresses(AF_INET, NetworkSetup::kLocalTable));
  return with_ipv6 ? setup.own_all_addresses(AF_INET6, NetworkSetup::kLocalTable) : Result<void>();
}

// Nobody is left to hear what comes late, and a peer may come again by the same port at once.
// Where this cannot be set, such a one is reset within the first second.
void forget_connections_at_once() {
  static_cast<void>(write_network_setting("ipv4/tcp_max_tw_buckets", "0"));
}

Result<void> write_network_setting(const std::string& name, const std::string& value) {
  return write_file("/proc/sys/net/" + name, value);
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

Result<void> send_marked(int fd, int family, int mark) {
  constexpr int kIpv6Transparent = 75;  // IPV6_TRANSPARENT, which old headers lack.
  MIGRATE_TRY(set_number(fd, SOL_SOCKET, SO_MARK, mark));
  return family == AF_INET6 ? set_number(fd, IPPROTO_IPV6, kIpv6Transparent, 1)
                            : set_number(fd, IPPROTO_IP, IP_TRANSPARENT, 1);
}

}  // namespace migrate
