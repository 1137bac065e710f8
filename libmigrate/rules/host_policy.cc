#include "libmigrate/rules/host_policy.h"

#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <optional>
#include <set>

#include "base/file.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/rules/bounding_set.h"

namespace migrate {
namespace {

constexpr std::size_t kMaxPasswdBytes = std::size_t{64} * 1024;

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> words;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    words.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

bool parse_number(std::string_view text, uid_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return !text.empty() && error == std::errc() && end == text.data() + text.size();
}

Error bad_rule(const std::string& rule, std::string remedy) {
  return make_error(ErrorCode::kInvalid, "read the rule", "\"" + rule + "\"", std::move(remedy));
}

/// A user as this host's user database has him.
struct KnownUser {
  gid_t group = 0;
  std::set<gid_t> groups;  ///< With that one.
};

std::optional<KnownUser> find_user(uid_t user) {
  std::vector<char> text(kMaxPasswdBytes);
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwuid_r(user, &entry, text.data(), text.size(), &found) != 0 || found == nullptr) {
    return std::nullopt;
  }
  std::vector<gid_t> groups(NGROUPS_MAX);
  int count = NGROUPS_MAX;
  if (::getgrouplist(entry.pw_name, entry.pw_gid, groups.data(), &count) < 0) {
    return KnownUser{entry.pw_gid, {entry.pw_gid}};
  }
  return KnownUser{entry.pw_gid, {groups.begin(), groups.begin() + count}};
}

/// All groups of a user; nothing for one whom the user database does not know.
std::set<gid_t> groups_of(uid_t user) {
  return find_user(user).value_or(KnownUser()).groups;
}

std::string thread_name(const wire::Thread& thread) {
  return "thread " + std::to_string(thread.id());
}

/// What of a thread's credentials its user could not have here by himself.
void check_credentials(const wire::Thread& thread, uid_t user, const std::set<gid_t>& groups,
                       Refusals& refusals) {
  const wire::Credentials& held = thread.credentials();
  const auto refuse = [&](const std::string& what) {
    refusals.push_back(make_refusal("PRIVILEGE", thread_name(thread), what));
  };
  for (const uid_t each :
       {held.uid_real(), held.uid_effective(), held.uid_saved(), held.uid_filesystem()}) {
    if (each != user) {
      refuse("it acts as user " + std::to_string(each) + " too");
      return;
    }
  }
  if (held.capabilities_permitted() != 0 || held.capabilities_effective() != 0 ||
      held.capabilities_ambient() != 0 || held.capabilities_inheritable() != 0) {
    refuse("it has capabilities");
  }
  // Nobody can take from his bounding set, or set these bits, by himself; set-user-id programs that
  // could not drop what they have would run his code with it.
  if (held.secure_bits() != 0) {
    refuse("it has secure bits");
  }
  if (!held.no_new_privileges() && (own_bounding_set() & ~held.capabilities_bounding()) != 0) {
    refuse("its capability bounding set lacks some that processes here have");
  }
  std::vector<gid_t> in(held.groups().begin(), held.groups().end());
  in.insert(in.end(),
            {held.gid_real(), held.gid_effective(), held.gid_saved(), held.gid_filesystem()});
  for (const gid_t group : in) {
    if (!groups.contains(group)) {
      refuse("here user " + std::to_string(user) + " is not in group " + std::to_string(group));
      return;
    }
  }
}

/// Where the kernel lets no user map memory, as its own mistakes would lead there.
std::uint64_t lowest_address() {
  return std::strtoull(read_file("/proc/sys/vm/mmap_min_addr").value_or("65536").c_str(), nullptr,
                       10);
}

bool maps_below(const wire::ProcessImage& image, std::uint64_t address) {
  return std::any_of(image.mappings().begin(), image.mappings().end(),
                     [&](const wire::Mapping& mapping) { return mapping.start() < address; });
}

/// Hard limits above ours, which no user could raise.
void check_hard_limits(const wire::ProcessImage& image, Refusals& refusals) {
  for (int i = 0; i < image.resource_limits_size(); ++i) {
    rlimit64 own{};
    if (::prlimit64(0, static_cast<__rlimit_resource>(i), nullptr, &own) == 0 &&
        image.resource_limits(i).hard() > own.rlim_max) {
      refusals.push_back(make_refusal("PRIVILEGE", "resource limit " + std::to_string(i),
                                      "it is higher than any user's here"));
    }
  }
}

void check_scheduling(const wire::ProcessImage& image, const wire::Thread& thread,
                      Refusals& refusals) {
  constexpr std::uint32_t kClassShift =
      13;  // of ioprio_get(2), of which the kernel reads three bits
  constexpr std::uint32_t kClassMask = 7;
  constexpr std::uint32_t kRealTime = 1;
  // Whatever else is in the number (SCHED_RESET_ON_FORK): only what everybody may have passes.
  const int policy = static_cast<int>(thread.policy()) & ~SCHED_RESET_ON_FORK;
  const bool is_common = policy == SCHED_OTHER || policy == SCHED_BATCH || policy == SCHED_IDLE;
  if (!is_common || thread.nice() < 0 ||
      ((thread.io_priority() >> kClassShift) & kClassMask) == kRealTime) {
    refusals.push_back(
        make_refusal("PRIVILEGE", thread_name(thread), "it has a raised scheduling priority"));
  }
  if (image.oom_score_adjust() < 0 && thread.id() == image.process_id()) {
    refusals.push_back(make_refusal("PRIVILEGE", thread_name(thread),
                                    "it is spared when memory runs out (oom_score_adj)"));
  }
}

bool wakes_the_machine(std::int64_t clock) {
  return clock == CLOCK_REALTIME_ALARM || clock == CLOCK_BOOTTIME_ALARM;
}

std::uint64_t locked_bytes(const wire::ProcessImage& image) {
  std::uint64_t bytes = 0;
  for (const wire::Mapping& mapping : image.mappings()) {
    bytes += (mapping.advice() & wire::LOCKED) != 0 ? mapping.end() - mapping.start() : 0;
  }
  return bytes;
}

std::uint32_t largest_pipe_bytes(const wire::Image& image) {
  std::uint32_t bytes = 0;
  for (const wire::Pipe& pipe : image.objects().pipes()) {
    bytes = std::max(bytes, pipe.capacity_bytes());
  }
  return bytes;
}

/// What the kernel makes for those only who have a capability, and the worker will make in a user's
/// name. Returns what that is; empty if there is none.
std::string privilege_in(const wire::Image& image) {
  const wire::ProcessImage& process = only_process(image);
  const auto wakes = [](const auto& timer) { return wakes_the_machine(timer.clock()); };
  if (std::ranges::any_of(process.posix_timers(), wakes) ||
      std::ranges::any_of(image.objects().files(), [&](const wire::OpenFile& file) {
        return file.kind() == wire::OpenFile::TIMERFD && wakes(file);
      })) {
    return "it has a timer that wakes the machine";
  }
  for (const wire::OpenFile& file : image.objects().files()) {
    if (std::ranges::any_of(file.watches(), [](const wire::EpollWatch& watch) {
          return (watch.events() & EPOLLWAKEUP) != 0;
        })) {
      return "it keeps the machine awake (EPOLLWAKEUP)";
    }
  }
  if (process.merges_memory()) {
    return "its memory is merged with that of others (PR_SET_MEMORY_MERGE)";
  }
  rlimit64 locked{};
  if (::prlimit64(0, RLIMIT_MEMLOCK, nullptr, &locked) == 0 &&
      locked_bytes(process) > locked.rlim_max) {
    return "it has locked more memory than any user may here";
  }
  constexpr std::uint64_t kUsualPipeBytes = 1U << 20U;
  std::uint64_t most = 0;
  const std::string text = read_file("/proc/sys/fs/pipe-max-size").value_or("");
  std::from_chars(text.data(), text.data() + text.size(), most);
  if (largest_pipe_bytes(image) > (most != 0 ? most : kUsualPipeBytes)) {
    return "it has a pipe that is larger than any user's here";
  }
  return {};
}

}  // namespace

Result<HostPolicy::Users> HostPolicy::parse_users(const std::string& word) {
  Users users;
  if (word == "*") {
    return Users{1, std::numeric_limits<uid_t>::max()};
  }
  if (const std::size_t dash = word.find('-'); dash != std::string::npos &&
                                               parse_number(word.substr(0, dash), users.first) &&
                                               parse_number(word.substr(dash + 1), users.last)) {
    if (users.first > users.last) {
      return fail(bad_rule(word, "the range holds nobody; write the smaller number first"));
    }
    return users;
  }
  if (parse_number(word, users.first)) {
    users.last = users.first;
    return users;
  }
  std::vector<char> text(kMaxPasswdBytes);
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwnam_r(word.c_str(), &entry, text.data(), text.size(), &found) != 0 ||
      found == nullptr) {
    return fail(bad_rule(word, "this host knows no user of that name"));
  }
  return Users{entry.pw_uid, entry.pw_uid};
}

Result<HostPolicy> HostPolicy::parse(const std::vector<std::string>& rules) {
  HostPolicy policy;
  for (const std::string& text : rules) {
    const std::size_t at = text.rfind('@');
    if (at == std::string::npos || at == 0 || at + 1 == text.size()) {
      return fail(bad_rule(text, "write USERS@HOSTS, such as *@* or alice,1000-1999@hostA,hostB"));
    }
    Rule rule;
    for (const std::string& word : split(text.substr(0, at))) {
      rule.users.push_back(MIGRATE_TRY(parse_users(word)));
    }
    rule.hosts = split(text.substr(at + 1));
    policy.rules_.push_back(std::move(rule));
  }
  return policy;
}

bool HostPolicy::names_root() const {
  return std::any_of(rules_.begin(), rules_.end(), [](const Rule& rule) {
    return std::any_of(rule.users.begin(), rule.users.end(),
                       [](const Users& each) { return each.first == 0; });
  });
}

bool HostPolicy::allows(const PeerIdentity& source, uid_t user) const {
  return std::any_of(rules_.begin(), rules_.end(), [&](const Rule& rule) {
    return std::any_of(
               rule.users.begin(), rule.users.end(),
               [&](const Users& each) { return each.first <= user && user <= each.last; }) &&
           std::any_of(rule.hosts.begin(), rule.hosts.end(), [&](const std::string& host) {
             return host == "*" || source.is_host(host);
           });
  });
}

Result<Asker> HostPolicy::believed(const PeerIdentity& source, const Asker& told) const {
  Asker asker = told;
  asker.is_target = false;
  if (allows(source, 0)) {
    return asker;
  }
  const auto known =
      told.user != 0 && allows(source, told.user) ? find_user(told.user) : std::nullopt;
  if (!known) {
    return fail(make_error(ErrorCode::kRefused, "believe that someone asks",
                           told.name() + " by " + source.to_string(),
                           "this host takes no process of that user from there (allow in "
                           "migrated.toml), or does not know the user"));
  }
  asker.group = known->group;
  asker.groups.assign(known->groups.begin(), known->groups.end());
  asker.capabilities = 0;
  return asker;
}

std::vector<wire::Refusal> check_policy(const HostPolicy& policy, const PeerIdentity& source,
                                        uid_t user, const wire::Image& whole) {
  Refusals refusals;
  const wire::ProcessImage& image = only_process(whole);
  const std::string who = "user " + std::to_string(user) + " from " + source.to_string();
  if (image.threads().empty() || image.threads(0).credentials().uid_real() != user) {
    refusals.push_back(make_refusal("NOT_ALLOWED", who, "the process belongs to another user"));
    return refusals;
  }
  if (policy.allows(source, 0)) {
    return refusals;
  }
  if (!policy.allows(source, user)) {
    refusals.push_back(make_refusal("NOT_ALLOWED", who));
    return refusals;
  }
  check_hard_limits(image, refusals);
  if (maps_below(image, lowest_address())) {
    refusals.push_back(make_refusal("PRIVILEGE", who, "it has memory where no user may have any"));
  }
  if (const std::string privilege = privilege_in(whole); !privilege.empty()) {
    refusals.push_back(make_refusal("PRIVILEGE", who, privilege));
  }
  const std::set<gid_t> groups = groups_of(user);
  for (const wire::Thread& thread : image.threads()) {
    check_credentials(thread, user, groups, refusals);
    check_scheduling(image, thread, refusals);
  }
  return refusals;
}

bool same_rights(const wire::Image& whole_draft, const wire::Image& whole) {
  const wire::ProcessImage& draft = only_process(whole_draft);
  const wire::ProcessImage& image = only_process(whole);
  if (draft.threads().empty() || image.threads().empty() ||
      draft.oom_score_adjust() != image.oom_score_adjust() ||
      draft.resource_limits_size() != image.resource_limits_size() ||
      maps_below(image, lowest_address()) || !privilege_in(whole).empty()) {
    return false;
  }
  for (int i = 0; i < image.resource_limits_size(); ++i) {
    if (draft.resource_limits(i).hard() != image.resource_limits(i).hard()) {
      return false;
    }
  }
  const wire::Thread& first = draft.threads(0);
  const std::string credentials = first.credentials().SerializeAsString();
  return std::all_of(image.threads().begin(), image.threads().end(),
                     [&](const wire::Thread& thread) {
                       return thread.credentials().SerializeAsString() == credentials &&
                              thread.policy() == first.policy() && thread.nice() == first.nice() &&
                              thread.io_priority() == first.io_priority();
                     });
}

}  // namespace migrate
