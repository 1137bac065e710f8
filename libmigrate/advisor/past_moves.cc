#include "libmigrate/advisor/past_moves.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/file.h"
#include "base/log.h"

namespace migrate {
namespace {

// Less takes too little time for a speed.
constexpr std::uint64_t kLeastBytes = std::uint64_t{4} << 20U;
constexpr double kLeastFreezeUs = 500;
constexpr std::size_t kLongestName = 200;

constexpr std::array<std::pair<const char*, double Speeds::*>, 5> kMembers{
    {{"behind", &Speeds::behind},
     {"stopped", &Speeds::stopped},
     {"ahead", &Speeds::ahead},
     {"freeze_us", &Speeds::freeze_us},
     {"freeze_after_rounds_us", &Speeds::freeze_after_rounds_us}}};

double speed(std::uint64_t bytes, std::int64_t us) {
  return bytes < kLeastBytes || us <= 0
             ? 0
             : static_cast<double>(bytes) * 1e6 / static_cast<double>(us);
}

Result<void> replace_file(const std::string& folder, const std::string& path,
                          const std::string& text) {
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail(system_error("make directory", folder));
  }
  const std::string draft = path + "." + std::to_string(::getpid());
  ::unlink(draft.c_str());
  MIGRATE_TRY(open_file(draft, O_WRONLY | O_CREAT | O_EXCL));
  MIGRATE_TRY(write_file(draft, text));
  if (std::rename(draft.c_str(), path.c_str()) != 0) {
    const Error error = system_error("rename", draft);
    ::unlink(draft.c_str());
    return fail(error);
  }
  return {};
}

}  // namespace

Speeds speeds_of(const MoveFigures& move) {
  Speeds speeds;
  const std::uint64_t after = move.wire_bytes - std::min(move.wire_bytes, move.rounds_bytes);
  if (!move.limited) {
    speeds.ahead = speed(move.rounds_bytes, move.rounds_us);
    if (move.plan.all_before_run) {
      speeds.stopped = speed(after, move.restore_us);
    } else if (move.plan.push) {
      speeds.behind = speed(after, move.independence_us);
    }
  }
  if (!move.plan.all_before_run && move.freeze_us > 0) {
    const double threads_us = kFreezeUsPerThread * (std::max(move.threads, 1U) - 1);
    (move.plan.rounds ? speeds.freeze_after_rounds_us : speeds.freeze_us) =
        std::max(static_cast<double>(move.freeze_us - move.kept_us - move.files_us) - threads_us,
                 kLeastFreezeUs);
  }
  return speeds;
}

PastMoves::PastMoves(const std::string& state_directory, const std::string& destination) {
  if (state_directory.empty()) {
    return;
  }
  std::string name = destination;
  std::replace_if(
      name.begin(), name.end(),
      [](unsigned char letter) { return std::isalnum(letter) == 0 && letter != '-'; }, '_');
  name.resize(std::min(name.size(), kLongestName));
  folder_ = state_directory + "/past-moves";
  path_ = folder_ + "/" + name;
}

Speeds PastMoves::read() const {
  Speeds speeds;
  const auto text = path_.empty() ? Result<std::string>(std::string()) : read_file(path_);
  const auto object = nlohmann::json::parse(text.value_or(""), nullptr, false);
  for (const auto& [name, member] : kMembers) {
    if (object.is_object() && object.contains(name) && object[name].is_number()) {
      speeds.*member = std::max(object[name].get<double>(), 0.0);
    }
  }
  return speeds;
}

void PastMoves::note(const Speeds& speeds) const {
  if (path_.empty()) {
    return;
  }
  const Speeds before = read();
  nlohmann::json object;
  for (const auto& [name, member] : kMembers) {
    const double old = before.*member;
    const double now = speeds.*member;
    const double kept = now <= 0 ? old : old <= 0 ? now : (old + now) / 2;
    if (kept > 0) {
      object[name] = static_cast<std::int64_t>(kept);
    }
  }
  if (object.is_null()) {
    return;
  }
  if (const auto written = replace_file(folder_, path_, object.dump() + "\n"); !written) {
    log::warn("what a move came to is not noted: {}", written.error().message());
  }
}

}  // namespace migrate
