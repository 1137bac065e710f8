/// One function for many elements at many hosts. Part of migrate.hpp, which programs include.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <libmigrate/migrate_task.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace migrate {

namespace detail {

/// Values, as they come, by the number of their element.
template <class Value>
class gathered {
 public:
  void take(task<Value>& from, std::size_t index) {
    values_.resize(std::max(values_.size(), index + 1));
    values_[index].emplace(from.get());
  }
  std::vector<Value> all() && {
    std::vector<Value> values;
    values.reserve(values_.size());
    for (std::optional<Value>& each : values_) {
      values.push_back(*std::move(each));
    }
    return values;
  }

 private:
  std::vector<std::optional<Value>> values_;
};
template <>
class gathered<void> {
 public:
  static void take(task<void>& from, std::size_t /*index*/) { from.get(); }
  void all() && {}
};

}  // namespace detail

/// How map() shares out its calls.
struct map_options {
  migrate::options each{};  ///< Of each call.
  std::size_t at_once = 0;  ///< So many at a time, of all hosts; 0: four for each host.
};

/// Calls `function` with each element of `range` at one of the hosts, that with the fewest of these
/// calls, and returns the values in the order of the elements. The first exception that comes home
/// ends the others and is thrown.
template <class Range, class Function>
auto map(const std::vector<std::string>& hosts, Range&& range, Function function,
         const map_options& wanted = {}) {
  using element = decltype(*std::begin(range));
  using value = std::decay_t<std::invoke_result_t<Function&, element>>;
  struct running {
    task<value> call;
    std::size_t index;  // Of the element,
    std::size_t host;   // and where it is.
  };
  if (hosts.empty()) {
    throw std::invalid_argument("map: there is no host");
  }
  const std::size_t most = wanted.at_once != 0 ? wanted.at_once : hosts.size() * 4;
  std::vector<std::size_t> loads(hosts.size());
  std::vector<running> all;
  detail::gathered<value> values;
  const auto take_one = [&] {
    std::vector<migrate_task*> handles;
    for (const running& each : all) {
      handles.push_back(each.call.handle());
    }
    std::size_t ready = 0;
    static_cast<void>(migrate_task_wait_any(handles.data(), handles.size(), -1, &ready));
    running ended = std::move(all[ready]);
    all.erase(all.begin() + static_cast<std::ptrdiff_t>(ready));
    --loads[ended.host];
    values.take(ended.call, ended.index);
  };
  std::size_t index = 0;
  for (auto at = std::begin(range); at != std::end(range); ++at, ++index) {
    if (all.size() >= most) {
      take_one();
    }
    const auto host = static_cast<std::size_t>(
        std::distance(loads.begin(), std::min_element(loads.begin(), loads.end())));
    all.push_back({async(
                       hosts[host], [&]() -> value { return function(*at); }, wanted.each),
                   index, host});
    ++loads[host];
  }
  while (!all.empty()) {
    take_one();
  }
  return std::move(values).all();
}

}  // namespace migrate
