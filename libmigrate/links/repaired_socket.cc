#include "libmigrate/links/internal/repaired_socket.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstddef>

#include "libmigrate/links/internal/link_namespace.h"

namespace migrate {
namespace {

Result<void> set_handshake(int fd, const RepairedSocket& wanted) {
  constexpr unsigned kReceiveShift = 16;
  std::array<tcp_repair_opt, 3> options{};
  std::size_t count = 0;
  options[count++] = {TCPOPT_MAXSEG, wanted.most_segment_bytes};
  if (wanted.scales) {
    options[count++] = {TCPOPT_WINDOW,
                        wanted.scales->send | static_cast<unsigned>(wanted.scales->receive)
                                                  << kReceiveShift};
  }
  if (wanted.selective) {
    options[count++] = {TCPOPT_SACK_PERMITTED, 0};
  }
  if (::setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, options.data(),
                   static_cast<socklen_t>(count * sizeof(options[0]))) != 0) {
    return fail(system_error("set the options of", "a connection"));
  }
  return {};
}

Result<void> set_sequence(int fd, int queue, std::uint32_t sequence) {
  MIGRATE_TRY(set_number(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue));
  return set_number(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, static_cast<int>(sequence));
}

}  // namespace

Result<UniqueFd> connect_repaired(const RepairedSocket& wanted) {
  const int family = wanted.from.family();
  UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) {
    return fail(system_error("make", "a socket"));
  }
  MIGRATE_TRY(set_number(fd.get(), IPPROTO_TCP, TCP_REPAIR, 1));
  if (family == AF_INET6) {
    MIGRATE_TRY(set_number(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, wanted.only_ipv6 ? 1 : 0));
  }
  if (wanted.mark != 0) {
    MIGRATE_TRY(send_marked(fd.get(), family, wanted.mark));
  }
  MIGRATE_TRY(let_bind_anywhere(fd.get(), family, true));
  MIGRATE_TRY(set_sequence(fd.get(), TCP_SEND_QUEUE, wanted.sends_from));
  MIGRATE_TRY(set_sequence(fd.get(), TCP_RECV_QUEUE, wanted.receives_from));
  if (::bind(fd.get(), wanted.from.address(), wanted.from.size()) != 0 ||
      ::connect(fd.get(), wanted.to.address(), wanted.to.size()) != 0) {
    return fail(system_error("connect", "a socket that is repaired"));
  }
  MIGRATE_TRY(let_bind_anywhere(fd.get(), family, false));
  MIGRATE_TRY(set_handshake(fd.get(), wanted));
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

Result<void> open_window(int fd, std::uint32_t bytes) {
  tcp_repair_window window = MIGRATE_TRY(window_of(fd));
  window.snd_wnd = bytes;
  window.max_window = bytes;
  window.snd_wl1 = window.rcv_wup;
  if (::setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, sizeof(window)) != 0) {
    return fail(system_error("set the window of", "a connection"));
  }
  return {};
}

Result<void> end_repair(int fd) {
  constexpr int kOffWithoutProbe = -1;  // TCP_REPAIR_OFF_NO_WP
  MIGRATE_TRY(set_number(fd, IPPROTO_TCP, TCP_REPAIR, kOffWithoutProbe));
  return set_number(fd, SOL_SOCKET, SO_REUSEADDR, 0);
}

}  // namespace migrate
