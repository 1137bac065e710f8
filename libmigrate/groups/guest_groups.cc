#include "libmigrate/groups/guest_groups.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <set>
#include <utility>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/proc/file_identity.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate {
namespace {

constexpr std::string_view kPrefix = "migrate-";
constexpr std::size_t kDigits = 16;  // of a digest
constexpr std::string_view kDaemonLeaf = "/migrate-daemon";

/// Those of one group of one host are together. With other limits they are other groups, so that
/// nobody changes those of others.
std::string name_of(const wire::ControlGroups& wanted, const GuestGroups::Owner& owner) {
  std::string text = owner.trusted && !wanted.origin().empty() ? wanted.origin() : owner.host;
  text += fmt::format("\n{}\n{}\n", owner.trusted ? 0 : owner.user, owner.trusted);
  for (const std::string& place : wanted.places()) {
    text += place + "\n";
  }
  for (const wire::GroupLimit& limit : wanted.limits()) {
    text += limit.name() + " " + limit.value() + "\n";
  }
  std::string name(kPrefix);
  for (const char byte : sha256(text).substr(0, kDigits / 2)) {
    name += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  }
  return name;
}

bool is_made_name(std::string_view name) {
  return name.size() == kPrefix.size() + kDigits && name.starts_with(kPrefix) &&
         std::ranges::all_of(name.substr(kPrefix.size()), [](unsigned char digit) {
           return std::isdigit(digit) != 0 || (digit >= 'a' && digit <= 'f');
         });
}

/// Below which groups are made: the daemon's own, which in version 2 is in a leaf of that.
GroupPlace base_of(GroupPlace own) {
  if (own.hierarchy.is_version_2() && own.directory.ends_with(kDaemonLeaf)) {
    own.directory.resize(own.directory.size() - kDaemonLeaf.size());
    own.path.resize(own.path.size() - kDaemonLeaf.size());
  }
  return own;
}

bool is_directory(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

/// The processors and nodes of a new group of version 1 are none, and nobody may enter it.
void take_processors(const GroupPlace& place) {
  const std::string above = place.directory.substr(0, place.directory.rfind('/'));
  for (const char* file : {"/cpuset.cpus", "/cpuset.mems"}) {
    if (read_file(place.directory + file).value_or("") == "\n") {
      static_cast<void>(write_file(place.directory + file, read_file(above + file).value_or("")));
    }
  }
}

/// Makes the group, unless it is there.
Result<void> make_group(const GroupPlace& place) {
  if (::mkdir(place.directory.c_str(), 0755) != 0 && errno != EEXIST) {
    return fail(system_error("make a control group", place.directory));
  }
  if (place.hierarchy.has("cpuset")) {
    take_processors(place);
  }
  return {};
}

/// Whether limits of this controller can be of this hierarchy's groups below `base`.
bool has_controller(const GroupPlace& base, std::string_view controller) {
  if (!base.hierarchy.is_version_2()) {
    return base.hierarchy.has(controller);
  }
  const std::string all = read_file(base.directory + "/cgroup.controllers").value_or("");
  std::string_view line = all;
  line = take_line(line);
  for (std::string_view word = take_word(line); !word.empty(); word = take_word(line)) {
    if (word == controller) {
      return true;
    }
  }
  return false;
}

/// In version 2 a group has limits only where the one above it hands the controller on, which it
/// does not while processes are in it.
void hand_on(const GroupPlace& base, std::string_view controller) {
  if (base.hierarchy.is_version_2()) {
    static_cast<void>(
        write_file(base.directory + "/cgroup.subtree_control", fmt::format("+{}", controller)));
  }
}

bool is_delegated(const std::string& directory) {
  char value = 0;
  return (::getxattr(directory.c_str(), "user.delegate", &value, 1) == 1 ||
          ::getxattr(directory.c_str(), "trusted.delegate", &value, 1) == 1) &&
         value == '1';
}

void clear_below(const std::string& directory) {
  std::vector<std::string> left;
  for (const std::string& name : list_directory(directory).value_or(std::vector<std::string>())) {
    left.push_back(fmt::format("{}/{}", directory, name));
  }
  remove_groups(left);
}

std::string text_of(const wire::GroupLimit& limit) {
  return fmt::format("{} {}", limit.name(), limit.value());
}

}  // namespace

void GuestGroups::add_seat(const GroupPlace& own, const std::string& name, const std::string& rule,
                           const wire::ControlGroups& wanted, const Owner& owner) {
  GroupPlace base = base_of(own);
  const auto ruled = rule.empty() ? std::nullopt : base.hierarchy.directory(rule);
  const bool follows_rule =
      ruled && is_directory(*ruled) && (owner.trusted || owner.may_write(*ruled + "/cgroup.procs"));
  if (follows_rule) {
    base.path = rule;
    base.directory = *ruled;
  }
  if (base.directory.empty()) {  // Nor is the daemon's own seen.
    return;
  }
  Seat seat{.place = base, .limits = {}, .is_made = true};
  seat.place.path = (base.path == "/" ? "" : base.path) + "/" + name;
  seat.place.directory = base.directory + "/" + name;
  bool made = false;
  for (const wire::GroupLimit& limit : wanted.limits()) {
    const std::string_view controller = controller_of(limit);
    if (controller.empty() || !has_controller(base, controller) ||
        (is_privilege(limit) && !owner.trusted)) {
      continue;
    }
    made = made || make_group(seat.place).has_value();
    hand_on(base, controller);
    if (const auto set = set_group_limit(seat.place, limit); !set) {
      log::info("{}", set.error().message());
    } else {
      seat.limits.push_back(limit);
      std::erase(lost_, text_of(limit));
    }
  }
  if (!seat.limits.empty() || (follows_rule && make_group(seat.place))) {
    seats_.push_back(std::move(seat));
  } else if (made) {
    remove_groups({seat.place.directory});
  }
}

GuestGroups GuestGroups::make(const wire::ControlGroups& wanted, const Owner& owner,
                              const GroupRules& rules) {
  GuestGroups groups;
  std::vector<std::string> places;
  for (const std::string& place : wanted.places()) {  // "memory:/a", of version 2 ":/a"
    places.push_back(place.substr(std::min(place.find(':') + 1, place.size())));
  }
  const std::string rule = rules.group_for(places);
  if (wanted.limits().empty() && rule.empty()) {
    return groups;
  }
  for (const wire::GroupLimit& limit : wanted.limits()) {
    groups.lost_.push_back(text_of(limit));
  }
  const std::string name = name_of(wanted, owner);
  for (const GroupPlace& own : own_group_places()) {
    groups.add_seat(own, name, rule, wanted, owner);
  }
  for (const GroupPlace& own : own_unseen_group_places()) {
    groups.add_seat(own, name, rule, wanted, owner);
  }
  return groups;
}

GuestGroups GuestGroups::of(pid_t deputy) {
  GuestGroups groups;
  const std::vector<GroupPlace> own = own_group_places();
  for (GroupPlace& place :
       group_places(read_file(fmt::format("/proc/{}/cgroup", deputy)).value_or(""),
                    read_file("/proc/self/mountinfo").value_or(""))) {
    if (std::ranges::find(own, place.directory, &GroupPlace::directory) == own.end()) {
      groups.seats_.push_back({.place = std::move(place), .limits = {}, .is_made = false});
    }
  }
  return groups;
}

std::vector<std::string> GuestGroups::made() const {
  std::vector<std::string> directories;
  for (const Seat& seat : seats_) {
    if (seat.is_made) {
      directories.push_back(seat.place.directory);
    }
  }
  return directories;
}

Result<void> GuestGroups::enter(pid_t process, Step step) const {
  for (const Seat& seat : seats_) {
    if (seat.place.hierarchy.has("pids") == (step == Step::kLate)) {
      MIGRATE_TRY(enter_seat(seat, process));
    }
  }
  return {};
}

// Another worker, whose process was the last in it, may take it away as long as nobody is in it.
Result<void> GuestGroups::enter_seat(const Seat& seat, pid_t process) const {
  constexpr int kTries = 5;
  Result<void> entered;
  for (int tried = 0; tried < kTries; ++tried) {
    entered = write_file(seat.place.directory + "/cgroup.procs", std::to_string(process));
    const bool is_gone =
        !entered && (entered.error().sys_errno == ENOENT || entered.error().sys_errno == ENODEV);
    if (!is_gone || !seat.is_made) {
      return entered;
    }
    MIGRATE_TRY(make_group(seat.place));
    for (const wire::GroupLimit& limit : seat.limits) {
      static_cast<void>(set_group_limit(seat.place, limit));
    }
  }
  return entered;
}

void remove_groups(const std::vector<std::string>& directories) {
  for (const std::string& directory : directories) {
    if (is_made_name(std::string_view(directory).substr(directory.rfind('/') + 1))) {
      static_cast<void>(::rmdir(directory.c_str()));
    }
  }
}

void prepare_groups(const GroupRules& rules) {
  const auto clear_ruled = [&rules](const GroupHierarchy& hierarchy) {
    for (const std::string& group : rules.groups()) {
      if (const auto directory = hierarchy.directory(group)) {
        clear_below(*directory);
      }
    }
  };
  for (const GroupPlace& own : own_unseen_group_places()) {
    clear_ruled(own.hierarchy);
  }
  for (const GroupPlace& own : own_group_places()) {
    const GroupPlace base = base_of(own);
    clear_below(base.directory);
    clear_ruled(base.hierarchy);
    if (!own.hierarchy.is_version_2() || base.directory != own.directory ||
        !is_delegated(own.directory)) {
      continue;
    }
    const std::string leaf = own.directory + std::string(kDaemonLeaf);
    if (::mkdir(leaf.c_str(), 0755) != 0 && errno != EEXIST) {
      continue;
    }
    if (auto moved = write_file(leaf + "/cgroup.procs", std::to_string(::getpid())); !moved) {
      log::warn("{}", moved.error().message());
    }
  }
}

}  // namespace migrate
