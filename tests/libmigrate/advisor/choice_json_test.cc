#include "libmigrate/advisor/choice_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace migrate {
namespace {

TEST(ChoiceJson, TellsOfEachModeWhatItWouldComeToOrWhyNot) {
  MoveFacts facts;
  facts.memory.pages = 1000;
  facts.memory.writes.seen = {{200'000, 0}};
  facts.speeds = Speeds().completed({}, 0);
  facts.no_rounds = "DIRECT_IO: a file";
  const nlohmann::json choice = to_json(choose_mode(facts, Wish::kBytes));
  EXPECT_EQ(choice["wish"], "bytes");
  EXPECT_EQ(choice["mode"], "demand");
  ASSERT_EQ(choice["modes"].size(), 5U);
  EXPECT_EQ(choice["modes"][0]["mode"], "lazy");
  EXPECT_GT(choice["modes"][0]["stop_us"], 0);
  EXPECT_TRUE(choice["modes"][1]["independence_us"].is_null());
  EXPECT_EQ(choice["modes"][3]["why_not"], "DIRECT_IO: a file");
  EXPECT_FALSE(choice["modes"][3].contains("stop_us"));
  EXPECT_EQ(choice["pages"], 1000);
}

TEST(ChoiceJson, ComparesWhatIsKnownOnBothSides) {
  Forecast lazy{.plan = {}, .why_not = {}, .independence_us = {}};
  lazy.stop_us = 1000;
  lazy.bytes = 4000;
  lazy.independence_us = 100;
  const nlohmann::json all = to_prediction(lazy, 1500, 4000, 50);
  EXPECT_EQ(all["stop"], 1.5);
  EXPECT_EQ(all["bytes"], 1.0);
  EXPECT_EQ(all["independence"], 0.5);
  lazy.independence_us.reset();
  EXPECT_TRUE(to_prediction(lazy, 1, 1, 1)["independence"].is_null());
}

}  // namespace
}  // namespace migrate
