#include "libmigrate/host/mailbox.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "libmigrate/host/letter_request.h"
#include "libmigrate/host/mailbox_path.h"
#include "libmigrate/host/worker_over.h"
#include "tests/libmigrate/host/clients.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

constexpr int kWaitMs = 1000;
const std::string kRequest = R"({"command":"check"})";

class MailboxTest : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directory(mailbox_directory(directory_.path())); }

  Mailbox make() { return Mailbox::create(directory_.path(), "ab").value(); }

  /// What the daemon does for a client, whose other end is given; nothing if there is no worker.
  std::optional<UniqueFd> ask() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    const UniqueFd ours(ends[0]);
    UniqueFd theirs(ends[1]);
    const auto handed =
        hand_to_worker(directory_.path(), "ab", ours.get(), std::as_bytes(std::span(kRequest)));
    return handed && *handed ? std::optional(std::move(theirs)) : std::nullopt;
  }

  static Admission nobody() { return {.trust = PeerTrust(false), .token = {}, .rules = {}}; }

  test::TemporaryDirectory directory_;
};

TEST_F(MailboxTest, WhatWasSentBeforeItClosedIsReceived) {
  Mailbox mailbox = make();
  const auto first = ask();
  const auto second = ask();
  mailbox.close();
  EXPECT_EQ(ask(), std::nullopt);
  for (int i = 0; i < 2; ++i) {
    const auto letter = mailbox.receive(0);
    ASSERT_TRUE(letter) << letter.error().message();
    EXPECT_EQ(letter->request, kRequest);
  }
  EXPECT_EQ(mailbox.receive(0).error().code, ErrorCode::kRetry);
}

TEST_F(MailboxTest, TheNextWorkerListensWhenItIsClosed) {
  std::optional<Mailbox> old = make();
  old->close();
  Mailbox next = make();
  old.reset();
  const auto client = ask();
  ASSERT_TRUE(client);
  ASSERT_TRUE(next.open(nobody()));
  EXPECT_TRUE(next.receive(kWaitMs));
}

TEST_F(MailboxTest, WhatNobodyReceivedIsRefused) {
  std::optional<Mailbox> mailbox = make();
  const auto client = ask();
  ASSERT_TRUE(client);
  mailbox.reset();
  EXPECT_NE(test::read_all(*client).find("its worker has ended; try again"), std::string::npos);
}

// Sixty-four letters wait at most.
TEST_F(MailboxTest, WhatCannotBeKeptIsRefused) {
  constexpr int kMostLetters = 64;
  Mailbox mailbox = make();
  ASSERT_TRUE(mailbox.open(nobody()));
  std::vector<UniqueFd> clients;
  for (int i = 0; i < kMostLetters; ++i) {
    clients.push_back(ask().value());
  }
  const auto one_more = ask();
  ASSERT_TRUE(one_more);
  const std::string answer = test::read_all(*one_more);
  EXPECT_NE(answer.find("its worker is busy, and too many others wait; try again"),
            std::string::npos)
      << answer;
  for (int i = 0; i < kMostLetters; ++i) {
    EXPECT_TRUE(mailbox.receive(kWaitMs)) << i;
  }
  const auto later = ask();
  ASSERT_TRUE(later);
  EXPECT_TRUE(mailbox.receive(kWaitMs));
}

TEST_F(MailboxTest, TheLastPhaseAnswers) {
  Mailbox mailbox = make();
  const auto client = ask();
  ASSERT_TRUE(client);
  WorkerOver over(MIGRATE_ERROR, make_error(ErrorCode::kNotFound, "carry out a request",
                                            "process 5", "it has ended"));
  run_phase(mailbox, over);
  EXPECT_NE(test::read_all(*client).find("it has ended"), std::string::npos);
  EXPECT_EQ(ask(), std::nullopt);
}

// Whoever was told that there is a worker gets an answer, at whatever moment that ends.
TEST_F(MailboxTest, NoLetterIsLostWhenAWorkerEnds) {
  constexpr int kRounds = 200;
  constexpr int kSenders = 3;
  std::atomic<int> answered = 0;
  for (int round = 0; round < kRounds; ++round) {
    Mailbox mailbox = make();
    ASSERT_TRUE(mailbox.open(nobody()));
    std::vector<std::thread> senders;
    for (int i = 0; i < kSenders; ++i) {
      senders.emplace_back([&] {
        for (auto client = ask(); client; client = ask()) {
          EXPECT_NE(test::read_all(*client), "");
          ++answered;
        }
      });
    }
    refuse_letter(mailbox.receive(kWaitMs).value(), MIGRATE_ERROR,
                  make_error(ErrorCode::kRetry, "carry out a request"));
    WorkerOver over(MIGRATE_ERROR, make_error(ErrorCode::kRetry, "carry out a request"));
    run_phase(mailbox, over);
    for (std::thread& sender : senders) {
      sender.join();
    }
  }
  EXPECT_GE(answered, kRounds);
}

}  // namespace
}  // namespace migrate
