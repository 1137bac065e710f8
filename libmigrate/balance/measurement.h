#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/balance/job.h"

namespace migrate::balance {

/// What one measurement of a job told.
struct Measurement {
  Job job;                         ///< Hosts and ranks in the order of their names and numbers.
  std::vector<std::int64_t> pids;  ///< Of each rank, on its host.
  std::size_t expected_ranks = 0;  ///< How many the job has.
  bool has_ended = false;          ///< All that were measured have finished with MPI.
  bool has_steps = false;          ///< Else a second of the job stands for a step.

  /// Only of all ranks together anything can be decided.
  bool is_complete() const { return expected_ranks > 0 && job.ranks.size() == expected_ranks; }
};

/// Makes jobs of what `migmpirun --report JOB --json --interval S` prints, over and over. Remembers
/// what it has seen of the hosts, so that one measurement changes what is thought of them by half
/// only. Owned by one thread.
class Measurer {
 public:
  /// The hosts by the names by which migmpirun is to ask them.
  explicit Measurer(const std::vector<std::string>& hosts);

  /// Errors: kInvalid (not such an object, or a rank is on a host that is none of those).
  Result<Measurement> read(const std::string& report);

 private:
  struct Known {
    std::string name;
    double rate = 0;  // the best that was seen of it
    bool is_seen = false;
    std::optional<double> held_up_s;  // a rank there, in a step; none: no rank is there
    Host host;
  };
  struct Reading;

  Measurement measurement_of(const Reading& reading);
  void learn_hosts(const Reading& reading);
  void learn_delays(const Reading& reading, double steps);
  double speed_of(const Known& known) const;

  std::vector<Known> hosts_;
};

}  // namespace migrate::balance
