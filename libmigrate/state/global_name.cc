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

bool read_hexadecimal(std::string_view text, std::uint64_t& number) {
  constexpr int kBase = 16;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, kBase);
  return !text.empty() && error == std::errc() && end == text.data() + text.size();
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

Result<wire::GlobalName> parse_global_name(std::string_view text) {
  constexpr std::size_t kLongest = 300;  // HOST_NAME_MAX is 64, a name of DNS has up to 253
  const std::size_t first = text.find('/');
  const std::size_t second = text.find('/', first == text.npos ? first : first + 1);
  std::uint64_t serial = 0;
  std::uint64_t epoch = 0;
  const bool good =
      second != text.npos && first > 0 && text.size() <= kLongest &&
      read_hexadecimal(text.substr(first + 1, second - first - 1), serial) &&
      read_hexadecimal(text.substr(second + 1), epoch) &&
      std::none_of(text.begin(), text.end(), [](unsigned char c) { return std::iscntrl(c) != 0; });
  if (!good) {
    return fail(make_error(ErrorCode::kInvalid, "read the global name",
                           "\"" + std::string(text.substr(0, kLongest)) + "\"",
                           "write ORIGIN/SERIAL/EPOCH, as `migratectl show` and `migratectl "
                           "identity` tell it"));
  }
  wire::GlobalName name;
  name.set_origin(std::string(text.substr(0, first)));
  name.set_serial(serial);
  name.set_epoch(epoch);
  return name;
}

std::optional<ProcessIdentity> process_of(const wire::GlobalName& name) {
  const ProcessIdentity process{
      .pid = static_cast<pid_t>(name.serial() & ((std::uint64_t{1} << kPidBits) - 1)),
      .start = name.serial() >> kPidBits};
  return name.epoch() == boot_epoch() && process.pid > 0 && process.start > 0
             ? std::optional(process)
             : std::nullopt;
}

}  // namespace migrate
