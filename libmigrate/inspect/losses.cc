#include "libmigrate/inspect/internal/losses.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <set>

#include "base/file.h"
#include "libmigrate/carriers/epoll_watch.h"
#include "libmigrate/image/address_space.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::inspect {
namespace {

using Losses = std::vector<std::string>;

constexpr std::size_t kFirstStatField = 3;  // of stat_fields, as proc(5) counts

// The text of a file of one thread; empty if it has ended.
std::string thread_text(const LossView& view, pid_t thread, const char* name) {
  return read_file_at(view.process.tasks.get(), fmt::format("{}/{}", thread, name)).value_or("");
}

std::uint64_t stat_field(const std::string& stat, std::size_t number) {
  const auto fields = stat_fields(stat);
  const std::size_t index = number - kFirstStatField;
  return index < fields.size() ? parse_number(fields[index]).value_or(0) : 0;
}

// What `find` finds of each thread. Of a frozen process's threads but the first, what was found
// before.
template <typename Find>
Losses of_threads(const LossView& view, std::map<pid_t, Losses>& known, Find find) {
  Losses all;
  for (const auto& [thread, inner] : view.threads) {
    const auto [place, added] = known.try_emplace(thread);
    if (added || !view.frozen || thread == view.process.pid) {
      place->second = find(thread);
    }
    all.insert(all.end(), place->second.begin(), place->second.end());
  }
  return all;
}

std::string_view without_line_end(std::string_view text) {
  return text.substr(0, text.find('\n'));
}

// Who gets signals of a descriptor, and which: "pid 17", "signal 35"; empty: nobody.
std::string owner_of_descriptor(const LossView& view, std::uint32_t number) {
  const UniqueFd fd(static_cast<int>(
      ::syscall(SYS_pidfd_getfd, view.process.pidfd.get(), static_cast<int>(number), 0)));
  f_owner_ex owner{};
  if (!fd.valid()) {
    return {};
  }
  std::string text;
  if (::fcntl(fd.get(), F_GETOWN_EX, &owner) == 0 && owner.pid != 0) {
    text = fmt::format("to {} {}", owner.type == F_OWNER_PGRP ? "group" : "pid", owner.pid);
  }
  if (const int signal = ::fcntl(fd.get(), F_GETSIG); signal > 0) {
    text += fmt::format("{}signal {}", text.empty() ? "" : ", ", signal);
  }
  return text;
}

// Of regular files nobody is signalled, but their owner can be asked for.
Losses owned_descriptors(const LossView& view, bool directories) {
  Losses owned;
  const auto& files = view.image.objects().files();
  std::set<std::uint32_t> seen;
  for (const wire::Descriptor& descriptor : only_process(view.image).descriptors()) {
    const int file = static_cast<int>(descriptor.file());
    if (file >= files.size() || (files[file].kind() == wire::OpenFile::DIRECTORY) != directories ||
        !seen.insert(descriptor.file()).second) {
      continue;
    }
    if (const std::string owner = owner_of_descriptor(view, descriptor.number()); !owner.empty()) {
      const auto link =
          read_link_at(view.process.descriptors.get(), std::to_string(descriptor.number()));
      owned.push_back(
          fmt::format("descriptor {} -> {}: {}", descriptor.number(), link.value_or("?"), owner));
    }
  }
  return owned;
}

}  // namespace

Losses policies_in(std::string_view numa_maps) {
  std::map<std::string, std::size_t> counts;
  while (!numa_maps.empty()) {
    std::string_view line = take_line(numa_maps);
    take_word(line);
    if (const std::string_view policy = take_word(line); !policy.empty() && policy != "default") {
      ++counts[std::string(policy)];
    }
  }
  Losses policies;
  for (const auto& [policy, count] : counts) {
    policies.push_back(fmt::format("{} for {} mappings", policy, count));
  }
  return policies;
}

bool list_has_all(std::string_view list, std::string_view wanted) {
  const auto numbers = [](std::string_view text) {
    std::set<std::uint64_t> set;
    text = without_line_end(text);
    while (!text.empty()) {
      const std::string_view range = text.substr(0, text.find(','));
      text.remove_prefix(std::min(range.size() + 1, text.size()));
      const std::string_view first = range.substr(0, range.find('-'));
      const auto from = parse_number(first);
      const auto to =
          first.size() == range.size() ? from : parse_number(range.substr(first.size() + 1));
      constexpr std::uint64_t kMostNodes = 1024;
      for (std::uint64_t at = from.value_or(1); at <= std::min(to.value_or(0), kMostNodes); ++at) {
        set.insert(at);
      }
    }
    return set;
  };
  return std::ranges::includes(numbers(list), numbers(wanted));
}

Losses find_speculation(const LossView& view) {
  const auto own = read_file("/proc/self/status");
  return of_threads(view, view.findings.speculation, [&](pid_t thread) {
    Losses losses;
    const std::string text =
        thread == view.process.pid ? view.process.status_text : thread_text(view, thread, "status");
    for (const std::string_view key : {"Speculation_Store_Bypass:", "SpeculationIndirectBranch:"}) {
      const auto setting = find_field(text, key);
      const auto common = own ? find_field(*own, key) : std::nullopt;
      if (setting && setting != common) {
        losses.push_back(fmt::format("thread {}: {} {}", thread, key, *setting));
      }
    }
    return losses;
  });
}

Losses find_memory_nodes(const LossView& view) {
  const auto nodes = read_file("/sys/devices/system/node/has_memory");
  const auto allowed = find_field(view.process.status_text, "Mems_allowed_list:");
  if (!nodes || !allowed || list_has_all(*allowed, *nodes)) {
    return {};
  }
  return {fmt::format("nodes {} of {}", *allowed, without_line_end(*nodes))};
}

Losses find_group_limits(const LossView& view) {
  return view.findings.group_limits;
}

Losses find_resource_group(const LossView& view) {
  const auto text = read_file_at(view.process.directory.get(), "cpu_resctrl_groups");
  std::string_view left = text ? std::string_view(*text) : std::string_view();
  Losses groups;
  while (!left.empty()) {  // "res:/group", "mon:group"; nothing behind it if it is not mounted
    const std::string_view line = take_line(left);
    const std::string_view group = line.substr(std::min(line.find(':') + 1, line.size()));
    if (!group.empty() && group != "/") {
      groups.emplace_back(line);
    }
  }
  return groups;
}

Losses find_what_is_told_there(const LossView& /*view*/) {
  return {};
}

// The kernel walks all pages to write numa_maps, as it does for smaps: not where there are none.
Losses find_memory_policies(const LossView& view) {
  if (!view.frozen) {
    view.findings.memory_policies =
        view.findings.may_have_policies
            ? policies_in(read_file_at(view.process.directory.get(), "numa_maps").value_or(""))
            : Losses();
  }
  return view.findings.memory_policies;
}

Losses find_io_flusher(const LossView& view) {
  constexpr std::size_t kFlags = 9;
  // PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, which the kernel sets both for it alone.
  constexpr std::uint64_t kFlusher = 0x00080000 | 0x00100000;
  return of_threads(view, view.findings.io_flusher, [&](pid_t thread) {
    const std::uint64_t flags = stat_field(thread_text(view, thread, "stat"), kFlags);
    return (flags & kFlusher) == kFlusher ? Losses{fmt::format("thread {}", thread)} : Losses();
  });
}

// Threads have none whose parent was of a real-time policy, and had none: no call gives that back.
Losses find_timer_slack(const LossView& view) {
  return of_threads(view, view.findings.timer_slack, [](pid_t thread) {
    const int policy = ::sched_getscheduler(thread) & ~SCHED_RESET_ON_FORK;
    const auto slack = read_file(fmt::format("/proc/{}/timerslack_ns", thread));
    const bool is_ordinary = policy == SCHED_OTHER || policy == SCHED_BATCH || policy == SCHED_IDLE;
    return is_ordinary && slack && parse_number(without_line_end(*slack)) == 0U
               ? Losses{fmt::format("thread {}", thread)}
               : Losses();
  });
}

Losses find_descriptor_owners(const LossView& view) {
  return owned_descriptors(view, false);
}

Losses find_directory_owners(const LossView& view) {
  return owned_descriptors(view, true);
}

Losses find_fired_watches(const LossView& view) {
  Losses fired;
  for (const wire::OpenFile& file : view.image.objects().files()) {
    for (const wire::EpollWatch& watch : file.watches()) {
      if (carriers::has_fired(watch) && watch.ready() == 0) {
        fired.push_back(fmt::format("of descriptor {}", watch.target()));
      }
    }
  }
  return fired;
}

Losses find_named_pipes(const LossView& view) {
  Losses pipes;
  for (const wire::OpenFile& file : view.image.objects().files()) {
    if (file.kind() == wire::OpenFile::RELAY && S_ISFIFO(file.identity().mode()) &&
        file.identity().path().starts_with('/')) {
      pipes.push_back(file.identity().path());
    }
  }
  return pipes;
}

// Of one without content nothing is lost: it is what we have put in the place of another.
Losses find_deleted_executable(const LossView& view) {
  const wire::ProcessImage& process = only_process(view.image);
  if (!process.without_executable() || process.executable().size_bytes() == 0) {
    return {};
  }
  return {process.executable().path()};
}

Losses find_files_as_memory(const LossView& view) {
  const std::set<std::string>& files = view.process.files_as_memory;
  return {files.begin(), files.end()};
}

Losses find_huge_pages(const LossView& view) {
  constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20U;
  const wire::Objects& objects = view.image.objects();
  std::uint64_t bytes = 0;
  for (const wire::Mapping& mapping : only_process(view.image).mappings()) {
    const bool is_counted_below =
        mapping.kind() == wire::Mapping::SHARED_MEMORY &&
        objects.shared_memories(static_cast<int>(mapping.shared_memory())).open_descriptor();
    bytes += mapping.has_huge_pages() && !is_counted_below ? mapping.end() - mapping.start() : 0;
  }
  for (const wire::SharedMemory& memory : objects.shared_memories()) {
    bytes += memory.has_huge_pages() && memory.open_descriptor() ? memory.size_bytes() : 0;
  }
  return bytes == 0 ? Losses() : Losses{fmt::format("{} MiB", bytes / kMebibyte)};
}

Losses find_process_group(const LossView& view) {
  constexpr std::size_t kGroup = 5;
  const std::uint64_t group =
      stat_field(read_file_at(view.process.directory.get(), "stat").value_or(""), kGroup);
  if (group == static_cast<std::uint64_t>(view.process.pid)) {
    return {};
  }
  return {group == 0 ? "a group of another PID namespace" : fmt::format("group {}", group)};
}

Losses find_terminal(const LossView& view) {
  constexpr std::size_t kTerminal = 7;
  constexpr unsigned kFirstPseudoTerminal = 136;
  constexpr unsigned kMinors = 256;  // of each major number of theirs
  const dev_t device =
      stat_field(read_file_at(view.process.directory.get(), "stat").value_or(""), kTerminal);
  const bool is_open =
      std::ranges::any_of(view.image.objects().terminals(),
                          [](const wire::Terminal& terminal) { return terminal.is_controlling(); });
  const bool is_own_pair = std::ranges::any_of(
      view.image.objects().terminal_pairs(),
      [](const wire::TerminalPair& pair) { return pair.is_controlling() && pair.instance() != 0; });
  if (device == 0 || is_open || is_own_pair) {
    return {};
  }
  const unsigned major = gnu_dev_major(device);
  const unsigned minor = gnu_dev_minor(device);
  if (major < kFirstPseudoTerminal || major > kFirstPseudoTerminal + 7) {
    return {fmt::format("terminal {}:{}", major, minor)};
  }
  return {fmt::format("terminal /dev/pts/{}", (major - kFirstPseudoTerminal) * kMinors + minor)};
}

}  // namespace migrate::inspect
