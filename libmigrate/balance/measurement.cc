#include "libmigrate/balance/measurement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

namespace migrate::balance {
namespace {

using nlohmann::json;

constexpr double kNewest = 0.5;  // Weight of what was seen last of a host.
constexpr double kSlower = 0.9;  // Processors that differ by less count as equal.
// Of the time, that ranks must have worked for a host to be judged.
constexpr double kLeast = 0.01;
// Ranks wait everywhere: those of a host that wait so much longer than where it is shortest are
// held up by that host.
constexpr double kHeldUp = 2;
// No host is thought to be slower than that because of one moment.
constexpr double kSlowest = 0.1;

/// What ranks leave of a host, and how well it serves them.
struct Share {
  double used_s = 0;
  double outside_s = 0;
  double worked_s = 0;
  double memory_bytes = 0;
  double held_up_s = 0;
  std::size_t ranks = 0;
};

}  // namespace

struct Measurer::Reading {
  struct RankReading {
    std::string host;
    std::int64_t pid = 0;
    double outside_s = 0;
    double worked_s = 0;   // Outside calls of MPI, with a processor.
    double used_s = 0;     // Processor seconds of all its threads, inside too.
    double held_up_s = 0;  // Inside, without a processor.
    double memory_bytes = 0;
    bool by_home = false;
    struct Sent {
      std::uint32_t to = 0;
      double bytes = 0;
      double messages = 0;
    };
    std::vector<Sent> sent;

    static RankReading of(const json& each) {
      RankReading rank{.host = each.at("host"),
                       .pid = each.at("pid"),
                       .outside_s = each.at("outside_s"),
                       .worked_s = 0,
                       .used_s = std::max(each.at("processor_s").get<double>(), 0.0),
                       .held_up_s = std::max(each.at("held_up_s").get<double>(), 0.0),
                       .memory_bytes = each.at("memory_bytes"),
                       .by_home = each.at("has_moved"),
                       .sent = {}};
      rank.worked_s = std::max(rank.outside_s - each.at("waited_s").get<double>(), 0.0);
      for (const json& partner : each.at("partners")) {
        rank.sent.push_back({partner.at(0), partner.at(1), partner.at(2)});
      }
      return rank;
    }
  };

  struct HostReading {
    double elapsed_s = 0;
    double processors = 0;  // That it lets anybody have.
    double used_s = 0;
    double memory_bytes = 0;
    double rate = 0;

    static HostReading of(const json& each) {
      HostReading host{.elapsed_s = each.at("elapsed_s"),
                       .processors = each.at("processors"),
                       .used_s = each.at("used_s"),
                       .memory_bytes = each.at("memory_available_bytes"),
                       .rate = each.at("rate")};
      if (!each.at("quota").is_null()) {
        host.processors = std::min(host.processors, each.at("quota").get<double>());
      }
      return host;
    }
  };

  std::map<std::uint32_t, RankReading> ranks;
  std::map<std::string, HostReading> hosts;                  // By the name that it was asked by.
  std::map<std::string, std::string, std::less<>> asked_as;  // By the name that it has itself.
  std::size_t expected_ranks = 0;
  double elapsed_s = 0;
  double steps = 0;
  bool has_ended = false;

  static Reading of(const json& report) {
    Reading reading;
    reading.expected_ranks = report.at("ranks");
    reading.elapsed_s = report.value("elapsed_s", 0.0);
    reading.steps = report.at("steps");
    for (const json& each : report.at("hosts")) {
      reading.hosts[each.at("asked_as")] = HostReading::of(each);
      reading.asked_as[each.at("name")] = each.at("asked_as");
    }
    reading.has_ended = !report.at("measured").empty();
    for (const json& each : report.at("measured")) {
      RankReading rank = RankReading::of(each);
      rank.host = reading.asked_as.at(rank.host);
      reading.ranks[each.at("rank")] = std::move(rank);
      reading.has_ended = reading.has_ended && each.at("state") == "ended";
    }
    return reading;
  }

  Share share_of(const std::string& host) const {
    Share share;
    for (const auto& [number, rank] : ranks) {
      if (rank.host == host) {
        share.used_s += rank.used_s;
        share.outside_s += rank.outside_s;
        share.worked_s += rank.worked_s;
        share.memory_bytes += rank.memory_bytes;
        share.held_up_s += rank.held_up_s;
        ++share.ranks;
      }
    }
    return share;
  }
};

namespace {

/// Of a host with `processors`, of which others than ranks use as many as `others`: what they
/// leave; or, as they would have to share, what one rank more would get.
double left_by(double others, double processors) {
  return std::max(processors - others, processors / (1 + std::ceil(others)));
}

/// What ranks get of a processor when they work, against what there should be for each: less where
/// something else holds them up than what is counted on this host.
double served(const Share& share, double processors, double elapsed_s) {
  if (share.ranks == 0 || share.outside_s < kLeast * elapsed_s) {
    return 1;
  }
  const double expected = std::min(1.0, processors / static_cast<double>(share.ranks));
  return std::clamp(share.worked_s / share.outside_s / expected, kSlowest, 1.0);
}

void average(double& value, double newest, bool is_first) {
  value = is_first ? newest : value + kNewest * (newest - value);
}

}  // namespace

Measurer::Measurer(const std::vector<std::string>& hosts) {
  for (const std::string& name : hosts) {
    hosts_.push_back({.name = name, .rate = 0, .is_seen = false, .held_up_s = {}, .host = {}});
  }
}

Result<Measurement> Measurer::read(const std::string& report) {
  try {
    return measurement_of(Reading::of(json::parse(report)));
  } catch (const json::exception& error) {
    return fail(make_error(ErrorCode::kInvalid, "read what was measured", "", error.what()));
  } catch (const std::out_of_range&) {
    return fail(make_error(ErrorCode::kInvalid, "read what was measured", "",
                           "name all hosts where ranks are"));
  }
}

double Measurer::speed_of(const Known& known) const {
  double best = 0;
  for (const Known& each : hosts_) {
    best = std::max(best, each.rate);
  }
  const double speed = best > 0 && known.rate > 0 ? known.rate / best : 1;
  return speed < kSlower ? speed : 1;
}

// A host where no rank has tried it is taken to serve them as the others do: one that is thought
// to be better, only since nobody is there, would draw them.
void Measurer::learn_hosts(const Reading& reading) {
  std::vector<Known*> untried;
  double served_by_all = 0;
  std::size_t tried = 0;
  for (Known& known : hosts_) {
    const auto found = reading.hosts.find(known.name);
    if (found == reading.hosts.end() || found->second.elapsed_s <= 0) {
      known.host.processors = 0;  // It has not answered: nothing is to go there.
      known.is_seen = false;
      continue;
    }
    const Reading::HostReading& host = found->second;
    const Share share = reading.share_of(known.name);
    const double others = std::max(host.used_s - share.used_s, 0.0) / host.elapsed_s;
    const double left = left_by(others, host.processors);
    known.rate = std::max(known.rate, host.rate);
    average(known.host.processors, left, !known.is_seen);
    known.host.memory_bytes = host.memory_bytes + share.memory_bytes;
    if (share.ranks == 0) {
      untried.push_back(&known);
    } else {
      average(known.host.speed, served(share, left, host.elapsed_s), !known.is_seen);
      served_by_all += known.host.speed;
      ++tried;
    }
    known.is_seen = true;
  }
  for (Known* known : untried) {
    known->host.speed = tried > 0 ? served_by_all / static_cast<double>(tried) : 1;
  }
}

// Within a step. A host where no rank is holds up none, as far as is known.
void Measurer::learn_delays(const Reading& reading, double steps) {
  double least = std::numeric_limits<double>::infinity();
  for (Known& known : hosts_) {
    const Share share = reading.share_of(known.name);
    if (share.ranks == 0) {
      known.held_up_s.reset();
      continue;
    }
    const double now = share.held_up_s / static_cast<double>(share.ranks) / steps;
    known.held_up_s = known.held_up_s ? *known.held_up_s + kNewest * (now - *known.held_up_s) : now;
    least = std::min(least, *known.held_up_s);
  }
  for (Known& known : hosts_) {
    const double held_up = known.held_up_s.value_or(0);
    known.host.delay_s = held_up > kHeldUp * least ? held_up - least : 0;
  }
}

Measurement Measurer::measurement_of(const Reading& reading) {
  learn_hosts(reading);
  Measurement found;
  found.expected_ranks = reading.expected_ranks;
  found.has_ended = reading.has_ended;
  found.has_steps = reading.steps > 0;
  const double steps = found.has_steps ? reading.steps : std::max(reading.elapsed_s, kLeast);
  found.job.step_s = reading.elapsed_s / steps;
  learn_delays(reading, steps);
  std::map<std::string, std::uint32_t> numbers;
  for (const Known& known : hosts_) {
    numbers[known.name] = static_cast<std::uint32_t>(found.job.hosts.size());
    found.job.hosts.push_back(known.host);
    found.job.hosts.back().speed *= speed_of(known);
  }
  std::map<std::pair<std::uint32_t, std::uint32_t>, Traffic> pairs;
  for (const auto& [number, rank] : reading.ranks) {
    const std::uint32_t host = numbers.at(rank.host);
    found.job.ranks.push_back({.work_s = rank.worked_s / steps * speed_of(hosts_[host]),
                               .memory_bytes = rank.memory_bytes,
                               .host = host,
                               .by_home = rank.by_home});
    found.pids.push_back(rank.pid);
    for (const Reading::RankReading::Sent& sent : rank.sent) {
      if (sent.to != number && sent.to < reading.expected_ranks && sent.messages > 0) {
        const auto& [one, other] = std::minmax(number, sent.to);
        Traffic& both = pairs[{one, other}];
        both = {one, other, both.bytes + sent.bytes / steps, both.messages + sent.messages / steps};
      }
    }
  }
  for (const auto& [pair, both] : pairs) {
    found.job.traffic.push_back(both);
  }
  return found;
}

}  // namespace migrate::balance
