#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace migrate {

/// What `migratectl drain` and `undrain` say: a line for people as things happen, or one JSON
/// object at the end (docs/output.schema.json, "drain", "undrain").
class DrainLog {
 public:
  explicit DrainLog(bool as_json) : as_json_(as_json) {}

  /// `process`: of the daemon's answer. `move`: where it went, or would go, and what that came to.
  void leaves(const nlohmann::json& process, nlohmann::json move);
  /// Why it stays: a refusal, or what went wrong (an object with code, reason, perhaps remedy).
  void stays(const nlohmann::json& process, nlohmann::json why);
  /// Prints the end. `told`: the daemon's answer afterwards, with the processes that are away.
  void end(const nlohmann::json& told, bool only_plans) const;

  bool all_left() const { return stays_.empty(); }

 private:
  bool as_json_;
  nlohmann::json left_ = nlohmann::json::array();
  nlohmann::json stays_ = nlohmann::json::array();
};

}  // namespace migrate
