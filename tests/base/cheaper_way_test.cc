#include "base/cheaper_way.h"

#include <gtest/gtest.h>

#include <array>
#include <random>

namespace migrate {
namespace {

using std::chrono::nanoseconds;

/// Does something a few times; each way has its cost.
class Work {
 public:
  explicit Work(std::array<long, 3> costs) : costs_(costs) {}

  void set(std::array<long, 3> costs) { costs_ = costs; }
  /// How often each way was taken of so many times.
  std::array<int, 3> run(int times) {
    std::array<int, 3> taken{};
    for (int i = 0; i < times; ++i) {
      const std::size_t way = ways_.way();
      ++taken[way];
      long cost =
          costs_[way] + static_cast<long>(random_() % (static_cast<unsigned>(costs_[way]) / 4));
      cost = random_() % 20 == 0 ? 50 * cost : cost;  // Now and then something is in the way.
      ways_.note(nanoseconds(cost));
    }
    return taken;
  }
  CheaperWay& ways() { return ways_; }

 private:
  CheaperWay ways_{3};
  std::array<long, 3> costs_;
  std::mt19937 random_{1};
};

TEST(CheaperWay, BeginsWithTheFirst) {
  EXPECT_EQ(CheaperWay(3).way(), 0U);
}

TEST(CheaperWay, TakesTheCheapestNearlyAlways) {
  for (std::size_t best = 0; best < 3; ++best) {
    std::array<long, 3> costs{200'000, 200'000, 200'000};
    costs[best] = 100'000;
    Work work(costs);
    work.run(1000);
    EXPECT_GT(work.run(10'000)[best], 9'000) << best;
  }
}

TEST(CheaperWay, FindsThatAnotherHasBecomeCheaper) {
  Work work({100'000, 200'000, 300'000});
  work.run(20'000);
  work.set({400'000, 200'000, 300'000});
  work.run(10'000);
  EXPECT_GT(work.run(10'000)[1], 9'000);
  work.set({400'000, 200'000, 50'000});
  work.run(20'000);
  EXPECT_GT(work.run(10'000)[2], 9'000);
}

TEST(CheaperWay, StaysWhereAnotherIsHardlyCheaper) {
  Work work({100'000, 99'000, 98'000});
  work.run(1000);
  EXPECT_GT(work.run(10'000)[0], 9'000);
}

TEST(CheaperWay, OfOneIsThat) {
  CheaperWay ways(1);
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(ways.way(), 0U);
    ways.note(nanoseconds(i));
  }
}

}  // namespace
}  // namespace migrate
