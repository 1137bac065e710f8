#include "libmigrate/state/global_name.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "base/process_identity.h"
#include "libmigrate/state/session_file.h"

namespace migrate {
namespace {

constexpr unsigned kPidBits = 22;  // The kernel's pid_max is at most 4194304.

/// The beginning of this machine's boot id.
std::uint64_t boot_epoch() {
  constexpr int kBase = 16;
  constexpr std::size_t kDigits = 16;
  std::string digits = boot_id();
  std::erase(digits, '-');
  digits.resize(std::min(digits.size(), kDigits));
  std::uint64_t epoch = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), epoch, kBase);
  return epoch;
}

}  // namespace

wire::GlobalName first_global_name(pid_t process, const std::string& host_name) {
  wire::GlobalName name;
  name.set_origin(host_name);
  if (const std::uint64_t start = start_time(process); start != 0) {
    name.set_serial((start << kPidBits) | static_cast<std::uint64_t>(process));
  }
  name.set_epoch(boot_epoch());
  return name;
}

std::string to_string(const wire::GlobalName& name) {
  if (name.origin().empty()) {
    return {};
  }
  std::string origin = name.origin();
  std::replace_if(
      origin.begin(), origin.end(),
      [](unsigned char c) { return std::iscntrl(c) != 0 || c == '/'; }, '_');
  return fmt::format("{}/{:x}/{:x}", origin, name.serial(), name.epoch());
}

}  // namespace migrate
