#include "libmigrate/move/move_report.h"

#include <algorithm>
#include <array>
#include <string>

#include "pager/pager.h"

namespace migrate {
namespace {

constexpr std::uint64_t kNanosecondsPerMicrosecond = 1000;

/// What else the destination counts (see kPageCounters), and where it stands in a result: in an
/// object, or by itself.
struct Counter {
  const char* object;
  const char* name;
  nlohmann::json (*value)(const wire::Progress& progress);
};

template <auto member>
nlohmann::json value_of(const wire::Progress& progress) {
  return (progress.*member)();
}

constexpr std::array kCounters{
    Counter{nullptr, "one_sided_pages", value_of<&wire::Progress::one_sided_pages>},
    Counter{"faults", "count", value_of<&wire::Progress::faults>},
    Counter{"faults", "p50_us", value_of<&wire::Progress::fault_p50_us>},
    Counter{"faults", "p99_us", value_of<&wire::Progress::fault_p99_us>},
    Counter{"faults", "max_us", value_of<&wire::Progress::fault_max_us>},
    Counter{"faults", "stalled_us",
            [](const wire::Progress& progress) -> nlohmann::json {
              return progress.stalled_ns() / kNanosecondsPerMicrosecond;
            }},
    Counter{nullptr, "owed_pages", value_of<&wire::Progress::owed_pages>},
};

std::uint64_t pages_of(const wire::Progress& progress, const PageCounter& counter) {
  const auto found = progress.pages().find(std::string(counter.name));
  return found == progress.pages().end() ? 0 : found->second;
}

std::uint64_t arrived_pages(const wire::Progress& progress) {
  std::uint64_t all = 0;
  for (const PageCounter& counter : kPageCounters) {
    all += counter.arrived ? pages_of(progress, counter) : 0;
  }
  return all;
}

}  // namespace

void MoveReport::begin() {
  begun_us_ = clock_();
  phases_ = nlohmann::json::object();
  rounds_ = nullptr;
}

void MoveReport::end_phase(const char* name, std::int64_t since_us, std::int64_t less_us) {
  phases_[name] = clock_() - since_us - less_us;
}

std::int64_t MoveReport::phase_us(const char* name) const {
  return phases_.value(name, std::int64_t{0});
}

void MoveReport::note_progress(const wire::Progress& progress) {
  progress_ = progress;
  drain_.note(clock_(), progress_.owed_pages());
}

void MoveReport::note_done(std::uint64_t wire_bytes) {
  independent_us_ = clock_();
  final_wire_bytes_ = wire_bytes;
}

MoveFigures MoveReport::figures() const {
  MoveFigures figures;
  figures.freeze_us = freeze_us_;
  figures.kept_us = phase_us("kept");
  figures.files_us = phase_us("memory_files");
  figures.restore_us = phase_us("restore");
  figures.wire_bytes = final_wire_bytes_;
  if (rounds_.is_object()) {
    figures.rounds_bytes = rounds_.value("bytes", std::uint64_t{0});
    for (const nlohmann::json& each : rounds_["each"]) {
      figures.rounds_us += each.value("us", std::int64_t{0});
    }
  }
  figures.independence_us = std::max<std::int64_t>(done() ? independent_us_ - running_us_ : 0, 0);
  return figures;
}

bool MoveReport::misses_deadline() {
  const std::int64_t deadline_us = std::chrono::microseconds(deadline_).count();
  if (deadline_us == 0 || deadline_missed_ || done() || clock_() <= running_us_ + deadline_us) {
    return false;
  }
  deadline_missed_ = true;
  return true;
}

nlohmann::json MoveReport::expected_independence() const {
  if (done()) {
    return 0;
  }
  const auto remaining = drain_.remaining_us(clock_());
  return remaining ? nlohmann::json(*remaining) : nlohmann::json();
}

void MoveReport::add_to(nlohmann::json& result, std::uint64_t wire_bytes) const {
  result["phases_us"] = phases_;
  result["freeze_us"] = freeze_us_;
  if (!rounds_.is_null()) {
    result["rounds"] = rounds_;
  }
  result["image_bytes"] = image_bytes_;
  for (const PageCounter& counter : kPageCounters) {
    result["pages"][counter.name] = pages_of(progress_, counter);
  }
  for (const Counter& counter : kCounters) {
    nlohmann::json& object = counter.object == nullptr ? result : result[counter.object];
    object[counter.name] = counter.value(progress_);
  }
  result["wire_bytes"] = done() ? final_wire_bytes_ : wire_bytes;
  result["state"] = done() ? "done" : "running";
  result["owed_nothing_after_us"] =
      done() ? nlohmann::json(std::max<std::int64_t>(independent_us_ - running_us_, 0)) : nullptr;
  result["expected_independence_us"] = expected_independence();
  if (deadline_.count() > 0) {
    result["deadline_missed"] = deadline_missed_;
  }
}

nlohmann::json MoveReport::progress_event(std::uint64_t wire_bytes) const {
  const double seconds =
      static_cast<double>(std::max<std::int64_t>(clock_() - running_us_, 1)) / 1e6;
  const std::uint64_t bytes = done() ? final_wire_bytes_ : wire_bytes;
  return {{"event", "progress"},
          {"owed_pages", progress_.owed_pages()},
          {"arrived_pages", arrived_pages(progress_)},
          {"wire_bytes", bytes},
          {"bytes_per_second", static_cast<std::uint64_t>(static_cast<double>(bytes) / seconds)},
          {"expected_independence_us", expected_independence()}};
}

}  // namespace migrate
