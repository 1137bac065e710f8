#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "libmigrate/balance/balancer.h"
#include "libmigrate/balance/measurement.h"

namespace migrate {

/// A move of a rank, as it was expected and as it was.
struct RankMove {
  std::uint32_t rank = 0;
  std::int64_t pid = 0;
  std::string from;
  std::string to;
  double memory_bytes = 0;
  balance::MoveCosts expected;
};

/// What `migratectl balance` says: a line for people, or a JSON object a line
/// (docs/output.schema.json, "balance"), at once.
class BalanceLog {
 public:
  BalanceLog(std::string job, bool as_json) : job_(std::move(job)), as_json_(as_json) {}

  /// `carries_out`: false where the policy is to plan only.
  void decision(const balance::Plan& plan, const balance::Measurement& measured,
                const std::vector<std::string>& hosts, const std::vector<RankMove>& moves,
                bool carries_out) const;
  /// Nothing can be decided.
  void unmeasured(const std::string& why) const;
  /// `result`: what `migratectl move --json` has printed.
  void moved(const RankMove& move, const std::string& state, const nlohmann::json& result) const;
  void ended(const std::string& why) const;

 private:
  void print(nlohmann::json line) const;

  std::string job_;
  bool as_json_;
};

/// Of the result of a move: how long the process stood still, and until nothing was owed to it.
/// Zero if the result does not say.
balance::MeasuredMove measured_move(const RankMove& move, const nlohmann::json& result);

}  // namespace migrate
