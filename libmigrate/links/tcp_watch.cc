#include "libmigrate/links/tcp_watch.h"

#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "base/network_namespace.h"
#include "libmigrate/links/internal/link_namespace.h"

namespace migrate {
namespace {

void put_name(const SocketName& name, __be16& port, __be32 (&address)[4]) {
  if (name.family() == AF_INET) {
    sockaddr_in four{};
    std::memcpy(&four, name.to_bytes().data(), sizeof(four));
    port = four.sin_port;
    address[0] = four.sin_addr.s_addr;
    return;
  }
  sockaddr_in6 six{};
  std::memcpy(&six, name.to_bytes().data(), sizeof(six));
  port = six.sin6_port;
  std::memcpy(address, &six.sin6_addr, sizeof(six.sin6_addr));
}

int find_info(const nlattr* attribute, void* data) {
  if (mnl_attr_get_type(attribute) == INET_DIAG_INFO) {
    auto& info = *static_cast<std::optional<TcpInfo>*>(data);
    info.emplace();
    std::memcpy(&*info, mnl_attr_get_payload(attribute),
                std::min<std::size_t>(sizeof(*info), mnl_attr_get_payload_len(attribute)));
  }
  return MNL_CB_OK;
}

int find_only_ipv6(const nlattr* attribute, void* data) {
  if (mnl_attr_get_type(attribute) == INET_DIAG_SKV6ONLY) {
    *static_cast<bool*>(data) = mnl_attr_get_u8(attribute) != 0;
  }
  return MNL_CB_OK;
}

// Of what nobody has: who closes one ends it, and so it is in another state then.
bool may_wait(std::uint8_t state) {
  return state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT || state == TCP_SYN_RECV;
}

SocketName name_in(const inet_diag_msg& message) {
  constexpr std::size_t kFourBytes = 4;
  const std::string_view address(
      reinterpret_cast<const char*>(message.id.idiag_src),
      message.idiag_family == AF_INET ? kFourBytes : sizeof(message.id.idiag_src));
  return SocketName::of_address(address, ntohs(message.id.idiag_sport));
}

std::optional<TcpWatch::Seen> read_answer(const nlmsghdr* header) {
  const auto* const message = static_cast<const inet_diag_msg*>(mnl_nlmsg_get_payload(header));
  std::optional<TcpInfo> info;
  mnl_attr_parse(header, sizeof(inet_diag_msg), find_info, &info);
  TcpWatch::Seen seen;
  seen.inode = message->idiag_inode;
  seen.state = message->idiag_state;
  if (seen.inode == 0 && !may_wait(seen.state)) {
    return std::nullopt;
  }
  if (!info) {
    return seen.inode == 0 ? std::optional(seen) : std::nullopt;
  }
  seen.unread = message->idiag_rqueue;
  seen.taken = info->bytes_received - message->idiag_rqueue;
  seen.given = info->bytes_acked + message->idiag_wqueue - (has_sent_end(seen.state) ? 1 : 0);
  return seen;
}

}  // namespace

Result<TcpWatch> TcpWatch::open() {
  UniqueFd netlink(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!netlink.valid()) {
    return fail(system_error("open", "NETLINK_SOCK_DIAG"));
  }
  return TcpWatch(std::move(netlink));
}

Result<TcpWatch> TcpWatch::open_beside(int socket) {
  const UniqueFd space = MIGRATE_TRY(network_namespace_of(socket));
  UniqueFd netlink;
  MIGRATE_TRY(run_in_network_namespace(space.get(), [&]() -> Result<void> {
    netlink = MIGRATE_TRY(open()).netlink_;
    return {};
  }));
  return TcpWatch(std::move(netlink));
}

Result<bool> TcpWatch::is_listened_at(const SocketName& local) {
  const auto seen = MIGRATE_TRY(look(local, SocketName::none_of(local.family())));
  return seen && seen->state == TCP_LISTEN;
}

Result<std::optional<TcpWatch::Seen>> TcpWatch::look(const SocketName& local,
                                                     const SocketName& peer) {
  alignas(nlmsghdr) AnswerBuffer buffer{};
  const nlmsghdr* const answer = MIGRATE_TRY(ask(IPPROTO_TCP, local, peer, buffer));
  return answer == nullptr ? std::nullopt : read_answer(answer);
}

// Here the kernel takes the names the other way round.
Result<bool> TcpWatch::takes_datagrams(const SocketName& local, const SocketName& peer) {
  alignas(nlmsghdr) AnswerBuffer buffer{};
  return MIGRATE_TRY(ask(IPPROTO_UDP, peer, local, buffer)) != nullptr;
}

Result<std::set<SocketName>> TcpWatch::names_of_datagrams() {
  std::set<SocketName> names;
  const auto take = [&](const nlmsghdr& each) {
    names.insert(
        name_in(*static_cast<const inet_diag_msg*>(mnl_nlmsg_get_payload(&each))).unmapped());
  };
  MIGRATE_TRY(list(IPPROTO_UDP, AF_INET, ~0U, take));
  MIGRATE_TRY(list(IPPROTO_UDP, AF_INET6, ~0U, take));
  return names;
}

Result<std::vector<TcpWatch::Listener>> TcpWatch::listeners() {
  std::vector<Listener> all;
  const auto take = [&](const nlmsghdr& each) {
    const auto& message = *static_cast<const inet_diag_msg*>(mnl_nlmsg_get_payload(&each));
    if (message.id.idiag_if != 0) {
      return;
    }
    Listener& listener = all.emplace_back();
    listener.inode = message.idiag_inode;
    listener.local = name_in(message);
    listener.backlog = message.idiag_wqueue;
    mnl_attr_parse(&each, sizeof(inet_diag_msg), find_only_ipv6, &listener.only_ipv6);
  };
  MIGRATE_TRY(list(IPPROTO_TCP, AF_INET, 1U << TCP_LISTEN, take));
  MIGRATE_TRY(list(IPPROTO_TCP, AF_INET6, 1U << TCP_LISTEN, take));
  return all;
}

Result<void> TcpWatch::list(int protocol, int family, std::uint32_t states, const Take& take) {
  alignas(nlmsghdr) std::array<std::byte, 32768> buffer{};
  nlmsghdr* const header = mnl_nlmsg_put_header(buffer.data());
  header->nlmsg_type = SOCK_DIAG_BY_FAMILY;
  header->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  const std::uint32_t sequence = header->nlmsg_seq = ++sequence_;
  auto* const request =
      static_cast<inet_diag_req_v2*>(mnl_nlmsg_put_extra_header(header, sizeof(inet_diag_req_v2)));
  request->sdiag_family = static_cast<__u8>(family);
  request->sdiag_protocol = static_cast<__u8>(protocol);
  request->idiag_states = states;
  if (::send(netlink_.get(), header, header->nlmsg_len, 0) < 0) {
    return fail(system_error("ask for", "sockets"));
  }
  for (;;) {
    const ssize_t size = ::recv(netlink_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (size < 0) {
      return fail(system_error("learn of", "sockets"));
    }
    int left = static_cast<int>(size);
    for (const auto* each = reinterpret_cast<const nlmsghdr*>(buffer.data());
         mnl_nlmsg_ok(each, left); each = mnl_nlmsg_next(each, &left)) {
      if (each->nlmsg_seq != sequence) {
        continue;
      }
      if (each->nlmsg_type == NLMSG_DONE) {
        return {};
      }
      if (each->nlmsg_type == NLMSG_ERROR) {
        const int error = -static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(each))->error;
        return fail(system_error_from(
            error, "learn of", "sockets",
            "the kernel needs CONFIG_INET_TCP_DIAG and CONFIG_INET_UDP_DIAG (modprobe udp_diag)"));
      }
      take(*each);
    }
  }
}

// Null: there is none.
Result<const nlmsghdr*> TcpWatch::ask(int protocol, const SocketName& source,
                                      const SocketName& destination, AnswerBuffer& buffer) {
  nlmsghdr* const header = mnl_nlmsg_put_header(buffer.data());
  header->nlmsg_type = SOCK_DIAG_BY_FAMILY;
  header->nlmsg_flags = NLM_F_REQUEST;
  header->nlmsg_seq = ++sequence_;
  auto* const request =
      static_cast<inet_diag_req_v2*>(mnl_nlmsg_put_extra_header(header, sizeof(inet_diag_req_v2)));
  request->sdiag_family = static_cast<__u8>(source.family());
  request->sdiag_protocol = static_cast<__u8>(protocol);
  request->idiag_ext = 1U << (INET_DIAG_INFO - 1);
  request->idiag_states = ~0U;
  put_name(source, request->id.idiag_sport, request->id.idiag_src);
  put_name(destination, request->id.idiag_dport, request->id.idiag_dst);
  request->id.idiag_cookie[0] = INET_DIAG_NOCOOKIE;
  request->id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
  if (::send(netlink_.get(), header, header->nlmsg_len, 0) < 0) {
    return fail(system_error("ask for", "a connection"));
  }
  for (;;) {
    const ssize_t size = ::recv(netlink_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (size < 0 || !mnl_nlmsg_ok(header, static_cast<int>(size))) {
      return fail(system_error("learn of", "a connection"));
    }
    if (header->nlmsg_seq != sequence_) {
      continue;
    }
    if (header->nlmsg_type != NLMSG_ERROR) {
      return header;
    }
    const int error = -static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(header))->error;
    if (error == ENOENT) {
      return nullptr;
    }
    return fail(system_error_from(error, "learn of", "a connection",
                                  "the kernel needs CONFIG_INET_TCP_DIAG (modprobe tcp_diag)"));
  }
}

}  // namespace migrate
