#include "libmigrate/cell/internal_protocol.h"

#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "transport/handoff.h"

namespace migrate::cell {
namespace {

constexpr std::size_t kMaxDescriptors = 250;
constexpr std::size_t kControlBytes =
    CMSG_SPACE(kMaxDescriptors * sizeof(int)) + CMSG_SPACE(sizeof(ucred));

constexpr int kTries = 20;
constexpr auto kPause = std::chrono::milliseconds(1);

// What the kernel may grant a moment later: memory, descriptors that are still under way.
bool may_pass(int error) {
  return error == EINTR || error == ENOMEM || error == ENOBUFS || error == ETOOMANYREFS;
}

}  // namespace

Result<void> send_message(int socket, const Message& message, std::span<const int> descriptors) {
  if (descriptors.size() > kMaxDescriptors) {
    return fail(make_error(ErrorCode::kInvalid, "send descriptors", "too many at once"));
  }
  Message copy = message;
  iovec vector{&copy, sizeof(copy)};
  alignas(cmsghdr) std::array<std::byte, kControlBytes> control{};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  if (!descriptors.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* part = CMSG_FIRSTHDR(&header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(part), descriptors.data(), descriptors.size_bytes());
  }
  ssize_t sent = ::sendmsg(socket, &header, MSG_NOSIGNAL);
  for (int tries = 1; sent < 0 && may_pass(errno) && tries < kTries; ++tries) {
    std::this_thread::sleep_for(kPause);
    sent = ::sendmsg(socket, &header, MSG_NOSIGNAL);
  }
  if (sent < 0) {
    return fail(system_error("send to a cell"));
  }
  return {};
}

Result<Received> receive_message(int socket, bool wait) {
  Received received;
  iovec vector{&received.message, sizeof(received.message)};
  alignas(cmsghdr) std::array<std::byte, kControlBytes> control{};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const ssize_t count =
      receive_packet(socket, header, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
  if (count < 0) {
    return fail(system_error("receive from a cell"));
  }
  if (count != static_cast<ssize_t>(sizeof(received.message))) {
    return fail(make_error(ErrorCode::kPeerLost, "receive from a cell", "its end is closed"));
  }
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS) {
      const std::size_t passed = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < passed; ++i) {  // The first one counts; no other stays open.
        int descriptor = -1;
        std::memcpy(&descriptor, CMSG_DATA(part) + i * sizeof(int), sizeof(descriptor));
        UniqueFd owned(descriptor);
        if (!received.descriptor.valid()) {
          received.descriptor = std::move(owned);
        }
      }
    } else if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_CREDENTIALS) {
      ucred credentials{};
      std::memcpy(&credentials, CMSG_DATA(part), sizeof(credentials));
      received.sender = credentials.pid;
    }
  }
  received.message.text.back() = '\0';
  return received;
}

}  // namespace migrate::cell
