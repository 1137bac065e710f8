#include "libmigrate/proc/unix_socket.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>

#include "base/network_namespace.h"
#include "base/unique_fd.h"

namespace migrate {
namespace {

constexpr std::uint8_t kListens = 10;  // TCP_LISTEN, which Unix sockets use too
constexpr std::size_t kAnswerBytes = 4096;

struct DiagRequest {
  nlmsghdr header{};
  unix_diag_req request{};
};

std::string name_of(std::uint64_t inode) {
  return "socket:[" + std::to_string(inode) + "]";
}

Error not_told(int error, std::uint64_t inode) {
  if (error == ENOENT && inode != 0) {
    Error known = system_error_from(error, "look up", name_of(inode),
                                    "the kernel needs CONFIG_UNIX_DIAG (modprobe unix_diag)");
    known.code = ErrorCode::kNotFound;
    return known;
  }
  return system_error_from(error, "look up", name_of(inode));
}

Result<UniqueFd> open_link() {
  UniqueFd link(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!link.valid()) {
    return fail(system_error("open", "NETLINK_SOCK_DIAG"));
  }
  return link;
}

bool is_of_caller(const UniqueFd& space) {
  struct stat theirs {};
  struct stat ours {};
  return ::fstat(space.get(), &theirs) == 0 && ::stat("/proc/thread-self/ns/net", &ours) == 0 &&
         theirs.st_ino == ours.st_ino && theirs.st_dev == ours.st_dev;
}

Result<UniqueFd> open_link_beside(int socket) {
  const auto space = network_namespace_of(socket);
  if (!space ||
      is_of_caller(*space)) {  // Who may not ask for it is not where there is another one.
    return open_link();
  }
  UniqueFd link;
  MIGRATE_TRY(run_in_network_namespace(space->get(), [&]() -> Result<void> {
    link = MIGRATE_TRY(open_link());
    return {};
  }));
  return link;
}

Result<std::array<std::byte, kAnswerBytes>> ask(std::uint64_t inode, int beside) {
  const UniqueFd link = MIGRATE_TRY(beside < 0 ? open_link() : open_link_beside(beside));
  DiagRequest question;
  question.header.nlmsg_len = sizeof(question);
  question.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  question.header.nlmsg_flags = NLM_F_REQUEST;
  question.request.sdiag_family = AF_UNIX;
  question.request.udiag_states = ~0U;
  question.request.udiag_ino = static_cast<__u32>(inode);
  question.request.udiag_show =
      UDIAG_SHOW_NAME | UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN | UDIAG_SHOW_MEMINFO;
  question.request.udiag_cookie[0] = ~0U;
  question.request.udiag_cookie[1] = ~0U;
  alignas(nlmsghdr) std::array<std::byte, kAnswerBytes> answer{};
  if (::send(link.get(), &question, sizeof(question), 0) < 0 ||
      ::recv(link.get(), answer.data(), answer.size(), 0) < 0) {
    return fail(system_error("look up", name_of(inode)));
  }
  return answer;
}

template <class T>
T value_of(rtattr* attribute) {
  T value{};
  std::memcpy(&value, RTA_DATA(attribute),
              std::min<std::size_t>(sizeof(value), RTA_PAYLOAD(attribute)));
  return value;
}

}  // namespace

Result<UnixSocket> read_unix_socket(std::uint64_t inode, int beside) {
  alignas(nlmsghdr) auto answer = MIGRATE_TRY(ask(inode, beside));
  nlmsghdr header{};
  std::memcpy(&header, answer.data(), sizeof(header));
  std::byte* const body = answer.data() + NLMSG_HDRLEN;
  if (header.nlmsg_type == NLMSG_ERROR) {
    nlmsgerr error{};
    std::memcpy(&error, body, sizeof(error));
    return fail(not_told(-error.error, inode));
  }
  UnixSocket socket;
  unix_diag_msg message{};
  std::memcpy(&message, body, sizeof(message));
  socket.listens = message.udiag_state == kListens;
  auto left = static_cast<int>(header.nlmsg_len) -
              static_cast<int>(NLMSG_LENGTH(NLMSG_ALIGN(sizeof(message))));
  auto* attribute = reinterpret_cast<rtattr*>(body + NLMSG_ALIGN(sizeof(message)));
  for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
    switch (attribute->rta_type) {
      case UNIX_DIAG_NAME:
        socket.has_name = true;
        break;
      case UNIX_DIAG_PEER:
        socket.peer = value_of<std::uint32_t>(attribute);
        break;
      case UNIX_DIAG_RQLEN:
        socket.unread_bytes = value_of<unix_diag_rqlen>(attribute).udiag_rqueue;
        break;
      case UNIX_DIAG_MEMINFO:
        socket.sent_bytes =
            value_of<std::array<std::uint32_t, SK_MEMINFO_VARS>>(attribute)[SK_MEMINFO_WMEM_ALLOC];
        break;
      case UNIX_DIAG_SHUTDOWN:
        socket.shutdown = value_of<std::uint8_t>(attribute);
        break;
      default:
        break;
    }
  }
  return socket;
}

}  // namespace migrate
