#include "tools/migratectl/conversation.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>

namespace migrate {

Conversation::~Conversation() {
  if (pid_ > 0) {
    end(SIGTERM);
  }
}

bool Conversation::start() {
  std::array<int, 2> ends{};
  // One for both: it may read and write, and neither is a terminal.
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return false;
  }
  ours_.reset(ends[0]);
  const UniqueFd its(ends[1]);
  pid_ = start_command(command_, its.get(), its.get());
  said_.clear();
  return pid_ > 0;
}

int Conversation::end(int signal) {
  ours_.reset();
  if (signal != 0) {
    ::kill(-pid_, signal);
  }
  return status_of_command(std::exchange(pid_, -1));
}

Ended Conversation::ask(StopSignals& stop) {
  if (pid_ <= 0 && !start()) {
    return {.status = kCommandNotStarted, .output = {}};
  }
  // Whether it has ended, its answer tells.
  (void)::send(ours_.get(), "\n", 1, MSG_NOSIGNAL);
  for (;;) {
    if (const std::size_t line = said_.find('\n'); line != std::string::npos) {
      Ended answer{.status = 0, .output = said_.substr(0, line)};
      said_.erase(0, line + 1);
      return answer;
    }
    std::array<pollfd, 2> waits{{{ours_.get(), POLLIN, 0}, {stop.descriptor(), POLLIN, 0}}};
    (void)::poll(waits.data(), waits.size(), -1);
    if (stop.came()) {
      return {.status = end(SIGTERM), .output = {}};
    }
    if (waits[0].revents != 0 && !read_more(ours_.get(), said_)) {
      return {.status = end(0), .output = {}};
    }
  }
}

}  // namespace migrate
