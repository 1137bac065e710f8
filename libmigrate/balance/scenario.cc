#include "libmigrate/balance/scenario.h"

#include <algorithm>
#include <array>
#include <boost/random/lognormal_distribution.hpp>
#include <boost/random/mersenne_twister.hpp>
#include <boost/random/uniform_int_distribution.hpp>
#include <boost/random/uniform_real_distribution.hpp>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

namespace migrate::balance {
namespace {

// Of Boost, since those of the standard library give other numbers elsewhere.
using Random = boost::random::mt19937_64;

constexpr double kWork = 0.01;                   // seconds of a step
constexpr double kMemory = 256.0 * (1U << 20U);  // bytes of a rank

// As many processors as there are ranks on a host, if they are dealt out in turn.
Job even_job(const Size& size) {
  Job job;
  const double processors = std::ceil(static_cast<double>(size.ranks) / size.hosts);
  job.hosts.assign(size.hosts, Host{.processors = processors});
  for (std::uint32_t rank = 0; rank < size.ranks; ++rank) {
    job.ranks.push_back(
        {.work_s = kWork,
         .memory_bytes = kMemory,
         .host = static_cast<std::uint32_t>(std::uint64_t{rank} * size.hosts / size.ranks)});
  }
  return job;
}

// Ranks that are smaller than what a processor is to do in a step, so that they can be dealt out.
Job fine_job(const Size& size) {
  Job job = even_job(size);
  for (Host& host : job.hosts) {
    host.processors = std::max(1.0, host.processors / 4);
  }
  return job;
}

Scenario even(const Size& size, std::uint64_t) {
  return {.job = even_job(size)};
}

Scenario noise(const Size& size, std::uint64_t) {
  return {.job = even_job(size), .noise = 0.1};
}

Scenario slow_host(const Size& size, std::uint64_t) {
  Scenario scenario{.job = fine_job(size)};
  scenario.job.hosts.back().speed = 0.5;
  return scenario;
}

Scenario two_speeds(const Size& size, std::uint64_t) {
  Scenario scenario{.job = fine_job(size)};
  for (std::uint32_t host = 0; host < size.hosts; host += 2) {
    scenario.job.hosts[host].speed = 0.6;
  }
  return scenario;
}

Scenario quotas(const Size& size, std::uint64_t seed) {
  Scenario scenario{.job = fine_job(size)};
  Random random(seed);
  const boost::random::uniform_real_distribution<double> share(0.25, 1);
  for (Host& host : scenario.job.hosts) {
    host.processors = std::max(1.0, host.processors * 2 * share(random));
  }
  return scenario;
}

Scenario heavy_tail(const Size& size, std::uint64_t seed) {
  Scenario scenario{.job = fine_job(size)};
  Random random(seed);
  boost::random::lognormal_distribution<double> works(std::log(kWork), 0.8);
  for (Rank& rank : scenario.job.ranks) {
    rank.work_s = works(random);
  }
  return scenario;
}

Scenario few_large(const Size& size, std::uint64_t seed) {
  Scenario scenario{.job = fine_job(size)};
  Random random(seed);
  const boost::random::uniform_int_distribution<std::uint32_t> one(0, size.ranks - 1);
  for (std::uint32_t i = 0; i < std::max(1U, size.ranks / 50); ++i) {
    scenario.job.ranks[one(random)].work_s = 4 * kWork;
  }
  return scenario;
}

// Another program comes to one host for a while, and takes half of it.
Scenario busy_loop(const Size& size, std::uint64_t) {
  Scenario scenario{.job = fine_job(size)};
  const double all = scenario.job.hosts.front().processors;
  scenario.at = [all](double when, Job& job) {
    job.hosts.front().processors = when > 0.3 && when < 0.7 ? all / 2 : all;
  };
  return scenario;
}

// A region in which there is three times as much to do wanders over all ranks.
Scenario drift(const Size& size, std::uint64_t) {
  Scenario scenario{.job = fine_job(size)};
  scenario.at = [](double when, Job& job) {
    const auto count = static_cast<double>(job.ranks.size());
    for (std::size_t rank = 0; rank < job.ranks.size(); ++rank) {
      const double away = std::abs(static_cast<double>(rank) / count - when);
      job.ranks[rank].work_s = away < 0.1 ? 3 * kWork : kWork;
    }
  };
  return scenario;
}

// Each talks to its neighbours of a grid, and in one corner there is more to do.
Scenario stencil(const Size& size, std::uint64_t) {
  Scenario scenario{.job = fine_job(size)};
  const auto width = static_cast<std::uint32_t>(std::sqrt(size.ranks));
  for (std::uint32_t rank = 0; rank < size.ranks; ++rank) {
    const std::uint32_t column = rank % width;
    const std::uint32_t row = rank / width;
    if (column + 1 < width && rank + 1 < size.ranks) {
      scenario.job.traffic.push_back({rank, rank + 1, 16 << 10, 0});
    }
    if (rank + width < size.ranks) {
      scenario.job.traffic.push_back({rank, rank + width, 16 << 10, 0});
    }
    scenario.job.ranks[rank].work_s = column < width / 3 && row < width / 3 ? 2 * kWork : kWork;
  }
  scenario.job.link_bytes_per_s = 5e9;
  return scenario;
}

// On a slow host one half of the ranks talks so much that moving one of them costs more than it
// brings; the other half says nothing.
Scenario talkers(const Size& size, std::uint64_t) {
  Scenario scenario{.job = fine_job(size)};
  scenario.job.hosts.back().speed = 0.5;
  scenario.job.by_home.message_s *= 4;  // Dearer than a balancer is to think at first.
  for (std::uint32_t rank = 0; rank + 2 < size.ranks; rank += 2) {
    scenario.job.traffic.push_back({rank, rank + 2, 8 << 10, rank % 4 == 0 ? 200.0 : 1.0});
  }
  return scenario;
}

// A host is to be left, after a third of the time.
Scenario drained(const Size& size, std::uint64_t) {
  Scenario scenario{.job = fine_job(size)};
  scenario.at = [](double when, Job& job) { job.hosts.back().usable = when < 0.33; };
  return scenario;
}

constexpr std::array kMadeUp{
    MadeUp{"even", "equal ranks on equal hosts", even},
    MadeUp{"noise", "the same, measured with errors of 10 %", noise},
    MadeUp{"slow-host", "one host at half the speed", slow_host},
    MadeUp{"two-speeds", "every other host at 0.6 of the speed", two_speeds},
    MadeUp{"quotas", "hosts of which the job may use a quarter to all", quotas},
    MadeUp{"heavy-tail", "works that differ as incomes do", heavy_tail},
    MadeUp{"few-large", "one rank in fifty has four times as much to do", few_large},
    MadeUp{"busy-loop", "another program takes half of a host for a while", busy_loop},
    MadeUp{"drift", "a region with three times as much to do wanders over the ranks", drift},
    MadeUp{"stencil", "ranks that talk to neighbours, more to do in one corner", stencil},
    MadeUp{"talkers", "a slow host, where half of the ranks send hundreds of messages", talkers},
    MadeUp{"drained", "a host must be left", drained},
};

using nlohmann::json;

Scenario scenario_of(const json& object) {
  Scenario scenario;
  for (const json& each : object.at("hosts")) {
    scenario.job.hosts.push_back(
        {.processors = each.at("processors"), .speed = each.value("speed", 1.0)});
  }
  for (const json& each : object.at("ranks")) {
    scenario.job.ranks.push_back(
        {.memory_bytes = each.value("memory_bytes", 0.0), .host = each.at("host")});
  }
  for (const json& each : object.value("traffic", json::array())) {
    scenario.job.traffic.push_back(
        {each.at(0), each.at(1), each.at(2), each.size() > 3 ? each.at(3).get<double>() : 0});
  }
  auto works = std::make_shared<std::vector<std::vector<double>>>(object.at("work_s"));
  scenario.at = [works](double when, Job& job) {
    const auto place = static_cast<std::size_t>(when * static_cast<double>(works->size()));
    const std::vector<double>& row = (*works)[std::min(place, works->size() - 1)];
    for (std::size_t rank = 0; rank < job.ranks.size(); ++rank) {
      job.ranks[rank].work_s = row[rank];
    }
  };
  const std::size_t ranks = scenario.job.ranks.size();
  const bool sound =
      ranks > 0 && !works->empty() &&
      std::ranges::all_of(*works, [ranks](const auto& row) { return row.size() == ranks; }) &&
      std::ranges::all_of(
          scenario.job.ranks,
          [&scenario](const Rank& rank) { return rank.host < scenario.job.hosts.size(); }) &&
      std::ranges::all_of(scenario.job.traffic, [ranks](const Traffic& each) {
        return each.one < ranks && each.other < ranks;
      });
  if (!sound) {
    throw json::other_error::create(501, "numbers of ranks and hosts do not fit together", &object);
  }
  return scenario;
}

}  // namespace

std::span<const MadeUp> made_up() {
  return kMadeUp;
}

Result<Scenario> recorded(const std::string& text) {
  try {
    return scenario_of(json::parse(text));
  } catch (const json::exception& error) {
    return fail(make_error(ErrorCode::kInvalid, "read a recorded job", "", error.what()));
  }
}

}  // namespace migrate::balance
