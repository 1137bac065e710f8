#include "libmigrate/move/control_channel.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <utility>

#include "transport/memory_channel.h"

namespace migrate {
namespace {

/// What the other side reads of a Final of `image` and of a relay of two streams.
void expect_final(const wire::Image& image) {
  auto channels = make_memory_channels();
  ASSERT_TRUE(channels) << channels.error().message();
  auto& [here, there] = *channels;
  ControlChannel sender(std::move(here), "there");
  ControlChannel receiver(std::move(there), "here");
  wire::RelayState relay;
  relay.add_streams();
  relay.add_streams();

  std::thread sending([&] { EXPECT_TRUE(sender.send_final(relay, image.SerializeAsString())); });
  const auto message = receiver.receive(0, 5000);
  sending.join();

  ASSERT_TRUE(message) << message.error().message();
  ASSERT_TRUE(message->has_final());
  EXPECT_EQ(message->final().image().SerializeAsString(), image.SerializeAsString());
  EXPECT_EQ(message->final().relay().SerializeAsString(), relay.SerializeAsString());
}

TEST(ControlChannel, AFinalHasItsImageAndItsRelay) {
  wire::Image image;
  image.mutable_objects()->add_pipes();
  expect_final(image);
}

TEST(ControlChannel, AFinalOfSeveralPiecesIsWhole) {
  wire::Image image;
  image.mutable_objects()->add_shared_memories()->set_name(std::string(3U << 20U, 'n'));
  expect_final(image);
}

TEST(ControlChannel, AFinalMayHaveNoImage) {
  expect_final({});
}

}  // namespace
}  // namespace migrate
