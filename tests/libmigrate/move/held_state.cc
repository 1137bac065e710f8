#include "tests/libmigrate/move/held_state.h"

#include <unistd.h>

#include <cstdlib>

#include "base/file.h"

namespace migrate::handover_testing {
namespace {

std::string status_field(pid_t process, const std::string& name) {
  const std::string status =
      read_file("/proc/" + std::to_string(process) + "/status").value_or(std::string());
  const std::size_t at = status.find("\n" + name + ":\t");
  if (at == std::string::npos) {
    return {};
  }
  const std::size_t begin = at + name.size() + 3;
  return status.substr(begin, status.find('\n', begin) - begin);
}

}  // namespace

bool is_traced(pid_t process) {
  return status_field(process, "TracerPid") != "0";
}

bool is_parked(pid_t process, std::uint64_t area) {
  constexpr std::uint64_t kCodeBytes = 64 * 1024;
  constexpr int kLooks = 2000;
  std::string call = "running";
  // One that was just let go is on its way to where it waits.
  for (int look = 0; look < kLooks && call.starts_with("running"); ++look) {
    ::usleep(look == 0 ? 0 : 1000);
    call = read_file("/proc/" + std::to_string(process) + "/syscall").value_or(std::string());
  }
  // Its last word is the instruction pointer.
  const std::size_t at = call.rfind(' ');
  const std::uint64_t place =
      at == std::string::npos ? 0 : std::strtoull(call.c_str() + at, nullptr, 16);
  return area != 0 && place >= area && place - area < kCodeBytes;
}

std::string blocked_signals(pid_t process) {
  return status_field(process, "SigBlk");
}

}  // namespace migrate::handover_testing
