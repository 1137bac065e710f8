#include "libmigrate/balance/policy.h"

namespace migrate::balance {

const Policy* find_policy(std::string_view word) {
  for (const Policy* policy : kPolicies) {
    if (policy->word == word) {
      return policy;
    }
  }
  return nullptr;
}

}  // namespace migrate::balance
