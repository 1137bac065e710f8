#include "libmigrate/relay/socket_end.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <string>

#include "libmigrate/relay/home_stream.h"

namespace migrate {
namespace {

/// A relay's end, the other side's, and what a worker that dies leaves.
class SocketEnds : public ::testing::Test {
 protected:
  void SetUp() override {
    ::signal(SIGPIPE, SIG_IGN);  // As in every worker: splice(2) knows no MSG_NOSIGNAL.
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
    ours.reset(ends[0]);
    theirs.reset(ends[1]);
    ASSERT_TRUE(end.open_journal());
  }

  void say(const std::string& text) {
    ASSERT_EQ(::send(theirs.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  }
  std::string hear() const {
    std::string text(1U << 20U, '\0');
    const ssize_t count = ::recv(theirs.get(), text.data(), text.size(), MSG_DONTWAIT);
    return count < 0 ? "nothing" : text.substr(0, static_cast<std::size_t>(count));
  }
  void note() {
    noted.Clear();
    end.note(noted);
    noted_read = read;
  }
  /// The worker dies; another one goes on with what was noted.
  void die() {
    UniqueFd journal(::dup(end.journal()));
    end = SocketEnd();
    read = noted_read;
    written = end.adopt(noted, ours.get(), std::move(journal), written);
  }
  void read_some(std::uint64_t most = 100) {
    EXPECT_EQ(end.read(ours.get(), read, most), SocketEnd::Read::kGoesOn);
  }
  std::string text() const { return std::string(read.view(read.first(), read.size())); }

  UniqueFd ours;
  UniqueFd theirs;
  SocketEnd end;
  StreamBuffer read;
  StreamBuffer noted_read;
  wire::SocketPlace noted;
  std::uint64_t written = 0;
};

TEST_F(SocketEnds, WhatWasCopiedAndNotNotedIsReadAgain) {
  note();
  say("abc");
  read_some();
  die();
  EXPECT_EQ(text(), "");
  read_some();
  EXPECT_EQ(text(), "abc");
}

TEST_F(SocketEnds, WhatWasNotedAndNotTakenIsTaken) {
  say("abc");
  read_some();
  note();
  say("def");
  die();
  EXPECT_EQ(text(), "abc");
  read_some();
  EXPECT_EQ(text(), "abcdef");
}

TEST_F(SocketEnds, WhatWasTakenIsNotTakenAgain) {
  say("abc");
  read_some();
  note();
  end.take(ours.get());
  say("def");
  die();
  read_some();
  EXPECT_EQ(text(), "abcdef");
}

TEST_F(SocketEnds, WhatWasCopiedSinceIsNotTakenForIt) {
  say("abc");
  read_some();
  note();
  end.take(ours.get());
  say("def");
  read_some();  // As much as before.
  die();
  EXPECT_EQ(text(), "abc");
  read_some();
  EXPECT_EQ(text(), "abcdef");
}

TEST_F(SocketEnds, OfWhatWasTakenInPartTheRestIsTaken) {
  say("abcdef");
  read_some();
  note();
  std::array<char, 2> part{};
  ASSERT_EQ(::recv(ours.get(), part.data(), part.size(), MSG_DONTWAIT), 2);
  say("ghi");
  die();
  read_some();
  EXPECT_EQ(text(), "abcdefghi");
}

TEST_F(SocketEnds, AnUrgentByteIsOneAsAnyOther) {
  say("ab");
  if (::send(theirs.get(), "c", 1, MSG_OOB) != 1) {
    GTEST_SKIP() << "the kernel has none (CONFIG_AF_UNIX_OOB)";
  }
  for (int turn = 0; turn < 2; ++turn) {
    read_some();
    note();
    end.take(ours.get());
  }
  EXPECT_EQ(text(), "abc");
  EXPECT_FALSE(end.has_more(ours.get()));
  pollfd polled{ours.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&polled, 1, 0), 0);
}

TEST_F(SocketEnds, EveryTurnGoesOnWhereTheWorkerDied) {
  std::string all;
  for (int turn = 0; turn < 200; ++turn) {
    const std::string part(static_cast<std::size_t>(turn % 7 + 1),
                           static_cast<char>('a' + turn % 26));
    say(part);
    all += part;
    read_some(turn % 3 == 0 ? 2 : 100);
    if (turn % 2 == 0) {
      note();
    }
    if (turn % 5 == 0) {
      die();
    } else {
      note();
      end.take(ours.get());
    }
    if (turn % 11 == 0) {
      die();
    }
  }
  for (int turn = 0; turn < 500; ++turn) {
    read_some();
    note();
    end.take(ours.get());
  }
  EXPECT_EQ(text(), all);
}

TEST_F(SocketEnds, WhatWasWrittenIsNotWrittenAgain) {
  StreamBuffer out;
  out.append("abc");
  ASSERT_EQ(end.write(ours.get(), out), SocketEnd::Written::kFine);
  EXPECT_TRUE(out.empty());
  die();  // It had noted nothing.
  EXPECT_EQ(written, 3U);
  EXPECT_EQ(hear(), "abc");
  StreamBuffer next(written);
  next.append("def");
  ASSERT_EQ(end.write(ours.get(), next), SocketEnd::Written::kFine);
  EXPECT_EQ(hear(), "def");
}

TEST_F(SocketEnds, WhatIsInTheJournalIsWrittenWhicheverWorkerEmptiesIt) {
  StreamBuffer out;
  out.append(std::string(1U << 19U, 'x'));  // More than the socket takes.
  while (end.write(ours.get(), out) == SocketEnd::Written::kFine && hear() != "nothing" &&
         out.size() > 400'000) {
  }
  ASSERT_FALSE(out.empty());
  const UniqueFd journal(::dup(end.journal()));
  const std::string path = "/proc/self/fd/" + std::to_string(journal.get());
  SocketEnd interrupted;  // It dies before it has emptied what it cannot read.
  EXPECT_EQ(interrupted.adopt({}, ours.get(), UniqueFd(::open(path.c_str(), O_WRONLY)), 0),
            out.first());
  die();
  EXPECT_EQ(written, out.first());
}

/// Its worker has the real socket, and dies between noting what it has read and taking it.
TEST_F(SocketEnds, HomeTakesWhatItHasNoted) {
  HomeStream first(1, wire::RELAY_BOTH, UniqueFd(::dup(ours.get())), std::nullopt);
  say("abc");
  first.pump_real(POLLIN, true);
  wire::HomeRelayState::Stream state;
  first.note(state);
  ASSERT_EQ(state.in_content(), "abc");
  HomeStream second(1, wire::RELAY_BOTH, UniqueFd(::dup(ours.get())), std::nullopt);
  second.adopt(state);
  say("def");
  second.pump_real(POLLIN, true);
  second.note(state);
  EXPECT_EQ(state.in_content(), "abcdef");
}

/// A worker at home, which has the real socket, and the deputy's end of the journal.
struct HomeWorker {
  HomeWorker(int real, int journal)
      : stream(1, wire::RELAY_BOTH, UniqueFd(::dup(real)), std::nullopt) {
    stream.set_found_journal(UniqueFd(::dup(journal)));
  }
  void put(const std::string& bytes) {
    wire::RelayData data;
    data.set_stream(1);
    data.set_offset(next());
    data.set_content(bytes);
    EXPECT_TRUE(stream.accept_data(data));
  }
  std::uint64_t next() {
    wire::RelayResumed::Stream resumed;
    stream.describe(resumed);
    return resumed.out_next();
  }
  wire::HomeRelayState::Stream note() const {
    wire::HomeRelayState::Stream noted;
    stream.note(noted);
    return noted;
  }
  HomeStream stream;
};

TEST_F(SocketEnds, WhatHomeHasWrittenIsNotWrittenAgain) {
  const timeval own{.tv_sec = 30, .tv_usec = 0};  // The process's, which is no offset.
  ::setsockopt(ours.get(), SOL_SOCKET, SO_SNDTIMEO, &own, sizeof(own));
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const UniqueFd deputys(ends[0]);
  wire::HomeRelayState::Stream state;
  {
    HomeWorker first(ours.get(), -1);
    EXPECT_TRUE(first.stream.needs_journal());
    first.put("a");
    first.stream.pump_real(POLLOUT, true);
    EXPECT_EQ(hear(), "nothing");  // It waits for the journal.
    EXPECT_TRUE(first.stream.begin_journal(AcceptedSocket{UniqueFd(::dup(ends[0])), 77}));
    ::close(ends[1]);
    state = first.note();
    EXPECT_EQ(state.journal_descriptor(), 77U);
  }
  {
    HomeWorker idle(ours.get(), deputys.get());
    idle.stream.adopt(state);
    EXPECT_EQ(idle.next(), 0U);
  }
  {
    HomeWorker second(ours.get(), deputys.get());
    second.stream.adopt(state);
    second.put("abc");
    second.stream.pump_real(POLLOUT, true);
    EXPECT_EQ(hear(), "abc");  // And dies before it has state that.
  }
  HomeWorker third(ours.get(), deputys.get());
  third.stream.adopt(state);
  EXPECT_EQ(third.next(), 3U);
  EXPECT_FALSE(third.stream.needs_journal());
  third.put("def");
  third.stream.pump_real(POLLOUT, true);
  EXPECT_EQ(hear(), "def");
  third.stream.close();
  EXPECT_EQ(third.stream.take_closed_journal(), 77U);
  EXPECT_EQ(third.stream.take_closed_journal(), 0U);
}

TEST_F(SocketEnds, OfWhatHomeWasWritingTheRestComesAgain) {
  ASSERT_EQ(::fcntl(ours.get(), F_SETFL, 0), 0);  // As most programs have them: nobody may wait.
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const UniqueFd deputys(ends[0]);
  std::string sent;
  std::string heard;
  wire::HomeRelayState::Stream state;
  for (int worker = 0; worker < 20; ++worker) {
    HomeWorker home(ours.get(), worker == 0 ? -1 : deputys.get());
    if (worker == 0) {
      ASSERT_TRUE(home.stream.begin_journal(AcceptedSocket{UniqueFd(::dup(ends[0])), 77}));
      ::close(ends[1]);
      state = home.note();
    } else {
      home.stream.adopt(state);
      sent.resize(home.next());
    }
    for (int i = 0; i < 2; ++i) {
      const std::string bytes(30'000, static_cast<char>('a' + (worker * 2 + i) % 26));
      home.put(bytes);
      sent += bytes;
    }
    home.stream.pump_real(POLLOUT, true);
    if (worker % 3 == 0) {
      state = home.note();
    }
    if (worker % 4 == 3) {  // Else the peer reads nothing, and the socket fills.
      for (std::string more = hear(); more != "nothing"; more = hear()) {
        heard += more;
      }
    }
  }
  HomeWorker last(ours.get(), deputys.get());
  last.stream.adopt(state);
  sent.resize(last.next());
  for (std::string more = hear(); more != "nothing"; more = hear()) {
    heard += more;
  }
  EXPECT_EQ(heard, sent);
}

/// Without a deputy.
TEST_F(SocketEnds, HomeWritesWithoutAJournalWhereThereIsNone) {
  HomeWorker home(ours.get(), -1);
  EXPECT_FALSE(home.stream.begin_journal(fail(make_error(ErrorCode::kRetry, "make a journal"))));
  EXPECT_FALSE(home.stream.needs_journal());
  home.put("abc");
  home.stream.pump_real(POLLOUT, true);
  EXPECT_EQ(hear(), "abc");
}

TEST_F(SocketEnds, ManyBytesGoInPieces) {
  std::string sent;
  std::string heard;
  StreamBuffer out;
  for (int turn = 0; turn < 400; ++turn) {
    std::string part(10'000, '\0');
    for (std::size_t i = 0; i < part.size(); ++i) {
      part[i] = static_cast<char>((sent.size() + i) * 2654435761U >> 13U);
    }
    out.append(part);
    sent += part;
    ASSERT_EQ(end.write(ours.get(), out), SocketEnd::Written::kFine);
    if (turn % 9 == 0) {
      const std::string rest(out.view(out.first(), out.size()));
      written = out.first();
      die();
      ASSERT_EQ(written, out.first());
    }
    if (turn % 4 == 0) {
      const std::string more = hear();
      heard += more == "nothing" ? "" : more;
    }
  }
  while (!out.empty()) {
    ASSERT_EQ(end.write(ours.get(), out), SocketEnd::Written::kFine);
    heard += hear();
  }
  for (std::string more = hear(); more != "nothing"; more = hear()) {
    heard += more;
  }
  EXPECT_TRUE(heard == sent);
}

TEST_F(SocketEnds, AnEndThatIsClosedIsTold) {
  say("abc");
  theirs.reset();
  read_some();
  EXPECT_EQ(end.read(ours.get(), read, 100), SocketEnd::Read::kGoesOn) << "it is not taken yet";
  end.take(ours.get());
  EXPECT_EQ(end.read(ours.get(), read, 100), SocketEnd::Read::kEnded);
  EXPECT_EQ(text(), "abc");
  StreamBuffer out;
  out.append("x");
  EXPECT_EQ(end.write(ours.get(), out), SocketEnd::Written::kBroken);
}

}  // namespace
}  // namespace migrate
