#include "libmigrate/groups/group_limits.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <set>

#include "base/file.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate {
namespace {

constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();
// What version 1 shows of memory where there is no limit: all pages that it can count.
constexpr std::uint64_t kMostMemory = 0x7ffffffffffff000;
constexpr std::uint64_t kUsualPeriodUs = 100000;
constexpr std::uint64_t kUsualWeight = 100;   // of version 2
constexpr std::uint64_t kUsualShares = 1024;  // the same of version 1

enum class LimitForm : std::uint8_t {
  kLeast,       // A number or "max", of which the least of all groups counts.
  kSwap,        // The same; of version 1 it is of memory and swap together.
  kProtection,  // The same, of what nobody takes from it: 0 where there is none.
  kQuota,       // "MICROSECONDS PERIOD"
  kWeight,      // From 1 to 10000, among those of the same group.
  kList,        // Numbers of processors or nodes: "0-3,7"
};

struct LimitKind {
  std::string_view name;  // In version 2.
  std::string_view controller;
  std::string_view first_name;  // In version 1; empty: there is none.
  LimitForm form;
};

// In an order in which they can be set.
constexpr std::array kKinds = std::to_array<LimitKind>({
    {"memory.max", "memory", "memory.limit_in_bytes", LimitForm::kLeast},
    {"memory.swap.max", "memory", "memory.memsw.limit_in_bytes", LimitForm::kSwap},
    {"memory.high", "memory", "", LimitForm::kLeast},
    {"memory.low", "memory", "", LimitForm::kProtection},
    {"memory.min", "memory", "", LimitForm::kProtection},
    {"pids.max", "pids", "pids.max", LimitForm::kLeast},
    {"cpu.max", "cpu", "cpu.cfs_quota_us", LimitForm::kQuota},
    {"cpu.weight", "cpu", "cpu.shares", LimitForm::kWeight},
    {"cpuset.cpus", "cpuset", "cpuset.cpus", LimitForm::kList},
    {"cpuset.mems", "cpuset", "cpuset.mems", LimitForm::kList},
});

// Those that are not carried, and what each is where nobody has set it: words that it begins with,
// separated by '|'.
struct OtherLimit {
  const char* file;
  std::string_view common;
};
constexpr std::array kOthers = std::to_array<OtherLimit>({
    {"memory.zswap.max", "max"},
    {"cpu.idle", "0"},
    {"cpu.uclamp.min", "0.00"},
    {"cpu.uclamp.max", "max"},
    {"io.max", ""},
    {"io.weight", "default 100"},
    {"io.latency", ""},
    {"hugetlb.2MB.max", "max"},
    {"hugetlb.1GB.max", "max"},
    {"memory.soft_limit_in_bytes", "9223372036854771712"},
    {"cpu.rt_runtime_us", "0"},
    {"blkio.weight", "500|100"},
    {"blkio.bfq.weight", "100"},
    {"blkio.throttle.read_bps_device", ""},
    {"blkio.throttle.write_bps_device", ""},
    {"blkio.throttle.read_iops_device", ""},
    {"blkio.throttle.write_iops_device", ""},
    {"devices.list", "a *:* rwm"},
    {"net_cls.classid", "0"},
});
constexpr std::array kWeights = std::to_array<OtherLimit>({
    {"cpu.weight", "100"},
    {"cpu.shares", "1024"},
});

bool is_common(std::string_view value, std::string_view common) {
  if (common.empty()) {
    return value.empty();
  }
  while (!common.empty()) {
    const std::string_view one = common.substr(0, common.find('|'));
    common.remove_prefix(std::min(one.size() + 1, common.size()));
    if (value == one || value.starts_with(std::string(one) + " ")) {
      return true;
    }
  }
  return false;
}

// The first line of a file of a group; nothing if there is none.
std::optional<std::string> value_in(const std::string& directory, std::string_view file) {
  auto text = read_file(fmt::format("{}/{}", directory, file));
  if (!text) {
    return std::nullopt;
  }
  text->resize(std::min(text->find('\n'), text->size()));
  return *text;
}

void add_others(std::span<const OtherLimit> kinds, const GroupHierarchy& hierarchy,
                const std::string& directory, std::vector<std::string>& others) {
  for (const OtherLimit& kind : kinds) {
    if (const auto value = value_in(directory, kind.file);
        value && !is_common(*value, kind.common)) {
      others.push_back(fmt::format("{}{}: {} {}", hierarchy.root,
                                   directory.substr(hierarchy.mount.size()), kind.file, *value));
    }
  }
}

const LimitKind* kind_of(std::string_view name) {
  const auto* kind = std::ranges::find(kKinds, name, &LimitKind::name);
  return kind == kKinds.end() ? nullptr : kind;
}

std::string_view file_of(const LimitKind& kind, const GroupHierarchy& hierarchy) {
  return hierarchy.is_version_2() ? kind.name : kind.first_name;
}

std::optional<std::uint64_t> amount_of(std::string_view text) {
  return text == "max" ? kUnlimited : parse_number(text);
}

struct Quota {
  std::uint64_t runs_us = kUnlimited;
  std::uint64_t period_us = kUsualPeriodUs;

  bool is_limit() const { return runs_us != kUnlimited; }
  bool is_stricter_than(const Quota& other) const {
    return is_limit() && (!other.is_limit() ||
                          static_cast<double>(runs_us) * static_cast<double>(other.period_us) <
                              static_cast<double>(other.runs_us) * static_cast<double>(period_us));
  }
};

std::optional<Quota> quota_of(std::string_view text) {
  const auto runs = amount_of(take_word(text));
  const auto period = parse_number(take_word(text));
  constexpr std::uint64_t kMostUs = 1'000'000'000'000;
  const bool is_quota = runs && period && *period != 0 && *period <= kMostUs && *runs != 0 &&
                        (*runs <= kMostUs || *runs == kUnlimited);
  return is_quota ? std::optional(Quota{*runs, *period}) : std::nullopt;
}

std::optional<Quota> quota_in(const GroupHierarchy& hierarchy, const std::string& directory) {
  if (hierarchy.is_version_2()) {
    return quota_of(value_in(directory, "cpu.max").value_or(""));
  }
  const auto runs = value_in(directory, "cpu.cfs_quota_us");
  const auto period = value_in(directory, "cpu.cfs_period_us");
  return runs && period ? quota_of((*runs == "-1" ? "max" : *runs) + " " + *period) : std::nullopt;
}

// "0-2,5"; nothing if it is none.
std::optional<std::set<std::uint64_t>> list_of(std::string_view text) {
  constexpr std::uint64_t kMost = 8191;
  std::set<std::uint64_t> numbers;
  while (!text.empty()) {
    const std::string_view range = text.substr(0, text.find(','));
    text.remove_prefix(std::min(range.size() + 1, text.size()));
    const std::string_view first = range.substr(0, range.find('-'));
    const auto from = parse_number(first);
    const auto to =
        first.size() == range.size() ? from : parse_number(range.substr(first.size() + 1));
    if (!from || !to || *from > *to || *to > kMost) {
      return std::nullopt;
    }
    for (std::uint64_t number = *from; number <= *to; ++number) {
      numbers.insert(number);
    }
  }
  return numbers.empty() ? std::nullopt : std::optional(std::move(numbers));
}

std::string text_of_list(const std::set<std::uint64_t>& numbers) {
  std::string text;
  for (const std::uint64_t number : numbers) {
    text += (text.empty() ? "" : ",") + std::to_string(number);
  }
  return text;
}

// The least of all groups of a place, and of memory what version 1 calls no limit is none.
std::uint64_t least_in(const GroupPlace& place, std::string_view file) {
  std::uint64_t least = kUnlimited;
  for (const std::string& directory : place.chain()) {
    const auto amount = amount_of(value_in(directory, file).value_or("max"));
    least = std::min(least, amount.value_or(kUnlimited));
  }
  return !place.hierarchy.is_version_2() && least >= kMostMemory ? kUnlimited : least;
}

std::string read_swap(const GroupPlace& place) {
  const LimitKind& memory = *kind_of("memory.max");
  const std::uint64_t both = least_in(place, kind_of("memory.swap.max")->first_name);
  const std::uint64_t ram = least_in(place, memory.first_name);
  return both == kUnlimited || ram == kUnlimited ? "" : std::to_string(both - std::min(ram, both));
}

std::string read_amount(const LimitKind& kind, const GroupPlace& place) {
  const std::uint64_t least = least_in(place, file_of(kind, place.hierarchy));
  return least == kUnlimited ? std::string() : std::to_string(least);
}

std::string read_protection(const LimitKind& kind, const GroupPlace& place) {
  std::uint64_t least = kUnlimited;
  for (const std::string& directory : place.chain()) {
    least = std::min(least, amount_of(value_in(directory, kind.name).value_or("0")).value_or(0));
  }
  return least == 0 || place.chain().empty() ? std::string()
         : least == kUnlimited               ? "max"
                                             : std::to_string(least);
}

std::string read_quota(const GroupPlace& place) {
  Quota strictest;
  for (const std::string& directory : place.chain()) {
    const auto quota = quota_in(place.hierarchy, directory);
    if (quota && quota->is_stricter_than(strictest)) {
      strictest = *quota;
    }
  }
  return strictest.is_limit() ? fmt::format("{} {}", strictest.runs_us, strictest.period_us) : "";
}

// Of the innermost group only: among whom those above it share is not carried.
std::string read_weight(const LimitKind& kind, const GroupPlace& place) {
  const auto chain = place.chain();
  const auto value =
      chain.empty()
          ? std::nullopt
          : parse_number(value_in(chain.front(), file_of(kind, place.hierarchy)).value_or(""));
  if (!value) {
    return "";
  }
  const std::uint64_t weight =
      place.hierarchy.is_version_2()
          ? *value
          : std::clamp((*value * kUsualWeight + kUsualShares / 2) / kUsualShares, std::uint64_t{1},
                       std::uint64_t{10000});
  return weight == kUsualWeight ? std::string() : std::to_string(weight);
}

std::string read_list(const LimitKind& kind, const GroupPlace& place) {
  const std::string all = value_in(place.hierarchy.mount, kind.name).value_or("");
  for (const std::string& directory : place.chain()) {
    const std::string value = value_in(directory, kind.name).value_or("");
    if (!value.empty()) {
      return value == all ? "" : value;
    }
  }
  return "";
}

std::string read_limit(const LimitKind& kind, const GroupPlace& place) {
  switch (kind.form) {
    case LimitForm::kSwap:
      return place.hierarchy.is_version_2() ? read_amount(kind, place) : read_swap(place);
    case LimitForm::kLeast:
      return read_amount(kind, place);
    case LimitForm::kProtection:
      return read_protection(kind, place);
    case LimitForm::kQuota:
      return read_quota(place);
    case LimitForm::kWeight:
      return read_weight(kind, place);
    case LimitForm::kList:
      return read_list(kind, place);
  }
  return "";
}

Result<void> write_quota(const GroupPlace& place, const Quota& quota) {
  const std::string runs = quota.is_limit() ? std::to_string(quota.runs_us) : "max";
  const std::string period = std::to_string(quota.period_us);
  if (place.hierarchy.is_version_2()) {
    return write_file(place.directory + "/cpu.max", runs + " " + period);
  }
  MIGRATE_TRY(write_file(place.directory + "/cpu.cfs_period_us", period));
  return write_file(place.directory + "/cpu.cfs_quota_us", quota.is_limit() ? runs : "-1");
}

// What the group above has of the list, where that has not all of it.
Result<void> write_list(const std::string& directory, const LimitKind& kind,
                        const std::string& list) {
  const std::string path = fmt::format("{}/{}", directory, kind.name);
  auto written = write_file(path, list);
  if (written) {
    return written;
  }
  const std::string above = directory.substr(0, directory.rfind('/'));
  const auto there = list_of(value_in(above, fmt::format("{}.effective", kind.name))
                                 .value_or(value_in(above, kind.name).value_or("")));
  const auto wanted = list_of(list);
  std::set<std::uint64_t> both;
  if (there && wanted) {
    std::ranges::set_intersection(*there, *wanted, std::inserter(both, both.end()));
  }
  return both.empty() ? written : write_file(path, text_of_list(both));
}

Result<void> write_limit(const GroupPlace& place, const LimitKind& kind, const std::string& value) {
  const std::string path = fmt::format("{}/{}", place.directory, file_of(kind, place.hierarchy));
  const bool is_first = !place.hierarchy.is_version_2();
  switch (kind.form) {
    case LimitForm::kQuota:
      return write_quota(place, quota_of(value).value_or(Quota{}));
    case LimitForm::kList:
      return write_list(place.directory, kind, value);
    case LimitForm::kWeight:
      return write_file(path, is_first ? std::to_string(parse_number(value).value_or(1) *
                                                        kUsualShares / kUsualWeight)
                                       : value);
    case LimitForm::kSwap:
      if (is_first) {
        const auto memory =
            amount_of(value_in(place.directory, "memory.limit_in_bytes").value_or(""));
        return write_file(path,
                          std::to_string(memory.value_or(0) + parse_number(value).value_or(0)));
      }
      [[fallthrough]];
    case LimitForm::kLeast:
    case LimitForm::kProtection:
      return write_file(path, value);
  }
  return {};
}

// Whether what the groups above a place allow is no more than `value`.
bool is_held_above(const GroupPlace& place, const LimitKind& kind, const std::string& value) {
  GroupPlace above = place;
  above.directory.erase(above.directory.rfind('/'));
  const std::string held = read_limit(kind, above);
  if (held.empty()) {
    return false;
  }
  if (kind.form == LimitForm::kQuota) {
    return !quota_of(value).value_or(Quota{}).is_stricter_than(quota_of(held).value_or(Quota{}));
  }
  return (kind.form == LimitForm::kLeast || kind.form == LimitForm::kSwap) &&
         amount_of(held) <= amount_of(value);
}

}  // namespace

void read_group_limits(const std::vector<GroupPlace>& places, GroupLimits& limits) {
  for (const LimitKind& kind : kKinds) {
    for (const GroupPlace& place : places) {
      const bool is_here = place.hierarchy.is_version_2() ||
                           (place.hierarchy.has(kind.controller) && !kind.first_name.empty());
      std::string value = is_here ? read_limit(kind, place) : std::string();
      if (!value.empty()) {
        wire::GroupLimit& limit = *limits.Add();
        limit.set_name(std::string(kind.name));
        limit.set_value(std::move(value));
        break;  // No controller is of two hierarchies.
      }
    }
  }
}

std::vector<std::string> other_group_limits(const std::vector<GroupPlace>& places) {
  std::vector<std::string> others;
  for (const GroupPlace& place : places) {
    const auto chain = place.chain();
    for (const std::string& directory : chain) {
      add_others(kOthers, place.hierarchy, directory, others);
      if (directory != chain.front()) {
        add_others(kWeights, place.hierarchy, directory, others);
      }
    }
  }
  return others;
}

bool is_group_limit(const wire::GroupLimit& limit) {
  constexpr std::size_t kLongestValue = 1024;
  const LimitKind* kind = kind_of(limit.name());
  if (kind == nullptr || limit.value().size() > kLongestValue) {
    return false;
  }
  const std::string& value = limit.value();
  switch (kind->form) {
    case LimitForm::kLeast:
    case LimitForm::kSwap:
    case LimitForm::kProtection:
      return amount_of(value).has_value();
    case LimitForm::kQuota:
      return quota_of(value).has_value() && value.find_first_not_of("0123456789 max") == value.npos;
    case LimitForm::kWeight: {
      const auto weight = parse_number(value);
      return weight && *weight >= 1 && *weight <= 10000;
    }
    case LimitForm::kList:
      return list_of(value).has_value();
  }
  return false;
}

std::string_view controller_of(const wire::GroupLimit& limit) {
  const LimitKind* kind = kind_of(limit.name());
  return kind == nullptr ? std::string_view() : kind->controller;
}

bool is_privilege(const wire::GroupLimit& limit) {
  const LimitKind* kind = kind_of(limit.name());
  return kind != nullptr &&
         (kind->form == LimitForm::kProtection ||
          (kind->form == LimitForm::kWeight && parse_number(limit.value()) > kUsualWeight));
}

std::uint64_t memory_limit_bytes(const GroupLimits& limits) {
  const auto found = std::ranges::find(limits, "memory.max", &wire::GroupLimit::name);
  return found == limits.end() ? kUnlimited : amount_of(found->value()).value_or(kUnlimited);
}

Result<void> set_group_limit(const GroupPlace& place, const wire::GroupLimit& limit) {
  const LimitKind* kind = kind_of(limit.name());
  if (kind == nullptr || !is_group_limit(limit)) {
    return fail(make_error(ErrorCode::kInvalid, "set a limit of a control group", limit.name()));
  }
  if (file_of(*kind, place.hierarchy).empty()) {
    return fail(make_error(ErrorCode::kUnsupported, "set a limit of a control group", limit.name(),
                           "version 1 has none of this kind"));
  }
  auto written = write_limit(place, *kind, limit.value());
  return written || !is_held_above(place, *kind, limit.value()) ? written : Result<void>();
}

}  // namespace migrate
