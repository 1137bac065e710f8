#include "libmigrate/balance/job.h"

#include <algorithm>

namespace migrate::balance {

Placement current_placement(const Job& job) {
  Placement placement;
  placement.reserve(job.ranks.size());
  for (const Rank& rank : job.ranks) {
    placement.push_back(rank.host);
  }
  return placement;
}

void Load::add(const Rank& rank) {
  work_s += rank.work_s;
  largest_s = std::max(largest_s, rank.work_s);
  memory_bytes += rank.memory_bytes;
}

double step_on(const Host& host, const Load& load) {
  if (load.work_s <= 0) {
    return 0;
  }
  if (host.processors <= 0 || host.speed <= 0) {
    return std::numeric_limits<double>::infinity();
  }
  const double of_one = host.speed * std::min(host.processors, 1.0);
  return std::max(load.work_s / (host.processors * host.speed), load.largest_s / of_one) +
         host.delay_s;
}

std::vector<Load> loads_of(const Job& job, const Placement& placement) {
  std::vector<Load> loads(job.hosts.size());
  for (std::size_t rank = 0; rank < placement.size(); ++rank) {
    loads[placement[rank]].add(job.ranks[rank]);
  }
  return loads;
}

double step_seconds(const Job& job, const Placement& placement) {
  const std::vector<Load> loads = loads_of(job, placement);
  std::vector<double> sent_bytes(job.hosts.size());
  for (const Traffic& each : job.traffic) {
    const std::uint32_t one = placement[each.one];
    const std::uint32_t other = placement[each.other];
    if (one != other) {
      sent_bytes[one] += each.bytes;
      sent_bytes[other] += each.bytes;
    }
  }
  double longest = 0;
  for (std::size_t host = 0; host < loads.size(); ++host) {
    longest = std::max(
        longest, step_on(job.hosts[host], loads[host]) + sent_bytes[host] / job.link_bytes_per_s);
  }
  return longest + by_home_seconds(job, placement);
}

double by_home_seconds(const Job& job, const Placement& placement) {
  const auto goes_by_home = [&](std::uint32_t rank) {
    return job.ranks[rank].by_home || placement[rank] != job.ranks[rank].host;
  };
  std::vector<double> seconds(job.ranks.size());
  double longest = 0;
  for (const Traffic& each : job.traffic) {
    const int homes = (goes_by_home(each.one) ? 1 : 0) + (goes_by_home(each.other) ? 1 : 0);
    for (const std::uint32_t rank : {each.one, each.other}) {
      seconds[rank] += homes * job.by_home.seconds(each);
      longest = std::max(longest, seconds[rank]);
    }
  }
  return longest;
}

std::vector<double> prices_of_moving(const Job& job) {
  std::vector<double> prices(job.ranks.size());
  for (const Traffic& each : job.traffic) {
    for (const std::uint32_t rank : {each.one, each.other}) {
      prices[rank] += job.ranks[rank].by_home ? 0 : job.by_home.seconds(each);
    }
  }
  return prices;
}

double step_bound(const Job& job) {
  Load all;
  for (const Rank& rank : job.ranks) {
    all.add(rank);
  }
  double capacity = 0;
  double fastest = 0;
  for (const Host& host : job.hosts) {
    if (host.usable) {
      capacity += host.processors * host.speed;
      fastest = std::max(fastest, host.speed * std::min(host.processors, 1.0));
    }
  }
  if (all.work_s <= 0) {
    return 0;
  }
  return capacity > 0 ? std::max(all.work_s / capacity, all.largest_s / fastest)
                      : std::numeric_limits<double>::infinity();
}

}  // namespace migrate::balance
