#include "libmigrate/advisor/forecast.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "pager/page_range.h"

namespace migrate {
namespace {

// What moves took on several machines, where nothing is known of these hosts.
constexpr double kUsualFreezeUs = 6000;
constexpr double kUsualBytesPerSecond = 400e6;
// The walk of the page tables at the freeze that finds what of the pages sent ahead still counts.
constexpr double kKeptUsPerPage = 3000.0 / (1U << 18U);
// What faults and prefetches ask for crosses what is pushed: 2 to 30 % of lazy moves
// (docs/benchmarks.md).
constexpr double kSentTwice = 0.1;
// Headers of pages that travel in runs.
constexpr double kBytesPerPage = 4096 + 8;

double us_for(double bytes, double bytes_per_second) {
  return bytes * 1e6 / bytes_per_second;
}

std::uint64_t rounded(double number) {
  return static_cast<std::uint64_t>(std::llround(std::max(number, 0.0)));
}

/// What is left of it after rounds, as CopyAhead would make them.
struct AfterRounds {
  double bytes = 0;
  double left_pages = 0;
  RoundsEnd end = RoundsEnd::kMost;
};

AfterRounds make_rounds(const MoveFacts& facts) {
  Rounds rounds(facts.rounds);
  const auto pages = static_cast<double>(facts.memory.pages);
  AfterRounds after{.left_pages = pages};
  for (std::optional<RoundsEnd> end; !end;) {
    const double sent = after.left_pages;
    const double bytes = sent * kBytesPerPage;
    const double took_us = us_for(bytes, facts.speeds.ahead);
    after.left_pages = pages * facts.memory.writes.within(took_us);
    after.bytes += bytes;
    end = rounds.note({.sent_pages = rounded(sent),
                       .sent_bytes = rounded(bytes),
                       .took_us = static_cast<std::int64_t>(took_us),
                       .written_pages = rounded(after.left_pages)});
    after.end = end.value_or(after.end);
  }
  return after;
}

/// What counts in a choice, the less the better, and by how much less it must be to make a
/// difference: a part and an amount.
struct Criterion {
  double (*of)(const Forecast& forecast);
  double part;
  double amount;
};

constexpr Criterion kLeastStop{[](const Forecast& one) { return static_cast<double>(one.stop_us); },
                               0.25, 2000};
constexpr Criterion kLeastExposure{[](const Forecast& one) {
                                     return one.independence_us
                                                ? static_cast<double>(*one.independence_us)
                                                : std::numeric_limits<double>::infinity();
                                   },
                                   0.25, 5000};
constexpr Criterion kLeastSent{
    [](const Forecast& one) { return static_cast<double>(one.least_bytes); }, 0.05, 1U << 16U};

std::array<Criterion, 3> criteria(Wish wish) {
  switch (wish) {
    case Wish::kStop:
      return {kLeastStop, kLeastExposure, kLeastSent};
    case Wish::kExposure:
      return {kLeastExposure, kLeastStop, kLeastSent};
    case Wish::kBytes:
      return {kLeastSent, kLeastStop, kLeastExposure};
  }
  return {kLeastStop, kLeastExposure, kLeastSent};
}

/// Whether a mode may be chosen. How long precopy stands still is up to what the program writes
/// until then: not for whoever wants the shortest stop for certain.
bool is_candidate(const Forecast& one, Wish wish) {
  const bool is_sure = wish != Wish::kStop || !one.plan.rounds || !one.plan.all_before_run;
  return one.why_not.empty() && is_sure;
}

}  // namespace

WriteCurve::Tail WriteCurve::tail() const {
  const Point last = seen.back();
  const Point before = seen.size() < 2 ? Point() : seen[seen.size() - 2];
  const double time = std::max(last.us - before.us, 1.0);
  const double rate = (last.share - before.share) / time;
  const double at_first = before.us > 0 ? before.share / before.us : 0;
  if (rate <= 0 || rate >= at_first) {
    return {.rate = rate, .decay = 0};
  }
  // Both are of the middle of their time.
  const double decay = std::log(at_first / rate) / (last.us / 2);
  return {.rate = rate * std::exp(-decay * time / 2), .decay = decay};
}

double WriteCurve::in_the_end() const {
  return within(std::numeric_limits<double>::infinity());
}

double WriteCurve::within(double us) const {
  if (seen.empty() || us <= 0) {
    return 0;
  }
  if (us <= seen.front().us) {
    return seen.front().share;
  }
  for (std::size_t i = 1; i < seen.size(); ++i) {
    const Point& from = seen[i - 1];
    const Point& to = seen[i];
    if (us <= to.us) {
      return from.share + (to.share - from.share) * (us - from.us) / (to.us - from.us);
    }
  }
  const Tail last = tail();
  if (last.rate <= 0) {
    return whole();
  }
  const double more = us - watched_us();
  const double grown = last.decay > 0 ? last.rate / last.decay * (1 - std::exp(-last.decay * more))
                                      : last.rate * more;
  return std::min(1.0, whole() + grown);
}

// An image goes, and its answer comes; so do the word to run and the answer to that.
Speeds Speeds::completed(const LinkSpeed& link, double limit) const {
  constexpr double kRoundTrips = 2;
  const auto first = [](std::initializer_list<double> ways) {
    const auto* const known =
        std::find_if(ways.begin(), ways.end(), [](double x) { return x > 0; });
    return known == ways.end() ? kUsualBytesPerSecond : *known;
  };
  const auto bounded = [limit](double speed) { return limit > 0 ? std::min(speed, limit) : speed; };
  return {.behind = bounded(first({behind, ahead, stopped, link.bytes_per_second})),
          .stopped = bounded(first({stopped, ahead, behind, link.bytes_per_second})),
          .ahead = bounded(first({ahead, stopped, behind, link.bytes_per_second})),
          .freeze_us = freeze_us > 0 ? freeze_us
                       : freeze_after_rounds_us > 0
                           ? freeze_after_rounds_us
                           : kUsualFreezeUs + kRoundTrips * link.round_trip_us,
          .freeze_after_rounds_us = freeze_after_rounds_us};
}

Forecast forecast(const MovePlan& plan, const MoveFacts& facts) {
  Forecast one{.plan = plan, .why_not = {}, .independence_us = {}};
  if (plan.rounds && !facts.no_rounds.empty()) {
    one.why_not = facts.no_rounds;
    return one;
  }
  const auto pages = static_cast<double>(facts.memory.pages);
  AfterRounds after{.left_pages = pages};
  if (plan.rounds) {
    after = make_rounds(facts);
    if (after.end == RoundsEnd::kDirtyRate && after.left_pages > pages / 2) {
      one.why_not = "it writes most of its memory as fast as could be sent";
    }
  }
  const double left = after.left_pages * kBytesPerPage;
  const double freeze_us = plan.rounds && facts.speeds.freeze_after_rounds_us > 0
                               ? facts.speeds.freeze_after_rounds_us
                               : facts.speeds.freeze_us;
  double stop_us = freeze_us + kFreezeUsPerThread * (std::max(facts.threads, 1U) - 1) +
                   us_for(static_cast<double>(facts.content_bytes), facts.speeds.stopped);
  stop_us += plan.rounds ? pages * kKeptUsPerPage : 0;
  stop_us += plan.all_before_run ? us_for(left, facts.speeds.stopped) : 0;
  one.stop_us = std::llround(stop_us);
  const double twice = plan.push && !plan.all_before_run ? kSentTwice * left : 0;
  one.bytes = rounded(after.bytes + left + twice) + facts.content_bytes;
  const bool asks = !plan.push && !plan.all_before_run;
  // What it writes it touches first; of what it reads nothing is known.
  one.least_bytes =
      asks ? rounded(left * facts.memory.writes.in_the_end()) + facts.content_bytes : one.bytes;
  if (plan.all_before_run) {
    one.independence_us = 0;
  } else if (plan.push) {
    one.independence_us = std::llround(us_for(left, facts.speeds.behind));
  }
  return one;
}

ModeChoice choose_mode(MoveFacts facts, Wish wish) {
  ModeChoice choice{.wish = wish, .facts = std::move(facts), .all = {}};
  std::vector<std::size_t> left;
  for (const MovePlan& plan : kModes) {
    if (!plan.decides) {
      choice.all.push_back(forecast(plan, choice.facts));
    }
  }
  for (std::size_t i = 0; i < choice.all.size(); ++i) {
    if (is_candidate(choice.all[i], wish)) {
      left.push_back(i);
    }
  }
  for (const Criterion& criterion : criteria(wish)) {
    double least = std::numeric_limits<double>::infinity();
    for (const std::size_t i : left) {
      least = std::min(least, criterion.of(choice.all[i]));
    }
    const double most = least * (1 + criterion.part) + criterion.amount;
    std::erase_if(left, [&](std::size_t i) { return criterion.of(choice.all[i]) > most; });
  }
  choice.chosen = *std::ranges::min_element(
      left, {}, [&](std::size_t i) { return criteria(wish).front().of(choice.all[i]); });
  return choice;
}

}  // namespace migrate
