// The loop of a worker: what wakes it, and in which order it does what there is to do.
#include "libmigrate/host/worker_loop.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "libmigrate/host/letter_request.h"
#include "libmigrate/host/mailbox_path.h"
#include "tests/libmigrate/host/clients.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

constexpr int kLongMs = 60'000;  // No test waits for so long: something else wakes it.

/// Writes down what it was called for.
class NotingPhase final : public WorkerPhase {
 public:
  int collect_poll_fds(std::vector<pollfd>& polled) override {
    calls.emplace_back("collect");
    if (event >= 0) {
      polled.push_back({event, POLLIN, 0});
    }
    return pause_ms;
  }
  void on_letter(Letter letter) override {
    calls.push_back("letter " + letter.request);
    refuse_letter(std::move(letter), MIGRATE_FAILED, make_error(ErrorCode::kRetry, "take it"));
  }
  bool step() override {
    calls.emplace_back("step");
    return on_step();
  }
  bool is_last() const override { return last; }

  std::vector<std::string> calls;
  std::function<bool()> on_step = [] { return false; };
  int event = -1;
  int pause_ms = kLongMs;
  bool last = false;
};

class WorkerLoopTest : public testing::Test {
 protected:
  WorkerLoopTest() { std::filesystem::create_directory(mailbox_directory(directory_.path())); }

  Mailbox make() {
    Mailbox mailbox = Mailbox::create(directory_.path(), "ab").value();
    EXPECT_TRUE(mailbox.open({.trust = PeerTrust(false), .token = {}, .rules = {}}));
    return mailbox;
  }
  /// What the daemon does for a client, whose other end is given; nothing if there is no worker.
  std::optional<UniqueFd> ask(const std::string& request) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    const UniqueFd ours(ends[0]);
    UniqueFd theirs(ends[1]);
    const auto handed =
        hand_to_worker(directory_.path(), "ab", ours.get(), std::as_bytes(std::span(request)));
    return handed && *handed ? std::optional(std::move(theirs)) : std::nullopt;
  }

  test::TemporaryDirectory directory_;
  NotingPhase phase_;
};

TEST_F(WorkerLoopTest, APhaseThatHasNothingToDoIsOverAfterOneStep) {
  Mailbox mailbox = make();
  run_phase(mailbox, phase_);
  EXPECT_EQ(phase_.calls, std::vector<std::string>{"step"});
}

TEST_F(WorkerLoopTest, GoesOnUntilItsPhaseIsOver) {
  Mailbox mailbox = make();
  int steps = 0;
  phase_.pause_ms = 0;
  phase_.on_step = [&] { return ++steps < 3; };
  run_phase(mailbox, phase_);
  EXPECT_EQ(phase_.calls, (std::vector<std::string>{"step", "collect", "step", "collect", "step"}));
}

TEST_F(WorkerLoopTest, ALetterWakesItAndComesBeforeTheStep) {
  Mailbox mailbox = make();
  std::optional<UniqueFd> client;
  std::thread asking;
  int steps = 0;
  phase_.on_step = [&] {
    if (++steps == 1) {
      asking = std::thread([&] { client = ask(R"({"command":"check"})"); });
      return true;
    }
    return !phase_.calls[phase_.calls.size() - 2].starts_with("letter");
  };
  run_phase(mailbox, phase_);
  asking.join();
  ASSERT_TRUE(client);
  EXPECT_EQ(phase_.calls[phase_.calls.size() - 2], R"(letter {"command":"check"})");
  EXPECT_NE(test::read_all(*client).find("\"exit\""), std::string::npos);
}

TEST_F(WorkerLoopTest, ADescriptorOfItsPhaseWakesIt) {
  Mailbox mailbox = make();
  const UniqueFd event(::eventfd(0, EFD_CLOEXEC));
  phase_.event = event.get();
  int steps = 0;
  phase_.on_step = [&] {
    EXPECT_EQ(::eventfd_write(event.get(), 1), 0);
    return ++steps < 2;
  };
  run_phase(mailbox, phase_);
  EXPECT_EQ(steps, 2);
}

TEST_F(WorkerLoopTest, BeforeTheLastPhaseNobodyFindsTheWorkerAnyMore) {
  Mailbox mailbox = make();
  const auto before = ask("{}");
  ASSERT_TRUE(before);
  phase_.last = true;
  phase_.on_step = [&] {
    EXPECT_EQ(ask("{}"), std::nullopt);
    return false;
  };
  run_phase(mailbox, phase_);
  EXPECT_EQ(phase_.calls, (std::vector<std::string>{"letter {}", "step"}));
}

// What a client says must not lead out of the folder of mailboxes.
TEST_F(WorkerLoopTest, ANameThatIsNoMailboxIsRefused) {
  for (const char* const name : {"", ".", "..", "../state", "a/b", ".hidden"}) {
    const auto handed = hand_to_worker(directory_.path(), name, STDIN_FILENO, {});
    ASSERT_FALSE(handed) << name;
    EXPECT_EQ(handed.error().code, ErrorCode::kInvalid) << name;
  }
  EXPECT_FALSE(hand_to_worker(directory_.path(), "cd", STDIN_FILENO, {}).value());
}

}  // namespace
}  // namespace migrate
