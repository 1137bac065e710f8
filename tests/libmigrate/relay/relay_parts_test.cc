// What relays are made of, each part by itself: bytes of a stream, ends of connections, links.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <span>
#include <string>
#include <thread>
#include <utility>

#include "base/unique_fd.h"
#include "libmigrate/links/tcp_pair.h"
#include "libmigrate/relay/connection_end.h"
#include "libmigrate/relay/link.h"
#include "libmigrate/relay/stream_buffer.h"
#include "libmigrate/relay/terminal_frames.h"
#include "transport/memory_channel.h"

namespace migrate {
namespace {

TEST(StreamBuffer, BytesKeepTheirOffsets) {
  StreamBuffer buffer(100);
  EXPECT_TRUE(buffer.empty());
  EXPECT_EQ(buffer.end(), 100U);
  buffer.append("abcdef");
  EXPECT_EQ(buffer.first(), 100U);
  EXPECT_EQ(buffer.end(), 106U);
  EXPECT_EQ(buffer.view(102, 3), "cde");
  EXPECT_EQ(buffer.view(104, 100), "ef");
  EXPECT_EQ(buffer.view(106, 1), "");
  buffer.drop_to(102);
  buffer.drop_to(102);  // Said twice.
  EXPECT_EQ(buffer.first(), 102U);
  EXPECT_EQ(buffer.size(), 4U);
  EXPECT_EQ(buffer.view(102, 2), "cd");
  buffer.append("gh");
  EXPECT_EQ(buffer.view(102, 100), "cdefgh");
  buffer.drop_to(108);
  EXPECT_TRUE(buffer.empty());
  buffer.append("i");
  EXPECT_EQ(buffer.view(108, 1), "i");
}

TEST(StreamBuffer, WhatWasDroppedTakesNoRoomForLong) {
  StreamBuffer buffer;
  std::uint64_t dropped = 0;
  for (int i = 0; i < 100; ++i) {
    buffer.append(std::string(3000, static_cast<char>('a' + i % 26)));
    dropped += 2900;
    buffer.drop_to(dropped);
    ASSERT_EQ(buffer.first(), dropped);
    ASSERT_EQ(buffer.end(), static_cast<std::uint64_t>(i + 1) * 3000);
    const std::uint64_t last = buffer.end() - 1;
    ASSERT_EQ(buffer.view(last, 1)[0], static_cast<char>('a' + i % 26));
    ASSERT_EQ(buffer.view(dropped, 1)[0], static_cast<char>('a' + dropped / 3000 % 26));
  }
  EXPECT_EQ(buffer.size(), 10'000U);
}

TEST(TerminalFrames, TheLongestIsAFullLine) {
  std::string frames;
  add_frame(frames, TerminalFrame::kPart, std::string(kMostTerminalFrame, 'x'));
  const auto unit = first_unit(frames);
  ASSERT_TRUE(unit && *unit);
  EXPECT_EQ((*unit)->content.size(), kMostTerminalFrame);
  EXPECT_EQ((*unit)->bytes, frames.size());
  EXPECT_EQ(whole_units(frames, frames.size() - 1), 0U);
  frames[3] = '\x10';
  frames[2] = '\x01';  // One byte more.
  EXPECT_FALSE(first_unit(frames));
}

TEST(TerminalFrames, EachKindComesBackWithItsContent) {
  const std::pair<TerminalFrame, std::size_t> kinds[] = {
      {TerminalFrame::kLine, 0},       {TerminalFrame::kPart, 9}, {TerminalFrame::kSettings, 44},
      {TerminalFrame::kForeground, 1}, {TerminalFrame::kGoOn, 0}, {TerminalFrame::kReturned, 8}};
  std::string frames;
  for (const auto& [kind, length] : kinds) {
    add_frame(frames, kind, std::string(length, '\xFF'));  // As the byte that begins a frame.
  }
  std::string_view left(frames);
  for (const auto& [kind, length] : kinds) {
    const auto unit = first_unit(left);
    ASSERT_TRUE(unit && *unit);
    EXPECT_EQ((*unit)->kind, kind);
    EXPECT_EQ((*unit)->content, std::string(length, '\xFF'));
    left.remove_prefix((*unit)->bytes);
  }
  EXPECT_FALSE(first_unit(left).value());
}

/// A connection of this host with itself: `own` is read and written by a relay, `peer` by others.
class ConnectionEnds : public testing::Test {
 protected:
  void SetUp() override {
    const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::listen(listener.get(), 1), 0);
    const SocketName name = *SocketName::of(listener.get());
    peer_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(peer_.get(), name.address(), name.size()), 0);
    own_.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    ConnectionEnd::prepare(own_.get());
    const TcpCounts counts = count_bytes(own_.get()).value();
    start_ = {.taken = counts.taken, .given = counts.given, .read_at = 50, .written_at = 70};
  }
  void send(std::string_view bytes, int flags = 0) {
    ASSERT_EQ(::send(peer_.get(), bytes.data(), bytes.size(), flags),
              static_cast<ssize_t>(bytes.size()));
  }
  void await(int fd) const {
    pollfd waits{fd, POLLIN, 0};
    ASSERT_EQ(::poll(&waits, 1, 60'000), 1);
  }
  std::string received(std::size_t count) {
    std::string bytes(count, '\0');
    const ssize_t got = ::recv(peer_.get(), bytes.data(), count, MSG_WAITALL);
    bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return bytes;
  }

  UniqueFd own_;
  UniqueFd peer_;
  ConnectionEnd::Start start_;
};

TEST_F(ConnectionEnds, WhatIsReadStaysUntilItIsTaken) {
  ConnectionEnd end(start_);
  StreamBuffer read(50);
  EXPECT_EQ(end.read(own_.get(), read, 10), ConnectionEnd::Read::kGoesOn);
  EXPECT_TRUE(read.empty());
  EXPECT_FALSE(end.is_take_due());
  send("hello");
  await(own_.get());
  EXPECT_EQ(end.read(own_.get(), read, 4), ConnectionEnd::Read::kGoesOn);
  EXPECT_EQ(read.view(50, 100), "hell");
  EXPECT_TRUE(end.is_take_due());
  end.read(own_.get(), read, 4);  // Nothing before that was taken.
  EXPECT_EQ(read.end(), 54U);
  EXPECT_EQ(count_bytes(own_.get())->unread, 5U);
  EXPECT_TRUE(end.is_short_of(start_.taken + 5, read.end()));
  end.take(own_.get());
  EXPECT_FALSE(end.is_take_due());
  EXPECT_EQ(count_bytes(own_.get())->unread, 1U);
  end.read(own_.get(), read, 0);  // No window.
  EXPECT_EQ(read.end(), 54U);
  end.read(own_.get(), read, 100);
  EXPECT_EQ(read.view(54, 100), "o");
  EXPECT_FALSE(end.is_short_of(start_.taken + 5, read.end()));
}

TEST_F(ConnectionEnds, TheNextWorkerTakesWhatTheFirstHadNoted) {
  ConnectionEnd first(start_);
  StreamBuffer read(50);
  StreamBuffer written(70);
  send("hello");
  await(own_.get());
  first.read(own_.get(), read, 100);
  written.append("answer");
  EXPECT_EQ(first.write(own_.get(), written), ConnectionEnd::Written::kFine);
  EXPECT_TRUE(written.empty());
  wire::ConnectionPlace place;
  first.note(place);
  // It dies before it has taken what it has read, and noted what it has written.
  ConnectionEnd next({});
  EXPECT_EQ(next.adopt(place, own_.get(), read, 72).value(), 76U);
  EXPECT_EQ(count_bytes(own_.get())->unread, 0U);
  EXPECT_FALSE(next.is_take_due());
  EXPECT_FALSE(next.is_reset());
  EXPECT_EQ(next.adopt(place, own_.get(), read, 76).value(), 76U);
  EXPECT_EQ(received(6), "answer");
  send("!");
  await(own_.get());
  next.read(own_.get(), read, 100);
  EXPECT_EQ(read.view(50, 100), "hello!");
}

TEST_F(ConnectionEnds, AnEndComesBehindTheBytes) {
  ConnectionEnd end(start_);
  StreamBuffer read(50);
  send("x");
  ::shutdown(peer_.get(), SHUT_WR);
  await(own_.get());
  EXPECT_EQ(end.read(own_.get(), read, 100), ConnectionEnd::Read::kGoesOn);
  end.take(own_.get());
  await(own_.get());
  EXPECT_EQ(end.read(own_.get(), read, 100), ConnectionEnd::Read::kEnded);
  EXPECT_FALSE(end.is_reset());
  EXPECT_EQ(read.view(50, 100), "x");
}

TEST_F(ConnectionEnds, AResetIsNotedAndKnownToTheNext) {
  ConnectionEnd end(start_);
  StreamBuffer read(50);
  ConnectionEnd::reset(peer_.get());
  await(own_.get());
  EXPECT_EQ(end.read(own_.get(), read, 100), ConnectionEnd::Read::kReset);
  EXPECT_TRUE(end.is_reset());
  wire::ConnectionPlace place;
  end.note(place);
  ConnectionEnd next({});
  ASSERT_TRUE(next.adopt(place, own_.get(), read, 70));
  EXPECT_TRUE(next.is_reset());
  StreamBuffer written(70);
  written.append("too late");
  EXPECT_EQ(next.write(own_.get(), written), ConnectionEnd::Written::kBroken);
  EXPECT_EQ(written.size(), 8U);
}

TEST_F(ConnectionEnds, TheUrgentByteIsReadByItselfAndWrittenInItsPlace) {
  ConnectionEnd end(start_);
  StreamBuffer read(50);
  send("ab");
  send("!", MSG_OOB);
  send("cd");
  while (read.end() < 55) {
    await(own_.get());
    end.read(own_.get(), read, 100);
    end.take(own_.get());
  }
  EXPECT_EQ(read.view(50, 100), "ab!cd");
  EXPECT_EQ(end.urgent(), 52U);
  wire::ConnectionPlace place;
  end.note(place);
  EXPECT_EQ(place.urgent(), 52U);
  StreamBuffer written(70);
  written.append("wxyz");
  end.write_urgently(72);
  EXPECT_EQ(end.write(own_.get(), written), ConnectionEnd::Written::kFine);
  EXPECT_EQ(received(2), "wx");
  char urgent = 0;
  pollfd waits{peer_.get(), POLLPRI, 0};
  ASSERT_EQ(::poll(&waits, 1, 60'000), 1);
  ASSERT_EQ(::recv(peer_.get(), &urgent, 1, MSG_OOB), 1);
  EXPECT_EQ(urgent, 'y');
  EXPECT_EQ(received(1), "z");
}

TEST(Link, MessagesComeInTheirOrderAndItsEndBehindThem) {
  auto [near, far] = make_memory_channels().value();
  Link receives(std::move(far));
  EXPECT_FALSE(receives.receive().value());
  {
    Link sends(std::move(near));
    for (std::uint32_t number = 0; number < 300; ++number) {  // More than the channel holds.
      wire::RelayMessage message;
      message.mutable_taken()->set_stream(number);
      sends.send(message);
    }
    for (std::uint32_t number = 0; number < 300;) {
      const auto message = receives.receive().value();
      if (!message) {
        if (!receives.arm()) {
          pollfd waits{receives.poll_fd(), POLLIN, 0};
          ASSERT_EQ(::poll(&waits, 1, 60'000), 1);
        }
        continue;
      }
      ASSERT_EQ(message->taken().stream(), number++);
    }
    while (!sends.idle()) {
      std::this_thread::yield();
    }
  }
  EXPECT_EQ(receives.receive().error().code, ErrorCode::kPeerLost);
}

TEST(Link, BytesThatAreNoMessageAreCorrupt) {
  auto [near, far] = make_memory_channels().value();
  Link receives(std::move(far));
  const std::string nonsense = "\xff\xff\xff";
  ASSERT_TRUE(near->send_one(std::as_bytes(std::span(nonsense))));
  EXPECT_EQ(receives.receive().error().code, ErrorCode::kCorrupt);
}

TEST(Link, APeerThatTakesNothingIsCutOff) {
  auto [near, far] = make_memory_channels().value();
  Link sends(std::move(near));
  wire::RelayMessage message;
  message.mutable_data()->set_content(std::string(std::size_t{1} << 20U, 'x'));
  for (int i = 0; i < 64; ++i) {  // 8 MiB in the channel, 32 MiB before it, and more.
    sends.send(message);
  }
  EXPECT_FALSE(sends.receive());
}

}  // namespace
}  // namespace migrate
