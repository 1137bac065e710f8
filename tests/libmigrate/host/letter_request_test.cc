#include "libmigrate/host/letter_request.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <utility>

#include "tests/libmigrate/host/clients.h"
#include "transport/memory_channel.h"

namespace migrate {
namespace {

constexpr int kAnswerMs = 1000;

std::string text_of(const Result<std::span<const std::byte>>& bytes) {
  return bytes ? std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size()) : "";
}

/// A letter of a client on this host, and the client's end.
std::pair<Letter, UniqueFd> of_client(const std::string& request) {
  std::array<int, 2> ends{};
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
  Letter letter;
  letter.fd.reset(ends[0]);
  letter.request = request;
  return {std::move(letter), UniqueFd(ends[1])};
}

/// A letter that a peer brought, and the peer's end.
std::pair<Letter, std::unique_ptr<Channel>> of_peer(Purpose purpose) {
  auto [ours, theirs] = make_memory_channels().value();
  Letter letter;
  letter.preamble = Preamble{.purpose = purpose};
  letter.channel = std::move(ours);
  letter.peer.common_name = "home";
  return {std::move(letter), std::move(theirs)};
}

TEST(LetterRequestTest, OfAClientHere) {
  auto [letter, client] = of_client(R"({"command":"check"})");
  ASSERT_TRUE(is_request(letter));
  auto asked = open_request(std::move(letter));
  ASSERT_TRUE(asked);
  EXPECT_EQ(asked->text, R"({"command":"check"})");
  EXPECT_FALSE(asked->home);
  asked->sink.finish(MIGRATE_DONE, nlohmann::json::object());
  EXPECT_NE(test::read_all(client).find("\"exit\":0"), std::string::npos);
}

TEST(LetterRequestTest, PassedOnByItsHome) {
  auto [letter, home] = of_peer(Purpose::kCommand);
  ASSERT_TRUE(is_request(letter));
  const std::string text = R"({"command":"end"})";
  ASSERT_TRUE(home->send_one(std::as_bytes(std::span(text))));
  auto asked = open_request(std::move(letter));
  ASSERT_TRUE(asked);
  EXPECT_EQ(asked->text, text);
  ASSERT_TRUE(asked->home);
  EXPECT_EQ(asked->home->common_name, "home");
  asked->sink.finish(MIGRATE_DONE, nlohmann::json::object());
  EXPECT_NE(text_of(home->receive(0, kAnswerMs)).find("\"exit\":0"), std::string::npos);
}

TEST(LetterRequestTest, AConnectionThatStaysIsNone) {
  for (const Purpose purpose : {Purpose::kUrgent, Purpose::kBulk, Purpose::kResume}) {
    EXPECT_FALSE(is_request(of_peer(purpose).first));
  }
}

// Whoever asks is answered, whether the process comes to run or not.
TEST(EarlyLettersTest, WhatIsNotTakenIsRefused) {
  auto [of_here, client] = of_client(R"({"command":"move"})");
  auto [of_home, home] = of_peer(Purpose::kCommand);
  const std::string text = R"({"command":"end"})";
  ASSERT_TRUE(home->send_one(std::as_bytes(std::span(text))));
  {
    EarlyLetters early;
    early.add(std::move(of_here));
    early.add(std::move(of_home));
    early.add(of_peer(Purpose::kUrgent).first);
  }
  for (const std::string& answer : {test::read_all(client), text_of(home->receive(0, kAnswerMs))}) {
    EXPECT_NE(answer.find("\"exit\":4"), std::string::npos) << answer;
    EXPECT_NE(answer.find("has not come to this host"), std::string::npos) << answer;
  }
}

TEST(EarlyLettersTest, WhatIsTakenIsTheTakers) {
  auto [letter, client] = of_client(R"({"command":"move"})");
  EarlyLetters early;
  early.add(std::move(letter));
  std::vector<Letter> taken = early.take();
  ASSERT_EQ(taken.size(), 1U);
  EXPECT_EQ(taken.front().request, R"({"command":"move"})");
  EXPECT_TRUE(early.take().empty());
}

}  // namespace
}  // namespace migrate
