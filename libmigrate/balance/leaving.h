#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "libmigrate/balance/move_costs.h"

namespace migrate::balance {

/// A process that is to leave its host.
struct Leaving {
  std::uint64_t memory_bytes = 0;  ///< That a move of it would send.
  std::string home;                ///< Address of its home, if that is another host.
};

/// A host where it could go.
struct Refuge {
  std::string address;
  std::uint64_t memory_bytes = 0;  ///< Free, also after those that have gone there.
};

/// In which order they leave: those first that are away soonest, so that most are away when time is
/// up. Indices of `processes`.
std::vector<std::size_t> order_of_leaving(const std::vector<Leaving>& processes,
                                          const MoveCosts& costs);

/// Seconds until a process has left, nothing owed to it by its source any more.
double seconds_to_leave(const Leaving& process, const MoveCosts& costs);

/// Where a process is to be offered, one host after the other: at its home, where it needs no way
/// by home any more, then where most memory is free. Those without room for it are not among them.
/// Indices of `hosts`.
std::vector<std::size_t> refuges_of(const Leaving& process, const std::vector<Refuge>& hosts);

}  // namespace migrate::balance
