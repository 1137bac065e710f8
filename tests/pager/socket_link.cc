#include "tests/pager/socket_link.h"

#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <chrono>
#include <cstring>

namespace migrate::test {
namespace {

tl::unexpected<Error> lost(const char* operation) {
  return fail(make_error(ErrorCode::kPeerLost, operation));
}

}  // namespace

SocketLink::SocketLink(UniqueFd fd) : fd_(std::move(fd)), buffer_(2U << 20U) {}

Result<void> SocketLink::send(std::span<const std::span<const std::byte>> parts) {
  std::uint32_t length = 0;
  for (const auto& part : parts) {
    length += static_cast<std::uint32_t>(part.size());
  }
  std::vector<std::byte> bytes(sizeof(length));
  std::memcpy(bytes.data(), &length, sizeof(length));
  for (const auto& part : parts) {
    bytes.insert(bytes.end(), part.begin(), part.end());
  }
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t sent = ::send(fd_.get(), bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (sent <= 0) {
      return lost("send");
    }
    done += static_cast<std::size_t>(sent);
  }
  return {};
}

Result<std::optional<std::span<const std::byte>>> SocketLink::try_receive() {
  if (consumed_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + consumed_, filled_ - consumed_);
    filled_ -= consumed_;
    consumed_ = 0;
  }
  for (;;) {
    std::uint32_t length = 0;
    if (filled_ >= sizeof(length)) {
      std::memcpy(&length, buffer_.data(), sizeof(length));
      if (length > buffer_.size() - sizeof(length)) {
        return fail(make_error(ErrorCode::kCorrupt, "receive"));
      }
      if (filled_ >= sizeof(length) + length) {
        consumed_ = sizeof(length) + length;
        return std::span<const std::byte>(buffer_).subspan(sizeof(length), length);
      }
    }
    const ssize_t count =
        ::recv(fd_.get(), buffer_.data() + filled_, buffer_.size() - filled_, MSG_DONTWAIT);
    if (count < 0 && errno == EAGAIN) {
      return std::optional<std::span<const std::byte>>();
    }
    if (count <= 0) {
      return lost("receive");
    }
    filled_ += static_cast<std::size_t>(count);
  }
}

Result<std::span<const std::byte>> SocketLink::receive(std::uint32_t spin_us, int timeout_ms) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  for (;;) {
    const auto message = MIGRATE_TRY(try_receive());
    if (message) {
      return *message;
    }
    const auto waited = Clock::now() - start;
    if (waited < std::chrono::microseconds(spin_us)) {
      ::sched_yield();
      continue;
    }
    if (timeout_ms >= 0 && waited >= std::chrono::milliseconds(timeout_ms)) {
      return fail(make_error(ErrorCode::kRetry, "receive"));
    }
    pollfd descriptor{fd_.get(), POLLIN, 0};
    ::poll(&descriptor, 1, timeout_ms < 0 ? 1000 : timeout_ms);
  }
}

void SocketLink::shutdown() {
  ::shutdown(fd_.get(), SHUT_RDWR);
}

std::pair<std::unique_ptr<SocketLink>, std::unique_ptr<SocketLink>> make_link_pair() {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return {};
  }
  return {std::make_unique<SocketLink>(UniqueFd(ends[0])),
          std::make_unique<SocketLink>(UniqueFd(ends[1]))};
}

}  // namespace migrate::test
