#include "libmigrate/balance/leaving.h"

#include <algorithm>
#include <numeric>

namespace migrate::balance {

double seconds_to_leave(const Leaving& process, const MoveCosts& costs) {
  return costs.stop_s + costs.transfer_s(static_cast<double>(process.memory_bytes));
}

std::vector<std::size_t> order_of_leaving(const std::vector<Leaving>& processes,
                                          const MoveCosts& costs) {
  std::vector<std::size_t> order(processes.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(
      order, {}, [&](std::size_t each) { return seconds_to_leave(processes[each], costs); });
  return order;
}

std::vector<std::size_t> refuges_of(const Leaving& process, const std::vector<Refuge>& hosts) {
  std::vector<std::size_t> refuges;
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    if (hosts[i].memory_bytes >= process.memory_bytes) {
      refuges.push_back(i);
    }
  }
  std::ranges::stable_sort(refuges, [&](std::size_t one, std::size_t other) {
    const bool one_is_home = !process.home.empty() && hosts[one].address == process.home;
    const bool other_is_home = !process.home.empty() && hosts[other].address == process.home;
    return one_is_home != other_is_home ? one_is_home
                                        : hosts[one].memory_bytes > hosts[other].memory_bytes;
  });
  return refuges;
}

}  // namespace migrate::balance
