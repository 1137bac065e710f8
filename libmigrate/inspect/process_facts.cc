#include "libmigrate/inspect/internal/process_facts.h"

#include <elf.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>

#include "base/file.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/groups/group_limits.h"
#include "libmigrate/inspect/internal/mappings.h"
#include "libmigrate/proc/file_identity.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/trace/script_area.h"

namespace migrate::inspect {
namespace {

constexpr std::uint64_t kHashLimitBytes = std::uint64_t{1} << 28;
constexpr int kIoPriorityOfProcess = 1;   // IOPRIO_WHO_PROCESS, of a thread
constexpr int kResetOnFork = 0x40000000;  // SCHED_RESET_ON_FORK, as sched_setscheduler takes it
constexpr std::uint64_t kResetOnForkFlag =
    1;  // SCHED_FLAG_RESET_ON_FORK, as sched_getattr gives it

// The kernel's struct sched_attr, first version.
struct SchedulingAttributes {
  std::uint32_t size;
  std::uint32_t policy;
  std::uint64_t flags;
  std::int32_t nice;
  std::uint32_t priority;
  std::uint64_t runtime;
  std::uint64_t deadline;
  std::uint64_t period;
};
static_assert(sizeof(SchedulingAttributes) == 48);

std::array<std::uint32_t, 4> four_numbers(std::string_view text, std::string_view key) {
  std::array<std::uint32_t, 4> numbers{};
  std::string_view field = find_field(text, key).value_or(std::string_view());
  for (std::uint32_t& number : numbers) {
    number = static_cast<std::uint32_t>(parse_number(take_word(field)).value_or(0));
  }
  return numbers;
}

void read_credentials(std::string_view status, wire::Credentials& credentials) {
  const auto uids = four_numbers(status, "Uid:");
  credentials.set_uid_real(uids[0]);
  credentials.set_uid_effective(uids[1]);
  credentials.set_uid_saved(uids[2]);
  credentials.set_uid_filesystem(uids[3]);
  const auto gids = four_numbers(status, "Gid:");
  credentials.set_gid_real(gids[0]);
  credentials.set_gid_effective(gids[1]);
  credentials.set_gid_saved(gids[2]);
  credentials.set_gid_filesystem(gids[3]);
  std::string_view groups = find_field(status, "Groups:").value_or(std::string_view());
  for (std::string_view word = take_word(groups); !word.empty(); word = take_word(groups)) {
    credentials.add_groups(static_cast<std::uint32_t>(parse_number(word).value_or(0)));
  }
  credentials.set_capabilities_inheritable(number_field(status, "CapInh:", 16));
  credentials.set_capabilities_permitted(number_field(status, "CapPrm:", 16));
  credentials.set_capabilities_effective(number_field(status, "CapEff:", 16));
  credentials.set_capabilities_bounding(number_field(status, "CapBnd:", 16));
  credentials.set_capabilities_ambient(number_field(status, "CapAmb:", 16));
  credentials.set_no_new_privileges(number_field(status, "NoNewPrivs:") != 0);
}

void read_scheduling(pid_t tid, wire::Thread& thread, Refusals& refusals) {
  SchedulingAttributes attributes{};
  if (::syscall(SYS_sched_getattr, tid, &attributes, sizeof attributes, 0) != 0) {
    return;  // The thread has ended.
  }
  const int policy = static_cast<int>(attributes.policy);
  if (policy != SCHED_OTHER && policy != SCHED_FIFO && policy != SCHED_RR &&
      policy != SCHED_BATCH && policy != SCHED_IDLE) {
    refuse(refusals, "SCHEDULING", fmt::format("thread {}", tid), fmt::format("policy {}", policy));
  }
  const bool reset = (attributes.flags & kResetOnForkFlag) != 0;
  thread.set_policy(reset ? policy | kResetOnFork : policy);
  thread.set_priority(static_cast<std::int32_t>(attributes.priority));
  // sched_getattr leaves the nice value out for real-time policies.
  errno = 0;
  const int nice = ::getpriority(PRIO_PROCESS, static_cast<id_t>(tid));
  thread.set_nice(errno == 0 ? nice : attributes.nice);
  if (const long priority = ::syscall(SYS_ioprio_get, kIoPriorityOfProcess, tid); priority > 0) {
    thread.set_io_priority(static_cast<std::uint32_t>(priority));
  }
  std::array<char, 1024> mask{};
  const long length = ::syscall(SYS_sched_getaffinity, tid, mask.size(), mask.data());
  if (length > 0) {
    thread.set_affinity(mask.data(), static_cast<std::size_t>(length));
  }
}

void read_memory_map(const std::vector<std::string_view>& stat, wire::MemoryMap& memory) {
  constexpr std::size_t kFirstField = 3;  // of stat_fields, as proc(5) counts
  const auto field = [&stat](std::size_t number) {
    const std::size_t index = number - kFirstField;
    return index < stat.size() ? parse_number(stat[index]).value_or(0) : 0;
  };
  memory.set_start_code(field(26));
  memory.set_end_code(field(27));
  memory.set_start_stack(field(28));
  memory.set_start_data(field(45));
  memory.set_end_data(field(46));
  memory.set_start_brk(field(47));
  memory.set_arg_start(field(48));
  memory.set_arg_end(field(49));
  memory.set_env_start(field(50));
  memory.set_env_end(field(51));
}

// The break itself is not shown; the heap's end is its upper bound until capture asks for it.
void guess_break(const wire::ProcessImage& image, wire::MemoryMap& memory) {
  memory.set_brk(memory.start_brk());
  for (const wire::Mapping& mapping : image.mappings()) {
    if (mapping.name() == "[heap]") {
      memory.set_brk(std::max(memory.brk(), mapping.end()));
    }
  }
}

// The lines of /proc/PID/limits in their order, which is that of RLIMIT_* (fs/proc/base.c, lnames).
constexpr std::array<std::string_view, RLIM_NLIMITS> kLimitNames{
    "Max cpu time",       "Max file size",     "Max data size",         "Max stack size",
    "Max core file size", "Max resident set",  "Max processes",         "Max open files",
    "Max locked memory",  "Max address space", "Max file locks",        "Max pending signals",
    "Max msgqueue size",  "Max nice priority", "Max realtime priority", "Max realtime timeout"};
constexpr std::size_t kLimitNameBytes = 25;

std::optional<std::uint64_t> parse_limit(std::string_view word) {
  return word == "unlimited" ? std::optional<std::uint64_t>(RLIM64_INFINITY) : parse_number(word);
}

// Everybody may read them there; prlimit(2) asks for CAP_SYS_RESOURCE.
Result<void> read_limits(int directory, wire::ProcessImage& image, Refusals& refusals) {
  const std::string content = MIGRATE_TRY(read_file_at(directory, "limits"));
  std::string_view text = content;
  take_line(text);  // The headings.
  std::size_t resource = 0;
  for (; !text.empty(); ++resource) {
    std::string_view line = take_line(text);
    std::string_view name = line.substr(0, kLimitNameBytes);
    name = name.substr(0, name.find_last_not_of(' ') + 1);
    std::string_view values = line.substr(std::min(line.size(), kLimitNameBytes));
    const auto soft = parse_limit(take_word(values));
    const auto hard = parse_limit(take_word(values));
    if (resource >= kLimitNames.size() || name != kLimitNames[resource] || !soft || !hard) {
      refuse(refusals, "UNKNOWN_ATTRIBUTE", "resource limit", line);
      continue;
    }
    wire::ResourceLimit& entry = *image.add_resource_limits();
    entry.set_soft(*soft);
    entry.set_hard(*hard);
  }
  if (resource < kLimitNames.size()) {
    return fail(make_error(ErrorCode::kCorrupt, "read the resource limits of a process",
                           "/proc/PID/limits"));
  }
  return {};
}

void read_executable(const ProcessView& view, wire::ProcessImage& image, Refusals& refusals) {
  const auto path = read_link_at(view.directory.get(), "exe");
  auto identity = path ? identify_at(view.directory.get(), "exe", *path)
                       : Result<wire::FileIdentity>(fail(path.error()));
  if (!identity) {
    refuse(refusals, "DELETED_FILE", "executable", identity.error().message());
    return;
  }
  struct stat status {};
  image.set_without_executable(::fstatat(view.directory.get(), "exe", &status, 0) == 0 &&
                               status.st_nlink == 0);
  // As we make it for a process whose executable its host does not have.
  if (identity->size_bytes() == 0 && image.without_executable()) {
    *image.mutable_executable() = std::move(*identity);
    return;
  }
  if (!image.without_executable() && !path_leads_to(view, *path, *identity)) {
    refuse(refusals, "DELETED_FILE", "executable " + *path);
  }
  if (const UniqueFd file(::openat(view.directory.get(), "exe", O_RDONLY | O_CLOEXEC));
      file.valid()) {
    (void)add_content_identity(file.get(), kHashLimitBytes, *identity);
    Elf64_Ehdr header{};  // Up to e_machine as that of other classes.
    const bool whole =
        ::pread(file.get(), &header, sizeof header, 0) == static_cast<ssize_t>(sizeof header);
    if (!whole || header.e_ident[EI_CLASS] != arch::kElfClass ||
        header.e_machine != arch::kElfMachine) {
      refuse(refusals, "ARCH", "executable " + *path,
             fmt::format("no {} ELF file", arch::kElfName));
    }
  }
  *image.mutable_executable() = std::move(*identity);
}

// A process that runs may go elsewhere between the two looks.
void read_working_directory(const ProcessView& view, wire::ProcessImage& image,
                            Refusals& refusals) {
  constexpr int kLooks = 10;
  std::string path;
  for (int looked = 0; looked < kLooks; ++looked) {
    const auto now = read_link_at(view.directory.get(), "cwd");
    if (looked > 0 && now && *now == path) {
      break;  // It is there still, and was not found.
    }
    path = now.value_or("?");
    const auto identity = now ? identify_at(view.directory.get(), "cwd", *now)
                              : Result<wire::FileIdentity>(fail(now.error()));
    if (identity && path_leads_to(view, *now, *identity)) {
      image.set_working_directory(*now);
      return;
    }
  }
  refuse(refusals, "DELETED_FILE", "working directory " + path);
}

std::uint32_t inner_thread(const ThreadIds& threads, std::uint64_t id) {
  for (const auto& [outer, inner] : threads) {
    if (static_cast<std::uint64_t>(outer) == id) {
      return inner;
    }
  }
  return 0;
}

// Blocks of "ID: 0", "signal: 14/0000000000000000", "notify: signal/pid.17", "ClockID: 1".
Result<void> read_timers(const ProcessView& view, const ThreadIds& threads,
                         wire::ProcessImage& image, Refusals& refusals) {
  const auto content = read_file_at(view.directory.get(), "timers");
  if (!content) {
    if (content.error().sys_errno == ENOENT) {
      refuse(refusals, "TIMERS_HIDDEN", fmt::format("pid {}", view.pid));
      return {};
    }
    return fail(content.error());
  }
  std::string_view text = *content;
  wire::PosixTimer* timer = nullptr;
  while (!text.empty()) {
    std::string_view line = take_line(text);
    const std::string_view key = take_word(line);
    const std::string_view value = take_word(line);
    if (key == "ID:") {
      timer = image.add_posix_timers();
      timer->set_id(static_cast<std::uint32_t>(parse_number(value).value_or(0)));
    } else if (timer == nullptr) {
      continue;
    } else if (key == "signal:") {
      const std::size_t slash = std::min(value.find('/'), value.size() - 1);
      timer->set_signal(
          static_cast<std::int32_t>(parse_number(value.substr(0, slash)).value_or(0)));
      timer->set_signal_value(parse_number(value.substr(slash + 1), 16).value_or(0));
    } else if (key == "notify:") {
      const std::size_t dot = std::min(value.find('.'), value.size() - 1);
      int notify = value.starts_with("none")     ? SIGEV_NONE
                   : value.starts_with("thread") ? SIGEV_THREAD
                                                 : SIGEV_SIGNAL;
      if (value.find("/tid.") != std::string_view::npos) {
        notify |= SIGEV_THREAD_ID;
        timer->set_thread(inner_thread(threads, parse_number(value.substr(dot + 1)).value_or(0)));
      }
      timer->set_notify(notify);
    } else if (key == "ClockID:") {
      const bool negative = value.starts_with('-');
      const auto clock =
          static_cast<std::int32_t>(parse_number(value.substr(negative ? 1 : 0)).value_or(0));
      timer->set_clock(negative ? -clock : clock);
    }
  }
  if (const int count = image.posix_timers_size(); count > kMostPosixTimers) {
    refuse(refusals, "TIMERS", fmt::format("{} timers; at most {}", count, kMostPosixTimers));
  }
  return {};
}

}  // namespace

Result<ThreadIds> read_threads(const ProcessView& view, const ThreadIds& known) {
  ThreadIds threads;
  for (const std::uint32_t number :
       MIGRATE_TRY(numbered_entries(view.tasks.get(), "/proc/PID/task"))) {
    const auto tid = static_cast<pid_t>(number);
    const auto before = std::ranges::find(known, tid, &ThreadIds::value_type::first);
    std::uint32_t inner = before != known.end() ? before->second : 0;
    if (inner == 0) {
      const auto status = read_file_at(view.tasks.get(), std::to_string(tid) + "/status");
      if (!status) {
        continue;  // The thread has ended.
      }
      inner = static_cast<std::uint32_t>(last_number_field(*status, "NSpid:"));
      if (inner == 0) {
        continue;  // It is ending: its folder is still there, and its ids are gone.
      }
    }
    threads.insert(tid == view.pid ? threads.begin() : threads.end(), {tid, inner});
  }
  if (threads.empty() || threads.front().first != view.pid) {
    return fail(
        make_error(ErrorCode::kNotFound, "list the threads of", fmt::format("pid {}", view.pid)));
  }
  return threads;
}

void read_thread_facts(const ProcessView& view, const ThreadIds& threads,
                       const wire::ProcessImage* draft, wire::ProcessImage& image,
                       Refusals& refusals) {
  for (const auto& [tid, inner] : threads) {
    const std::string directory = std::to_string(tid);
    wire::Thread& thread = *image.add_threads();
    thread.set_id(inner);
    if (auto name = read_file_at(view.tasks.get(), directory + "/comm"); name && !name->empty()) {
      name->pop_back();
      thread.set_name(*name);
    }
    read_scheduling(tid, thread, refusals);
    const wire::Thread* before = nullptr;
    if (draft != nullptr) {
      const auto found = std::ranges::find(draft->threads(), inner, &wire::Thread::id);
      before = found != draft->threads().end() ? &*found : nullptr;
    }
    if (before != nullptr) {
      thread.set_timer_slack_ns(before->timer_slack_ns());
    } else if (auto slack = read_file("/proc/" + directory + "/timerslack_ns"); slack) {
      std::string_view text = *slack;
      thread.set_timer_slack_ns(parse_number(take_line(text)).value_or(0));
    }
    if (before != nullptr && tid != view.pid) {
      *thread.mutable_credentials() = before->credentials();
    } else if (tid == view.pid) {
      read_credentials(view.status_text, *thread.mutable_credentials());
    } else if (const auto status = read_file_at(view.tasks.get(), directory + "/status")) {
      read_credentials(*status, *thread.mutable_credentials());
    }
  }
  if (image.threads_size() > 0) {
    image.set_name(image.threads(0).name());
  }
}

Result<void> read_process_facts(const ProcessView& view, const ThreadIds& threads,
                                wire::ProcessImage& image, Refusals& refusals) {
  const std::string_view status = view.status_text;
  image.set_process_id(static_cast<std::uint32_t>(last_number_field(status, "NSpid:")));
  image.set_umask(static_cast<std::uint32_t>(number_field(status, "Umask:", 8)));
  image.set_thp_disabled(number_field(status, "THP_enabled:", 10, 1) == 0 ? 1 : 0);
  return read_timers(view, threads, image, refusals);
}

Result<void> read_surroundings(const ProcessView& view, const wire::ProcessImage* draft,
                               wire::ProcessImage& image, Refusals& refusals) {
  const int directory = view.directory.get();
  read_working_directory(view, image, refusals);
  const std::string stat = MIGRATE_TRY(read_file_at(directory, "stat"));
  read_memory_map(stat_fields(stat), *image.mutable_memory());
  const std::string adjust = MIGRATE_TRY(read_file_at(directory, "oom_score_adj"));
  std::string_view adjust_text = adjust;
  adjust_text = take_line(adjust_text);
  const bool negative = adjust_text.starts_with('-');
  const auto score =
      static_cast<std::int32_t>(parse_number(adjust_text.substr(negative ? 1 : 0)).value_or(0));
  image.set_oom_score_adjust(negative ? -score : score);
  MIGRATE_TRY(read_limits(directory, image, refusals));
  // "/autogroup-17 nice -3"
  if (const auto group = read_file_at(directory, "autogroup")) {
    std::string_view words = *group;
    words = take_line(words);
    words.remove_prefix(std::min(words.size(), words.rfind(' ') + 1));
    const bool below = words.starts_with('-');
    const auto nice =
        static_cast<std::int32_t>(parse_number(words.substr(below ? 1 : 0)).value_or(0));
    image.set_autogroup_nice(below ? -nice : nice);
  }
  if (const auto login = read_file_at(directory, "loginuid")) {
    constexpr std::uint64_t kNobody = 0xffffffff;
    std::string_view text = *login;
    const std::uint64_t user = parse_number(take_line(text)).value_or(kNobody);
    if (user < kNobody) {
      image.set_login_user(static_cast<std::uint32_t>(user));
    }
  }
  if (const auto filter = read_file_at(directory, "coredump_filter")) {
    std::string_view filter_text = *filter;
    image.set_coredump_filter(
        static_cast<std::uint32_t>(parse_number(take_line(filter_text), 16).value_or(0)));
  }
  if (draft != nullptr) {
    image.mutable_memory()->set_auxv(draft->memory().auxv());
    image.set_personality(draft->personality());
    *image.mutable_executable() = draft->executable();
    image.set_without_executable(draft->without_executable());
    return {};
  }
  guess_break(image, *image.mutable_memory());
  image.mutable_memory()->set_auxv(MIGRATE_TRY(read_file_at(directory, "auxv")));
  const std::string personality = MIGRATE_TRY(read_file_at(directory, "personality"));
  std::string_view personality_text = personality;
  image.set_personality(parse_number(take_line(personality_text), 16).value_or(0));
  read_executable(view, image, refusals);
  return {};
}

void read_control_groups(const ProcessView& view, Findings& findings, wire::ProcessImage& image) {
  findings.groups_text = read_file_at(view.directory.get(), "cgroup").value_or("");
  if (!view.known.group_places.empty() && view.known.group_places == findings.groups_text) {
    *image.mutable_control_groups() = view.known.home_groups;
    return;
  }
  wire::ControlGroups& groups = *image.mutable_control_groups();
  std::array<char, HOST_NAME_MAX + 1> host{};
  if (::gethostname(host.data(), host.size() - 1) == 0) {
    groups.set_origin(host.data());
  }
  std::string_view text = findings.groups_text;
  while (!text.empty()) {  // "4:memory:/path", of version 2 "0::/path"
    std::string_view line = take_line(text);
    line.remove_prefix(std::min(line.find(':') + 1, line.size()));
    if (!line.ends_with(":/")) {
      groups.add_places(std::string(line));
    }
  }
  const auto places =
      group_places(findings.groups_text, read_file("/proc/self/mountinfo").value_or(""));
  read_group_limits(places, *groups.mutable_limits());
  findings.group_limits = other_group_limits(places);
}

}  // namespace migrate::inspect
