#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "libmigrate/relay/guest_relay.h"
#include "libmigrate/relay/home_relay.h"
#include "transport/memory_channel.h"

namespace migrate::relay_testing {

/// A channel that can be cut, losing what is under way.
class CuttableChannel : public Channel {
 public:
  struct Cut {
    std::atomic<bool> done = false;
    std::vector<std::shared_ptr<Channel>> ends;
    void cut() {
      done = true;
      for (const auto& end : ends) {
        end->shutdown();
      }
    }
  };

  CuttableChannel(std::shared_ptr<Channel> inner, std::shared_ptr<Cut> cut)
      : inner_(std::move(inner)), cut_(std::move(cut)) {}
  ~CuttableChannel() override { inner_->shutdown(); }
  Result<void> send(std::span<const std::span<const std::byte>> parts) override {
    if (cut_->done) {
      return lost();
    }
    return inner_->send(parts);
  }
  Result<std::optional<std::span<const std::byte>>> try_receive() override {
    if (cut_->done) {
      return lost();
    }
    return inner_->try_receive();
  }
  Result<std::span<const std::byte>> receive(std::uint32_t spin_us, int timeout_ms) override {
    return inner_->receive(spin_us, timeout_ms);
  }
  int poll_fd() const override { return inner_->poll_fd(); }
  Result<bool> arm() override { return cut_->done ? true : inner_->arm(); }
  std::uint64_t bytes_sent() const override { return inner_->bytes_sent(); }
  std::uint64_t bytes_received() const override { return inner_->bytes_received(); }
  void shutdown() override { inner_->shutdown(); }

 private:
  static tl::unexpected<Error> lost() {
    return fail(make_error(ErrorCode::kPeerLost, "use a cut channel"));
  }

  std::shared_ptr<Channel> inner_;
  std::shared_ptr<Cut> cut_;
};

inline void set_nonblocking(int fd) {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

inline std::pair<UniqueFd, UniqueFd> make_pipe() {
  std::array<int, 2> ends{};
  EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

}  // namespace migrate::relay_testing
