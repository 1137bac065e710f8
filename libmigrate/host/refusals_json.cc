#include "libmigrate/host/refusals_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

namespace migrate {
namespace {

constexpr std::size_t kMostOthers = 15;

void add(nlohmann::json& list, nlohmann::json one) {
  const auto same = std::find_if(list.begin(), list.end(), [&one](const nlohmann::json& other) {
    return other["code"] == one["code"];
  });
  if (same == list.end()) {
    one["count"] = 1;
    list.push_back(std::move(one));
    return;
  }
  (*same)["count"] = (*same)["count"].get<int>() + 1;
  nlohmann::json& others = (*same)["others"];
  if (others.size() < kMostOthers) {
    others.push_back(std::move(one["object"]));
  }
}

}  // namespace

nlohmann::json to_json(const Refusals& refusals) {
  nlohmann::json list = nlohmann::json::array();
  for (const wire::Refusal& refusal : refusals) {
    add(list, {{"code", refusal.code()},
               {"object", refusal.object()},
               {"reason", refusal.reason()},
               {"remedy", refusal.remedy()}});
  }
  return list;
}

nlohmann::json to_json(const std::vector<Loss>& losses) {
  nlohmann::json list = nlohmann::json::array();
  for (const Loss& loss : losses) {
    add(list, {{"code", loss.code},
               {"object", loss.object},
               {"reason", loss.reason},
               {"remedy", loss.remedy}});
  }
  return list;
}

}  // namespace migrate
