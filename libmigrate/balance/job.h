#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace migrate::balance {

/// What was measured of one rank of a job, over an interval.
struct Rank {
  double work_s = 0;        ///< Processor seconds of one step, at speed 1, outside MPI calls.
  double memory_bytes = 0;  ///< Resident.
  std::uint32_t host = 0;   ///< Where it runs: an index of Job::hosts.
  bool movable = true;      ///< `check` has nothing against a move.
  /// It has been moved: its connections go by way of home, and will.
  bool by_home = false;
  /// Since it was moved, seconds.
  double rest_s = std::numeric_limits<double>::infinity();
};

/// What was measured of one host.
struct Host {
  double processors = 1;  ///< That the job may use: what quotas and other programs leave of them.
  double speed = 1;       ///< Of one of them; that of the fastest host of the job is 1.
  double memory_bytes = std::numeric_limits<double>::infinity();  ///< That ranks may use.
  /// For so long in a step ranks there wait for a processor within calls of MPI, longer than ranks
  /// of other hosts do: until then they do not see that a message has come.
  double delay_s = 0;
  bool usable = true;  ///< Takes ranks. One that is drained does not, and those on it must leave.
};

/// What two ranks say to each other in one step, both ways together.
struct Traffic {
  std::uint32_t one = 0;
  std::uint32_t other = 0;
  double bytes = 0;
  double messages = 0;
};

/// What a message takes longer that goes by way of the home of one of both ranks.
struct MessageCosts {
  double message_s = 1e-4;  ///< Each.
  double byte_s = 1e-8;

  double seconds(const Traffic& each) const {
    return each.messages * message_s + each.bytes * byte_s;
  }
};

/// A job between two decisions. All ranks wait for the slowest in every step.
struct Job {
  std::vector<Rank> ranks;
  std::vector<Host> hosts;
  std::vector<Traffic> traffic;
  double link_bytes_per_s = 1e9;  ///< Between two hosts.
  MessageCosts by_home;
  double step_s = 0;  ///< As the ranks saw it, with all that no model knows; 0: not measured.
};

/// The host of each rank.
using Placement = std::vector<std::uint32_t>;

Placement current_placement(const Job& job);

/// What ranks together ask of a host.
struct Load {
  double work_s = 0;
  double largest_s = 0;  ///< Of one rank: no rank uses two processors at once.
  double memory_bytes = 0;

  void add(const Rank& rank);
};

/// Seconds that `host` takes for a step of `load`, and what ranks are held up there; infinite if
/// there is work and it has no processor.
double step_on(const Host& host, const Load& load);

/// Of each host.
std::vector<Load> loads_of(const Job& job, const Placement& placement);

/// Seconds of one step: the slowest host's, and what it sends to others meanwhile; and what its
/// messages by home take longer.
double step_seconds(const Job& job, const Placement& placement);

/// Of these, what messages by home take longer: those of the rank that has most of them, as each
/// waits for the one before. A message between two moved ranks goes by way of both homes.
double by_home_seconds(const Job& job, const Placement& placement);

/// Of each rank: what its messages of a step would take longer if it were moved; 0 if it has been.
std::vector<double> prices_of_moving(const Job& job);

/// No placement has a shorter step: the largest of what all usable processors together need for all
/// work, and of what the fastest needs for the largest rank.
double step_bound(const Job& job);

}  // namespace migrate::balance
