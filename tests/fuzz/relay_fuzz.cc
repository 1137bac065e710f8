// The link between a moved process and its home, with a peer that says anything to either side.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "libmigrate/relay/guest_relay.h"
#include "libmigrate/relay/home_relay.h"
#include "tests/fuzz/message_list.h"
#include "transport/memory_channel.h"

namespace migrate {
namespace {

std::pair<UniqueFd, UniqueFd> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    std::abort();
  }
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

/// Sends each message, reading what comes back, and calls `step` after each.
template <class Step>
void converse(Channel& peer, std::span<const std::span<const std::byte>> messages, Step step) {
  for (const auto& message : messages) {
    if (!message.empty() && !peer.send_one(message)) {
      return;
    }
    step();
    for (auto answer = peer.try_receive(); answer && *answer; answer = peer.try_receive()) {
    }
  }
}

void fuzz_deputy(std::span<const std::span<const std::byte>> messages) {
  auto [input, input_writer] = make_pipe();
  auto [output_reader, output] = make_pipe();
  static_cast<void>(!::write(input_writer.get(), "input", 5));
  std::vector<HomeRelay::Stream> streams;
  streams.push_back({0, std::move(input), wire::RELAY_IN});
  streams.push_back({1, std::move(output), wire::RELAY_OUT});
  HomeRelay relay(std::move(streams), 0, {});
  static_cast<void>(relay.send_signal(std::array<std::byte, 128>{}));
  auto channels = make_memory_channels();
  relay.attach(std::move(channels->first));
  converse(*channels->second, messages, [&relay] {
    std::vector<pollfd> polled;
    static_cast<void>(relay.collect_poll_fds(polled));
    static_cast<void>(relay.handle());
  });
}

void fuzz_guest(std::span<const std::span<const std::byte>> messages) {
  if (messages.empty()) {
    return;
  }
  wire::RelayState state;
  if (!state.ParseFromArray(messages.front().data(), static_cast<int>(messages.front().size()))) {
    return;
  }
  auto relay = GuestRelay::create(state, {});
  if (!relay || state.streams_size() > 8 || !(*relay)->create_endpoints(::getuid(), ::getgid())) {
    return;
  }
  auto channels = make_memory_channels();
  (*relay)->attach(std::move(channels->first));
  (*relay)->activate();
  converse(*channels->second, messages.subspan(1), [&relay] {
    std::vector<pollfd> polled;
    static_cast<void>((*relay)->collect_poll_fds(polled));
    static_cast<void>((*relay)->handle());
  });
  (*relay)->report_exit(0, false);
  static_cast<void>((*relay)->handle());
  static_cast<void>((*relay)->freeze_state());
}

}  // namespace
}  // namespace migrate

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  const auto messages = migrate::fuzz::messages_of(std::as_bytes(std::span(data + 1, size - 1)));
  if (data[0] % 2 == 0) {
    migrate::fuzz_deputy(messages);
  } else {
    migrate::fuzz_guest(messages);
  }
  return 0;
}
