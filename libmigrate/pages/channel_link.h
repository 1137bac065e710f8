#pragma once

#include <memory>
#include <utility>

#include "pager/page_source.h"
#include "transport/channel.h"

namespace migrate {

/// Lets pager and page server, which know no transports, use a channel. Threads: as Channel.
class ChannelLink : public PageLink {
 public:
  explicit ChannelLink(std::shared_ptr<Channel> channel) : channel_(std::move(channel)) {}

  Result<void> send(std::span<const std::span<const std::byte>> parts) override {
    return channel_->send(parts);
  }
  Result<std::optional<std::span<const std::byte>>> try_receive() override {
    return channel_->try_receive();
  }
  Result<std::span<const std::byte>> receive(std::uint32_t spin_us, int timeout_ms) override {
    return channel_->receive(spin_us, timeout_ms);
  }
  int poll_fd() const override { return channel_->poll_fd(); }
  Result<bool> arm() override { return channel_->arm(); }
  /// Half a window: the places of the other half may not have been given back yet.
  std::size_t most_requests() const override {
    const std::size_t window = channel_->window();
    return window == 0 ? PageLink::most_requests() : window / 2;
  }
  void shutdown() override { channel_->shutdown(); }

 private:
  std::shared_ptr<Channel> channel_;
};

}  // namespace migrate
