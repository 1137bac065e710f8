// Whole lives of the worker of a guest, from the offer to the end.
#include "libmigrate/guest/guest_worker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <thread>

#include "libmigrate/state/registry.h"
#include "tests/libmigrate/guest/arrival_world.h"

namespace migrate {
namespace {

class GuestWorkerTest : public testing::Test {
 protected:
  /// A worker, while the source does that; the home listens once `script` is over.
  void work(const std::function<void()>& script) {
    PeerTrust::Peer peer = world_.connect_source();
    std::atomic<bool> over = false;
    auto others = std::async(std::launch::async, [&] {
      script();
      world_.close_pages();
      while (!over) {
        static_cast<void>(world_.home->handle());
        std::this_thread::sleep_for(std::chrono::microseconds(100));
      }
    });
    GuestWorld world = world_.world();
    world.clock = [this] { return now_us_ += world_.has("run") ? tick_us_ : 0; };
    run_destination_worker(
        world_.context, std::move(peer), {.purpose = Purpose::kOffer, .session = world_.session},
        [this](int) { ++world_.workers; }, world);
    over = true;
    others.get();
  }

  std::int64_t now_us_ = 1'000'000'000;
  std::int64_t tick_us_ = 0;  // that pass with each look at the clock, once it runs
  ArrivalWorld world_;
};

TEST_F(GuestWorkerTest, FromTheOfferToTheEnd) {
  world_.cell_events = {{CellEvent::Kind::kStatus, 3 << 8}, {CellEvent::Kind::kEmpty, 0}};
  world_.on_step = [this](const std::string& step) {
    if (step == "run") {  // The init is the first to know that it has ended.
      reinterpret_cast<SessionMark*>(world_.mark.bytes().data())->phase.note_end(3 << 8);
    }
  };
  work([this] {
    world_.hand_over();
    world_.send_run();
    auto told = world_.hear();
    EXPECT_TRUE(told && told->has_running());
    for (told = world_.hear(); told && !told->progress().done(); told = world_.hear()) {
    }
    ASSERT_TRUE(told);
    wire::ControlMessage goodbye;
    goodbye.mutable_goodbye();
    EXPECT_TRUE(world_.source->send(goodbye));
  });
  EXPECT_EQ(world_.workers, 1);
  ASSERT_TRUE(world_.exited);
  EXPECT_EQ(world_.exited->wait_status(), 3 << 8);
  EXPECT_EQ(world_.exited->lost(), "");
  EXPECT_EQ(world_.phase(), "Over");
  EXPECT_FALSE(std::filesystem::exists(world_.session_path()));  // All know.
}

TEST_F(GuestWorkerTest, NoneForAnOfferThatIsRefused) {
  world_.context.policy = HostPolicy();
  work([this] {
    world_.send_offer(world_.offer());
    const auto reply = world_.hear();
    EXPECT_TRUE(reply && reply->has_offer_reply());
    EXPECT_EQ(reply->offer_reply().refusals(0).code(), "NOT_ALLOWED");
    world_.source.reset();
  });
  EXPECT_EQ(world_.workers, 0);
  EXPECT_TRUE(world_.steps.empty());
}

TEST_F(GuestWorkerTest, NoneForOneWhoOnlyAsks) {
  work([this] {
    wire::Offer offer = world_.offer();
    offer.set_mode("check");
    world_.send_offer(offer);
    const auto reply = world_.hear();
    EXPECT_TRUE(reply && reply->has_offer_reply());
    EXPECT_EQ(reply->offer_reply().refusals_size(), 0);
    world_.source.reset();
  });
  EXPECT_EQ(world_.workers, 0);
  EXPECT_TRUE(world_.steps.empty());
}

TEST_F(GuestWorkerTest, EndsWithAProcessThatNeverRan) {
  // A worker that runs it all the same comes to an end, too.
  world_.cell_events = {{CellEvent::Kind::kStatus, 0}, {CellEvent::Kind::kEmpty, 0}};
  tick_us_ = 11'000'000;
  work([this] {
    world_.hand_over();
    world_.source.reset();
  });
  EXPECT_FALSE(world_.has("release"));
  auto registry = Registry::open(world_.directory.path()).value();
  EXPECT_TRUE(registry.list().value().empty());
}

}  // namespace
}  // namespace migrate
