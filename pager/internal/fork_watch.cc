#include "pager/internal/fork_watch.h"

#include <sched.h>
#include <sys/syscall.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/file.h"

namespace migrate {
namespace {

constexpr int kMostAttempts = 8;

std::string task_folder(pid_t pid) {
  return "/proc/" + std::to_string(pid) + "/task/";
}

std::vector<pid_t> threads_of(pid_t pid) {
  std::vector<pid_t> threads;
  const auto names = list_directory(task_folder(pid));
  for (const std::string& name : names.value_or(std::vector<std::string>())) {
    threads.push_back(static_cast<pid_t>(std::strtol(name.c_str(), nullptr, 10)));
  }
  return threads;
}

/// Oldest first.
std::vector<pid_t> children_of(pid_t pid, pid_t thread) {
  std::vector<pid_t> children;
  const std::string text =
      read_file(task_folder(pid) + std::to_string(thread) + "/children").value_or("");
  const char* next = text.c_str();
  for (char* end = nullptr;; next = end) {
    const long child = std::strtol(next, &end, 10);
    if (end == next) {
      return children;
    }
    children.push_back(static_cast<pid_t>(child));
  }
}

/// The system call that a thread waits in and its first argument.
struct Call {
  long number = -1;
  unsigned long first = 0;
};

Call call_of(pid_t pid, pid_t thread) {
  // "running", or the call's number and arguments.
  const std::string text =
      read_file(task_folder(pid) + std::to_string(thread) + "/syscall").value_or("");
  Call call;
  const char* const limit = text.data() + text.size();
  const auto [rest, bad] = std::from_chars(text.data(), limit, call.number);
  constexpr std::string_view kBefore = " 0x";
  if (bad == std::errc() && std::string_view(rest, limit).starts_with(kBefore)) {
    std::from_chars(rest + kBefore.size(), limit, call.first, 16);
  }
  return call;
}

// Newer architectures have only the calls that take flags.
#ifdef SYS_fork
constexpr long kFork = SYS_fork;
constexpr long kVfork = SYS_vfork;
#else
constexpr long kFork = SYS_clone;
constexpr long kVfork = SYS_clone;
#endif

bool is_forking(pid_t pid, pid_t thread) {
  const long number = call_of(pid, thread).number;
  return number == kFork || number == kVfork || number == SYS_clone || number == SYS_clone3;
}

/// Its new child will be surely that of the thread, not (CLONE_PARENT) its sister.
bool keeps_its_child(pid_t pid, pid_t thread) {
  const Call call = call_of(pid, thread);
  if (call.number == SYS_clone) {
    return (call.first & CLONE_PARENT) == 0;
  }
  return call.number == kFork;
}

std::vector<pid_t> forking_threads(pid_t pid) {
  std::vector<pid_t> threads = threads_of(pid);
  std::erase_if(threads, [pid](pid_t thread) { return !is_forking(pid, thread); });
  return threads;
}

struct Withheld {
  bool waits = false;  // some of `map`'s memory is registered with a userfaultfd
  std::vector<PageRange> ranges;
};

Withheld withheld_by(pid_t pid, const PageMap& map) {
  Withheld withheld;
  const std::string text = read_file("/proc/" + std::to_string(pid) + "/smaps").value_or("");
  PageRange mapping;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line(text.data() + begin, end - begin);
    begin = end + 1;
    constexpr std::string_view kFlags = "VmFlags:";
    if (line.starts_with(kFlags)) {
      const auto has = [line](std::string_view flag) { return line.find(flag) != line.npos; };
      if (has(" wf") || has(" dc")) {
        withheld.ranges.push_back(mapping);
      }
      withheld.waits = withheld.waits || (has(" um") && !map.at_destination(mapping).empty());
      continue;
    }
    std::uint64_t from = 0;
    std::uint64_t to = 0;
    const char* const limit = line.data() + line.size();
    const auto [dash, bad_from] = std::from_chars(line.data(), limit, from, 16);
    if (bad_from == std::errc() && dash != limit && *dash == '-' &&
        std::from_chars(dash + 1, limit, to, 16).ec == std::errc()) {
      mapping = PageRange::between(from, to);
    }
  }
  return withheld;
}

}  // namespace

bool ForkWatch::look_at(pid_t pid, const PageMap& map) {
  std::vector<pid_t> forking = forking_threads(pid);
  // Those that have not come out since the last look are forking with what held then. A thread that
  // joins them while the mappings are read may have changed one that was read before.
  for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
    if (forking.empty()) {
      return false;
    }
    if (found_ == pid && forking_ == forking) {
      return true;
    }
    Withheld withheld = withheld_by(pid, map);
    if (!withheld.waits) {
      return false;
    }
    found_ = pid;
    forking_ = std::move(forking);
    keeps_child_ = forking_.size() == 1 && keeps_its_child(pid, forking_.front());
    had_children_ = children_of(pid, forking_.front());
    withheld_ = std::move(withheld.ranges);
    forking = forking_threads(pid);
  }
  return true;
}

const std::vector<PageRange>* ForkWatch::look(const PageMap& map) {
  std::vector<pid_t> candidates(1, pid() != 0 ? pid_ : tree_);
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const pid_t candidate = candidates[i];
    if (look_at(candidate, map)) {
      return &withheld_;
    }
    for (const pid_t thread : pid_ == 0 ? threads_of(candidate) : std::vector<pid_t>()) {
      const std::vector<pid_t> children = children_of(candidate, thread);
      candidates.insert(candidates.end(), children.begin(), children.end());
    }
  }
  found_ = 0;
  return nullptr;
}

ForkWatch ForkWatch::take_child() {
  ForkWatch child(tree_, 0);
  if (found_ != 0 && keeps_child_) {
    child.parent_ = found_;
    child.parent_thread_ = forking_.front();
    child.older_ = had_children_;
  }
  found_ = 0;
  return child;
}

// The child is visible only some time after its event was read, and always before it runs.
pid_t ForkWatch::pid() {
  if (pid_ == 0 && parent_ != 0) {
    for (const pid_t child : children_of(parent_, parent_thread_)) {
      if (std::find(older_.begin(), older_.end(), child) == older_.end()) {
        pid_ = child;
        break;
      }
    }
  }
  return pid_;
}

}  // namespace migrate
