#include "libmigrate/home/real_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

#include "libmigrate/image/only_process.h"
#include "libmigrate/links/tcp_socket.h"

namespace migrate {
namespace {

/// An image with descriptors of this process: the two ends of a pipe are streams 1 and 2, and a
/// file is shared with an ancestor.
class RealFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    reader_.reset(ends[0]);
    writer_.reset(ends[1]);
    file_.reset(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    ASSERT_TRUE(file_.valid());
    add(reader_, O_RDONLY).set_object(1);
    add(writer_, O_WRONLY).set_object(2);
    add(file_, O_RDWR).set_shared_id(7);
    image_.mutable_objects()->mutable_files(2)->set_kind(wire::OpenFile::REGULAR);
  }

  wire::OpenFile& add(const UniqueFd& fd, int flags) {
    wire::Descriptor& descriptor = *mutable_only_process(image_).add_descriptors();
    descriptor.set_number(static_cast<std::uint32_t>(fd.get()));
    descriptor.set_file(static_cast<std::uint32_t>(image_.objects().files_size()));
    wire::OpenFile& file = *image_.mutable_objects()->add_files();
    file.set_kind(wire::OpenFile::RELAY);
    file.set_flags(static_cast<std::uint32_t>(flags));
    return file;
  }

  UniqueFd reader_;
  UniqueFd writer_;
  UniqueFd file_;
  wire::Image image_;
  RealFiles files_;
};

TEST_F(RealFilesTest, FetchesTheEndsOfStreams) {
  ASSERT_TRUE(files_.fetch_streams(::getpid(), image_));
  auto streams = files_.take_streams();
  ASSERT_EQ(streams.size(), 2U);
  EXPECT_EQ(streams[0].id, 1U);
  EXPECT_EQ(streams[0].directions, wire::RELAY_IN);
  EXPECT_EQ(streams[1].directions, wire::RELAY_OUT);
  ASSERT_EQ(::write(streams[1].real.get(), "x", 1), 1);
  char byte = 0;
  ASSERT_EQ(::read(reader_.get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'x');
  EXPECT_TRUE(files_.take_streams().empty());
}

TEST_F(RealFilesTest, TwoDescriptorsOfOneStreamAreOneStream) {
  const UniqueFd again(::dup(writer_.get()));
  wire::Descriptor& descriptor = *mutable_only_process(image_).add_descriptors();
  descriptor.set_number(static_cast<std::uint32_t>(again.get()));
  descriptor.set_file(1);
  ASSERT_TRUE(files_.fetch_streams(::getpid(), image_));
  EXPECT_EQ(files_.take_streams().size(), 2U);
  EXPECT_EQ(descriptors_of_stream(image_, 2).size(), 2U);
}

TEST_F(RealFilesTest, AStreamThatIsNotThereIsAnErrorOnlyOfTheProcessItself) {
  mutable_only_process(image_).mutable_descriptors(0)->set_number(999);
  EXPECT_FALSE(files_.fetch_streams(::getpid(), image_));
  files_.fetch_streams_left(::getpid(), image_);
  const auto streams = files_.take_streams();
  ASSERT_EQ(streams.size(), 2U);
  EXPECT_FALSE(streams[0].real.valid());
  EXPECT_TRUE(streams[1].real.valid());
}

TEST_F(RealFilesTest, TheTerminalOfItsOwnSessionStaysOpen) {
  const UniqueFd side(::dup(writer_.get()));
  wire::OpenFile& file = add(side, O_RDWR);
  file.set_kind(wire::OpenFile::TERMINAL_PAIR);
  file.set_object(1);
  wire::TerminalPair& pair = *image_.mutable_objects()->add_terminal_pairs();
  const auto number = static_cast<std::uint32_t>(side.get());
  EXPECT_FALSE(descriptors_to_keep(image_, false).contains(number));
  pair.set_is_controlling(true);
  EXPECT_TRUE(descriptors_to_keep(image_, false).contains(number));
}

// A listener is stream 3; of two that have connected to it, the first is noted.
class AcceptedFilesTest : public RealFilesTest {
 protected:
  void SetUp() override {
    RealFilesTest::SetUp();
    listener_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::listen(listener_.get(), 2), 0);
    const SocketName name = *SocketName::of(listener_.get());
    wire::OpenFile& file = add(listener_, O_RDWR);
    file.set_kind(wire::OpenFile::LISTENER);
    file.set_object(3);
    wire::Listener& listener = *image_.mutable_objects()->add_listeners();
    listener.set_stream(3);
    listener.set_name(name.to_bytes());
    const SocketName to = SocketName::loopback(name.port());
    for (int i = 0; i < 2; ++i) {
      peers_[i].reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      ASSERT_EQ(::connect(peers_[i].get(), to.address(), to.size()), 0);
      links_[i].reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    }
    wire::HomeRelayState::Stream& stream = *noted_.add_streams();
    stream.set_id(4);
    stream.mutable_accepted()->set_stream(4);
    stream.set_deputy_descriptor(static_cast<std::uint32_t>(links_[0].get()));
    stream.set_cookie(*cookie_of(links_[0].get()));
    noted_.set_first_accepted(4);
    noted_.set_next_accepted(5);
  }

  UniqueFd listener_;
  std::array<UniqueFd, 2> peers_;
  std::array<UniqueFd, 2> links_;
  wire::HomeRelayState noted_;
};

TEST_F(AcceptedFilesTest, WhatWasNotNotedIsFound) {
  note_unnoted(::getpid(), image_, noted_);
  ASSERT_EQ(noted_.streams_size(), 2);
  EXPECT_EQ(noted_.streams(0).deputy_descriptor(), static_cast<std::uint32_t>(links_[0].get()));
  const wire::HomeRelayState::Stream& found = noted_.streams(1);
  EXPECT_EQ(found.id(), 5U);
  EXPECT_EQ(found.deputy_descriptor(), static_cast<std::uint32_t>(links_[1].get()));
  EXPECT_EQ(found.accepted().listener(), 3U);
  EXPECT_EQ(found.accepted().peer(), SocketName::of(peers_[1].get())->to_bytes());
  EXPECT_EQ(found.accepted().local(), SocketName::of_peer(peers_[1].get())->to_bytes());
  EXPECT_EQ(noted_.next_accepted(), 6U);
  const wire::HomeRelayState before = noted_;
  note_unnoted(::getpid(), image_, noted_);
  EXPECT_EQ(noted_.SerializeAsString(), before.SerializeAsString());
}

// Those that were wanted, and no others; who has come to one of them is known by it.
TEST_F(AcceptedFilesTest, AListenerThatWasMadeAndNotNotedIsFound) {
  constexpr std::uint32_t kMade = 1U << 30U;
  const UniqueFd made(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::listen(made.get(), 2), 0);
  const SocketName name = *SocketName::of(made.get());
  wire::HomeRelayState::Listener& listener = *noted_.add_listeners();
  listener.set_id(kMade);
  listener.set_name(name.to_bytes());
  listener.mutable_made()->set_name(name.to_bytes());
  const UniqueFd peer(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const SocketName to = SocketName::loopback(name.port());
  ASSERT_EQ(::connect(peer.get(), to.address(), to.size()), 0);
  const UniqueFd link(::accept4(made.get(), nullptr, nullptr, SOCK_CLOEXEC));
  note_unnoted(::getpid(), image_, noted_);
  EXPECT_EQ(noted_.listeners(0).deputy_descriptor(), static_cast<std::uint32_t>(made.get()));
  ASSERT_EQ(noted_.streams_size(), 3);
  EXPECT_EQ(noted_.streams(1).accepted().listener() + noted_.streams(2).accepted().listener(),
            3 + kMade);
  files_.fetch_accepted(::getpid(), noted_);
  const auto streams = files_.take_streams();
  ASSERT_EQ(streams.size(), 4U);
  EXPECT_TRUE(streams[3].is_listener);
  EXPECT_EQ(streams[3].id, kMade);
  EXPECT_EQ(*SocketName::of(streams[3].real.get()), name);
}

TEST_F(AcceptedFilesTest, WhatIsOfAnotherAddressHasNotComeToTheListener) {
  const SocketName name = *SocketName::of(listener_.get());
  const SocketName elsewhere = SocketName::of_address({"\x7F\0\0\x02", 4}, name.port());
  image_.mutable_objects()->mutable_listeners(0)->set_name(elsewhere.to_bytes());
  note_unnoted(::getpid(), image_, noted_);
  EXPECT_EQ(noted_.streams_size(), 1);
}

TEST_F(AcceptedFilesTest, ADescriptorThatIsAnothersByNowIsNotTakenForThatOfBefore) {
  const int number = links_[0].release();
  ASSERT_EQ(::dup3(links_[1].get(), number, O_CLOEXEC), number);
  links_[0].reset(number);
  links_[1].reset();
  note_unnoted(::getpid(), image_, noted_);
  ASSERT_EQ(noted_.streams_size(), 2);
  EXPECT_EQ(noted_.streams(0).deputy_descriptor(), 0U);
  EXPECT_EQ(noted_.streams(1).id(), 5U);
  EXPECT_EQ(noted_.streams(1).deputy_descriptor(), static_cast<std::uint32_t>(number));
  files_.fetch_accepted(::getpid(), noted_);
  const auto streams = files_.take_streams();
  ASSERT_EQ(streams.size(), 2U);
  EXPECT_FALSE(streams[0].real.valid());
  EXPECT_EQ(*SocketName::of_peer(streams[1].real.get()), *SocketName::of(peers_[1].get()));
}

TEST_F(RealFilesTest, StreamsThatNobodyHasAreNoted) {
  wire::HomeRelayState noted;
  wire::HomeRelayState::Stream& stream = *noted.add_streams();
  stream.set_id(5);
  stream.set_directions(wire::RELAY_BOTH);
  files_.note_streams(noted);
  const auto streams = files_.take_streams();
  ASSERT_EQ(streams.size(), 1U);
  EXPECT_EQ(streams[0].id, 5U);
  EXPECT_FALSE(streams[0].real.valid());
}

TEST_F(RealFilesTest, AFileOfAnAncestorGoesOnWhereTheProcessLeftIt) {
  files_.fetch_shared(::getpid(), image_);
  wire::RelayExited exited;
  wire::RelayExited::Position& position = *exited.add_positions();
  position.set_shared_id(7);
  position.set_offset(4242);
  exited.add_positions()->set_shared_id(8);  // Of which nothing is known here.
  files_.set_positions(exited, "sleep 9");
  EXPECT_EQ(::lseek(file_.get(), 0, SEEK_CUR), 4242);
  exited.mutable_positions(0)->set_offset(1);
  files_.set_positions(exited, "sleep 9");  // It was let go.
  EXPECT_EQ(::lseek(file_.get(), 0, SEEK_CUR), 4242);
}

TEST_F(RealFilesTest, ADeputyKeepsStreamsAndSharedFiles) {
  const auto number = [](const UniqueFd& fd) { return static_cast<std::uint32_t>(fd.get()); };
  EXPECT_EQ(descriptors_to_keep(image_, true),
            (std::set<std::uint32_t>{number(reader_), number(writer_), number(file_)}));
  EXPECT_EQ(descriptors_to_keep(image_, false),
            (std::set<std::uint32_t>{number(reader_), number(writer_)}));
}

TEST_F(RealFilesTest, AFreshLinkHasTheStreamsOfTheImage) {
  const wire::RelayState state = RealFiles::fresh_relay(image_);
  ASSERT_EQ(state.streams_size(), 2);
}

}  // namespace
}  // namespace migrate
