#include "tools/migratectl/commands.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <csignal>
#include <string_view>

namespace migrate {
namespace {

sigset_t stop_set() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

struct Running {
  pid_t pid = -1;
  UniqueFd output;  // Invalid once it was read to its end.
};

Running start(const Command& command) {
  Running running;
  std::array<int, 2> ends{};
  const UniqueFd nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return running;
  }
  running.output.reset(ends[0]);
  const UniqueFd writer(ends[1]);
  running.pid = start_command(command, nothing.get(), writer.get());
  return running;
}

bool is_plain(const std::string& word, std::string_view others) {
  return !word.empty() && word.size() <= 255 && word.front() != '-' &&
         std::ranges::all_of(word, [&](unsigned char each) {
           return std::isalnum(each) != 0 || others.find(static_cast<char>(each)) != others.npos;
         });
}

}  // namespace

int start_command(const Command& command, int input, int output) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, input, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  const sigset_t stops = stop_set();
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigdefault(&attributes, &stops);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  std::vector<char*> words;
  words.reserve(command.size() + 1);
  for (const std::string& word : command) {
    words.push_back(const_cast<char*>(word.c_str()));  // posix_spawn takes them as not const.
  }
  words.push_back(nullptr);
  pid_t pid = -1;
  if (::posix_spawnp(&pid, words[0], &files, &attributes, words.data(), environ) != 0) {
    pid = -1;
  }
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  return pid;
}

bool read_more(int from, std::string& text) {
  std::array<char, 65536> part{};
  const ssize_t length = ::read(from, part.data(), part.size());
  if (length > 0) {
    text.append(part.data(), static_cast<std::size_t>(length));
  }
  return length > 0 || (length < 0 && errno == EINTR);
}

int status_of_command(int pid) {
  int status = 0;
  if (pid < 0) {
    return kCommandNotStarted;
  }
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

std::string plain_name_problem(const std::string& word) {
  return is_plain(word, "._-") ? "" : word + " is no name: letters, digits and ._- make one";
}

std::string plain_address_problem(const std::string& word) {
  return is_plain(word, "._-:[]") ? "" : word + " is no HOST or HOST:PORT";
}

Result<StopSignals> StopSignals::take() {
  const sigset_t set = stop_set();
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) {
    return fail(system_error("sigprocmask"));
  }
  UniqueFd signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals.valid()) {
    return fail(system_error("signalfd"));
  }
  return StopSignals(std::move(signals));
}

bool StopSignals::came(std::chrono::milliseconds within) {
  pollfd signals{signals_.get(), POLLIN, 0};
  signalfd_siginfo info{};
  if (!came_ && within.count() > 0) {
    (void)::poll(&signals, 1, static_cast<int>(within.count()));
  }
  came_ = came_ || ::read(signals_.get(), &info, sizeof info) == sizeof info;
  return came_;
}

std::vector<Ended> run_commands(const std::vector<Command>& commands, StopSignals& stop,
                                OnStop on_stop) {
  std::vector<Running> running;
  running.reserve(commands.size());
  for (const Command& command : commands) {
    running.push_back(start(command));
  }
  std::vector<Ended> ended(commands.size());
  bool told = false;
  for (;;) {
    std::vector<pollfd> waits;
    std::vector<std::size_t> whose;
    for (std::size_t i = 0; i < running.size(); ++i) {
      if (running[i].output.valid()) {
        waits.push_back({running[i].output.get(), POLLIN, 0});
        whose.push_back(i);
      }
    }
    if (waits.empty()) {
      break;
    }
    if (!stop.came()) {
      waits.push_back({stop.descriptor(), POLLIN, 0});
    } else if (on_stop == OnStop::kEndThem && !told) {
      told = true;
      for (const Running& each : running) {
        if (each.pid > 0) {
          ::kill(-each.pid, SIGTERM);
        }
      }
    }
    (void)::poll(waits.data(), waits.size(), -1);
    for (std::size_t i = 0; i < whose.size(); ++i) {
      Running& each = running[whose[i]];
      if (waits[i].revents != 0 && !read_more(each.output.get(), ended[whose[i]].output)) {
        each.output.reset();
      }
    }
  }
  for (std::size_t i = 0; i < running.size(); ++i) {
    ended[i].status = status_of_command(running[i].pid);
  }
  return ended;
}

}  // namespace migrate
