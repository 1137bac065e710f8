#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "pager/page_source.h"

namespace migrate::test {

/// A PageLink over one end of a stream socket: each message after its length.
class SocketLink final : public PageLink {
 public:
  explicit SocketLink(UniqueFd fd);

  Result<void> send(std::span<const std::span<const std::byte>> parts) override;
  Result<std::optional<std::span<const std::byte>>> try_receive() override;
  Result<std::span<const std::byte>> receive(std::uint32_t spin_us, int timeout_ms) override;
  int poll_fd() const override { return fd_.get(); }
  Result<bool> arm() override { return false; }
  void shutdown() override;

 private:
  UniqueFd fd_;
  std::vector<std::byte> buffer_;
  std::size_t consumed_ = 0;  // bytes of the last message, dropped with the next call
  std::size_t filled_ = 0;
};

/// Both ends of a new link.
std::pair<std::unique_ptr<SocketLink>, std::unique_ptr<SocketLink>> make_link_pair();

}  // namespace migrate::test
