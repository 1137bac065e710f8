// Control messages as a worker takes them from its peer: joined from pieces, parsed, checked.
#include <deque>

#include "libmigrate/image/image_form.h"
#include "libmigrate/move/control_channel.h"
#include "libmigrate/relay/guest_relay.h"
#include "tests/fuzz/message_list.h"

namespace migrate {
namespace {

class Pieces final : public Channel {
 public:
  explicit Pieces(const std::vector<std::span<const std::byte>>& pieces)
      : pieces_(pieces.begin(), pieces.end()) {}

  Result<void> send(std::span<const std::span<const std::byte>>) override { return {}; }
  Result<std::optional<std::span<const std::byte>>> try_receive() override {
    while (!pieces_.empty()) {
      const auto piece = pieces_.front();
      pieces_.pop_front();
      if (!piece.empty()) {  // A frame has at least one byte.
        return piece;
      }
    }
    return fail(make_error(ErrorCode::kPeerLost, "receive"));
  }
  Result<std::span<const std::byte>> receive(std::uint32_t, int) override {
    return *MIGRATE_TRY(try_receive());
  }
  int poll_fd() const override { return -1; }
  std::uint64_t bytes_sent() const override { return 0; }
  std::uint64_t bytes_received() const override { return 0; }
  void shutdown() override {}

 private:
  std::deque<std::span<const std::byte>> pieces_;
};

void fuzz_control(std::span<const std::byte> input) {
  ControlChannel channel(std::make_unique<Pieces>(fuzz::messages_of(input)), "a peer");
  for (;;) {
    const auto message = channel.receive(0, 0);
    if (!message) {
      return;
    }
    if (message->has_offer()) {
      static_cast<void>(check_form(message->offer().draft(), ImageStage::kDraft));
    } else if (message->has_final()) {
      static_cast<void>(check_form(message->final().image(), ImageStage::kFinal));
      static_cast<void>(GuestRelay::create(message->final().relay(), {}));
    }
  }
}

}  // namespace
}  // namespace migrate

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  migrate::fuzz_control(std::as_bytes(std::span(data, size)));
  return 0;
}
