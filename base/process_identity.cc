#include "base/process_identity.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <sstream>
#include <string>

#include "base/file.h"

namespace migrate {

std::uint64_t start_time(pid_t process) {
  constexpr int kFieldsBetween = 18;  // From the state, field 3, to field 22.
  const auto stat = read_file("/proc/" + std::to_string(process) + "/stat");
  if (!stat || stat->rfind(')') == std::string::npos) {
    return 0;
  }
  std::istringstream fields(stat->substr(stat->rfind(')') + 1));
  std::string word;
  fields >> word;
  if (word == "Z" || word == "X") {
    return 0;
  }
  for (int i = 0; i < kFieldsBetween; ++i) {
    fields >> word;
  }
  std::uint64_t start = 0;
  fields >> start;
  return start;
}

Result<UniqueFd> ProcessIdentity::open() const {
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd.valid()) {
    return fail(system_error("find", "process " + std::to_string(pid)));
  }
  // Whose pid it was when the descriptor was made has it still, if it is the one that is meant.
  if (!is_alive()) {
    return fail(
        make_error(ErrorCode::kNotFound, "find", "process " + std::to_string(pid), "it has ended"));
  }
  return pidfd;
}

bool send_signal(int pidfd, int signal, siginfo_t* information) {
  return ::syscall(SYS_pidfd_send_signal, pidfd, signal, information, 0) == 0;
}

}  // namespace migrate
